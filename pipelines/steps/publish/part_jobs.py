"""Jobs over the parts of a snapshot that write what they find into files of the run.

The job of a run that is gone counts as well, once it is done: see `pipelines.run.jobs.left_job`.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import apache_beam as beam

from pipelines.run.jobs import beam_job
from pipelines.run.session import Session
from schemas.identity import digest
from schemas.run_report import LOAD_AND_VERIFY
from transforms.support.storage import filesystem
from transforms.support.tidying import tidied
from transforms.support.work_list import listed
from transforms.verify.part_groups import PART_GROUPS, PartGroup

STEP = "verify"
Found = TypeVar("Found")


@dataclass(frozen=True)
class Writes:
    """What a job writes into the collection before it compares.

    Attributes:
        begin: gives, for the length of a block, the beginning of the pipeline: a PTransform whose output is complete
            when everything is written.
        rows: how many rows it writes at most.
        of: what it depends on.
        folders: of the run that it writes into, by what they are.
    """

    begin: Callable[[], contextlib.AbstractContextManager[beam.PTransform]]
    rows: int
    of: Sequence[Any]
    folders: Mapping[str, str] = field(default_factory=dict)


class PartJobs:
    """Runs the jobs that compare, one after the other, each with a folder of its own."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._turn = itertools.count()

    def run(
        self,
        build: Callable[[beam.PCollection, list[PartGroup], str], None],
        read: Callable[[str], Found],
        groups: list[PartGroup],
        *,
        of: Sequence[Any] = (),
        before: Callable[[str], None] | None = None,
        writes: Writes | None = None,
    ) -> Found:
        """Runs a job over groups of parts, or uses that of a run that is gone; returns what it found.

        Args:
            build: adds to the groups what is done with them, with the folder for its findings.
            read: reads the folder.
            of: what the findings depend on; where it is left out, no other run continues after the job.
            before: writes into the folder what workers read.
            writes: what the job writes before; `build` adds that.
        """
        session = self._session
        depends = [*of, *(writes.of if writes is not None else ())]
        described = digest([session.report.command, session.report.versions["vecbeam"], *depends], 32) if of else ""
        step = STEP if writes is None else LOAD_AND_VERIFY
        folder = self._left(step, described)
        is_new = folder is None
        folder = folder or session.uri(f"verify/{next(self._turn)}")
        with tidied(partial(filesystem.delete_folder, folder)):
            if is_new:
                if before is not None:
                    before(folder)
                others = {"work": session.uri("work"), **(writes.folders if writes is not None else {})}
                with session.resumable(step, described, verify=folder, **others):
                    self._run(build, groups, folder, step)
            return read(folder)

    def _run(
        self,
        build: Callable[[beam.PCollection, list[PartGroup], str], None],
        groups: list[PartGroup],
        folder: str,
        step: str,
    ) -> None:
        session = self._session
        with listed(groups, PART_GROUPS, session.uri("work/verify.parquet")) as work:
            counters = beam_job.run(
                session.config, lambda pipeline: build(pipeline | "Groups" >> work, groups, folder), session
            )
        # The clock of this process has the time of a job that only compares, the wait for its workers included.
        session.add_counters(counters if step != STEP else Counter({**counters, "verify_us": 0}))
        session.report.chunks.loaded += counters["chunks_loaded"]
        session.report.chunks.deleted += counters["chunks_deleted"]
        session.forget_left()  # the job has not seen what is written from here on

    def _left(self, step: str, of: str) -> str | None:
        """The folder of a job of a run that is gone which found the same, to its end."""
        session, left = self._session, self._session.left
        folder = left.folder(step, of, "verify") if left is not None and of else ""
        if left is None or not folder:
            session.discard_left()
            return None
        session.forget_left()
        session.progress.note(f"using the results of the {left.job}, which run {left.run_id} started")
        for uri in set(left.folders.values()) - {folder}:
            filesystem.delete_folder(uri)
        return folder
