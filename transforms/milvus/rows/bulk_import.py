"""Milvus's own bulk import: the server reads the parts, and no row goes through the client.

The server must see the checkpoint: on its own disk under the same path, or in the bucket with its own data.
An import ignores keys: existing rows are duplicates afterwards. So it fits a collection that is
empty, and parts whose ids are unique, which those of a snapshot are.

The call is that of Milvus 2.3, which this is tested with. Newer servers turn it into a job of their import API (in
their proxy, `convertToV2ImportRequest`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from schemas.errors import CollectionError
from transforms.support import stop

if TYPE_CHECKING:
    from transforms.milvus.connection import Milvus

POLL_S = 0.2
LONGEST_POLL_S = 5.0
MOST_JOBS = 16384
STALLED_S = 1800.0
"""Seconds without any progress of any job after which an import is given up."""


def server_path(uri: str) -> str:
    """How a server names a file of the checkpoint: by its path, in its own bucket by the key alone.

    >>> server_path("s3://bucket/checkpoints/docs/part.parquet")
    'checkpoints/docs/part.parquet'
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    return rest.partition("/")[2] if scheme != "file" else rest


def import_files(
    connection: Milvus,
    name: str,
    uris: Sequence[str],
    finished: Callable[[int, int], None],
) -> None:
    """Imports Parquet files and waits until the last one is in the collection.

    Args:
        uris: of files with the columns of the collection, all of them and no others.
        finished: called with a file's position and its rows when it is imported.

    Raises:
        CollectionError: if the server refuses a file, with its reason and the file, or no job makes progress; files
            that were in by then stay in.
        InterruptedRunError: if a stop was requested meanwhile.
    """
    handler, place = connection.client._get_connection(), connection.settings.uri
    limit = connection.limit
    jobs = {}
    for at, uri in enumerate(uris):
        begin = partial(handler.do_bulk_insert, name, "", [server_path(uri)], timeout=limit)
        # Once: if only the answer was lost, a second request would import the file again.
        jobs[connection.again(f"import {uri}", begin, seconds=0)] = at
    seen: dict[int, tuple[Any, ...]] = {}
    wait, changed = POLL_S, time.monotonic()
    while jobs:
        stop.check()
        stop.sleep(wait)
        wait = min(LONGEST_POLL_S, wait * 1.2)
        for job, at in list(jobs.items()):
            state = connection.again(f"import {uris[at]}", partial(handler.get_bulk_insert_state, job, timeout=limit))
            now = (state.state, state.row_count, state.progress)
            if seen.get(job) != now:
                seen[job], changed, wait = now, time.monotonic(), POLL_S
            if state.state in (state.ImportFailed, state.ImportFailedAndCleaned):
                raise CollectionError(
                    f"Milvus at {place} can't import {uris[at]}: {state.failed_reason or state.state_name}",
                    "the server has to read the checkpoint from its own disk or bucket; else set "
                    "collection.load: upsert, and run the same command again",
                )
            if state.state == state.ImportCompleted:
                del jobs[job]
                finished(at, int(state.row_count))
        if time.monotonic() - changed > STALLED_S:
            raise CollectionError(
                f"Milvus at {place} has made no progress with {len(jobs)} imports for {STALLED_S:.0f} s",
                "look at the server's data nodes, and run the same command again",
            )


def await_imports(connection: Milvus, name: str) -> None:
    """Waits until the imports of earlier runs into a collection have ended, with or without success.

    Raises:
        CollectionError: if some take too long.
    """
    from pymilvus.client.types import BulkInsertState

    handler, place = connection.client._get_connection(), connection.settings.uri
    began = time.monotonic()
    while time.monotonic() - began < STALLED_S:
        limit = connection.limit
        states = connection.again(
            "list imports", partial(handler.list_bulk_insert_tasks, MOST_JOBS, name, timeout=limit)
        )
        ended = (BulkInsertState.ImportCompleted, BulkInsertState.ImportFailed, BulkInsertState.ImportFailedAndCleaned)
        if all(state.state in ended for state in states):
            return
        stop.sleep(POLL_S)
    raise CollectionError(
        f"imports into {name!r} of an earlier run have not ended in {STALLED_S:.0f} s at Milvus at {place}",
        "look at the server's data nodes, and run the same command again",
    )
