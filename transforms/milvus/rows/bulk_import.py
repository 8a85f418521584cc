"""Milvus's own bulk import: the server reads the parts, and no row goes through the client.

The server must see the checkpoint: on its own disk under the same path, or in the bucket with its own data.
An import ignores keys: existing rows are duplicates afterwards. So it fits a collection that is
empty, and parts whose ids are unique, which those of a snapshot are.

The call is that of Milvus 2.3, which this is tested with; a job of 2.3 takes one file. Newer servers turn the call
into a job of their import API (in their proxy, `convertToV2ImportRequest`), with a file in each of its lists. Their
limits by default are 1,024 files per job and 1,024 jobs that wait or run (`dataCoord.import.maxImportFileNumPerReq` and
`maxImportJobNum`, https://milvus.io/docs/configure_datacoord.md); above the second they answer "The number of jobs
has reached the limit".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from schemas.errors import CollectionError
from transforms.milvus.call import passes, throttles, words
from transforms.milvus.rows.import_service import ImportState, JobStage, ListedJob, LostAnswerError, QueueFullError
from transforms.support import metrics

if TYPE_CHECKING:
    from transforms.milvus.connection import Milvus

JOBS_AT_ONCE = 64
MOST_LISTED = 16384
_NOT_READ = re.compile(r"no such (file|key)|not (exist|found)|access ?denied|forbidden|permission|can ?not open", re.I)


def server_path(uri: str) -> str:
    """How a server names a file of the checkpoint: by its path, in its own bucket by the key alone.

    >>> server_path("s3://bucket/checkpoints/docs/part.parquet")
    'checkpoints/docs/part.parquet'
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    return rest.partition("/")[2] if scheme != "file" else rest


class BulkInsert:
    """The bulk import of a Milvus server; an `ImportService`."""

    def __init__(self, connection: Milvus, name: str) -> None:
        self._connection, self._name = connection, name
        self.place = f"Milvus at {connection.settings.uri}"
        self.files_per_job = connection.capabilities.import_files
        self.jobs_at_once = JOBS_AT_ONCE

    def path_of(self, uri: str) -> str:
        return server_path(uri)

    def create(self, files: Sequence[str], key: str) -> str:  # noqa: ARG002
        begin = partial(self._handler.do_bulk_insert, self._name, "", list(files), timeout=self._connection.limit)
        try:
            # Once: if only the answer was lost, a second request would import the files again.
            return str(self._connection.again(f"import of {len(files)} files", begin, seconds=0))
        except CollectionError as error:
            cause = error.__cause__
            if cause is not None and throttles(cause):
                metrics.count("throttled", 1)
                raise QueueFullError(f"{self.place} takes no further import job now: {words(cause)}") from error
            if cause is not None and passes(cause):
                raise LostAnswerError(error.message, error.remedy) from error
            raise

    def state(self, job: str) -> ImportState:
        ask = partial(self._handler.get_bulk_insert_state, int(job), timeout=self._connection.limit)
        found = self._connection.again(f"state of import job {job}", ask)
        return ImportState(
            _stage(found), (found.state, found.row_count, found.progress), str(found.failed_reason or "")
        )

    def jobs(self) -> list[ListedJob]:
        ask = partial(self._handler.list_bulk_insert_tasks, MOST_LISTED, self._name, timeout=self._connection.limit)
        return [
            ListedJob(str(one.task_id), _stage(one), tuple(filter(None, str(one.files or "").split(","))))
            for one in self._connection.again("list of import jobs", ask)
        ]

    @property
    def _handler(self) -> Any:
        return self._connection.client._get_connection()


def _stage(state: Any) -> JobStage:
    if state.state == state.ImportCompleted:
        return JobStage.DONE
    failed = state.state in (state.ImportFailed, state.ImportFailedAndCleaned)
    return JobStage.FAILED if failed else JobStage.RUNNING


def reading_failed(reason: str) -> bool:
    """Whether a job failed because the service can't read a file."""
    return bool(_NOT_READ.search(reason))
