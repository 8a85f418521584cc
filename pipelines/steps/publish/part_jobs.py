"""Jobs over the parts of a snapshot that write what they find into files of the run.

The job of a run that is gone counts as well, once it is done: see `pipelines.run.jobs.left_job`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import apache_beam as beam

from pipelines.run.jobs import beam_job
from pipelines.run.session import Session
from schemas.errors import JobLeftError
from schemas.identity import digest
from transforms.support.storage import filesystem
from transforms.support.work_list import listed
from transforms.verify.part_groups import PART_GROUPS, PartGroup

STEP = "verify"
Found = TypeVar("Found")


class PartJobs:
    """Runs the jobs of the step `verify`, one after the other, each with a folder of its own."""

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
    ) -> Found:
        """Runs a job over groups of parts, or uses that of a run that is gone; returns what it found.

        Args:
            build: adds to the groups what is done with them, with the folder for its findings.
            read: reads the folder.
            of: what the findings depend on; where it is left out, no other run continues after the job.
            before: writes into the folder what workers read.
        """
        session = self._session
        described = digest([session.report.command, session.report.versions["vecbeam"], *of], 32) if of else ""
        folder = self._left(described)
        is_left = False
        try:
            if folder is None:
                folder = session.uri(f"verify/{next(self._turn)}")
                if before is not None:
                    before(folder)
                self._run(build, groups, folder, described)
            return read(folder)
        except JobLeftError:
            is_left = True
            raise
        finally:
            if folder is not None and not is_left:
                filesystem.delete_folder(folder)

    def _run(
        self,
        build: Callable[[beam.PCollection, list[PartGroup], str], None],
        groups: list[PartGroup],
        folder: str,
        described: str,
    ) -> None:
        session = self._session
        with (
            session.resumable(STEP, described, verify=folder),
            listed(groups, PART_GROUPS, session.uri("work/verify.parquet")) as work,
        ):
            counters = beam_job.run(
                session.config, lambda pipeline: build(pipeline | "Groups" >> work, groups, folder), session
            )
        session.add_counters(counters)
        session.forget_left()  # the job has not seen what is written from here on

    def _left(self, of: str) -> str | None:
        """The folder of a job of a run that is gone which found the same, to its end."""
        session, left = self._session, self._session.left
        folder = left.folder(STEP, of, "verify") if left is not None and of else ""
        if left is None or not folder:
            session.discard_left()
            return None
        session.forget_left()
        session.progress.note(f"using the results of the {left.job}, which run {left.run_id} started")
        return folder
