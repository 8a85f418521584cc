"""Parts to a collection by import jobs, each noted in the ledger before it starts, so that none is imported twice.

A job is `<ledger>/<number>.job`: its parts, the jobs that the service listed before it, and its id once that is known.
A run that was killed leaves some. The next run waits for the jobs whose ids it finds there. Of a job without an id it
is not known whether it exists: the list of the service tells, as at most one job at a time is being created.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from typing import NamedTuple

from schemas.errors import CollectionError, InterruptedRunError
from schemas.identity import digest
from transforms.load.upsert_parts import Ledger
from transforms.milvus.rows.bulk_import import reading_failed
from transforms.milvus.rows.import_service import ImportService, ImportState, JobStage, LostAnswerError, QueueFullError
from transforms.support import stop
from transforms.support.storage import filesystem
from transforms.support.storage.sealed_json import sealed, unsealed

POLL_S = 0.2
ACKNOWLEDGED_AT_ONCE = 16
LONGEST_POLL_S = 5.0
SETTLE_S = 10.0
"""Seconds in which a job must be listed whose creation was not answered."""
ATTEMPTS = 3
"""At a job whose creation is not answered and which is not listed after that time."""
STALLED_S = 1800.0
"""Seconds without any progress of any job after which an import is given up."""


class PartFile(NamedTuple):
    """A part to import."""

    name: str
    uri: str
    rows: int


class UnknownImportError(CollectionError):
    """It is not known which parts were imported: the collection must be made from scratch."""


@dataclass(frozen=True)
class BegunJob:
    """A job in the ledger.

    Attributes:
        number: of the job, in this collection.
        parts: their names.
        before: ids of the jobs that the service listed before.
        id: None if the creation was not answered.
    """

    number: int
    parts: tuple[str, ...]
    before: tuple[str, ...]
    id: str | None = None


@dataclass(frozen=True)
class JobLedger:
    """The jobs of a ledger that have begun and whose parts are not acknowledged yet."""

    ledger: Ledger

    def open_jobs(self) -> list[BegunJob]:
        """The jobs, in the order of their numbers.

        Raises:
            UnknownImportError: if a file of a job is damaged.
        """
        found = []
        for file in filesystem.list_files(self.ledger.folder, "*.job"):
            try:
                values = unsealed(filesystem.read_bytes(file.uri))
                found.append(BegunJob(values["number"], tuple(values["parts"]), tuple(values["before"]), values["id"]))
            except (ValueError, KeyError, TypeError) as error:
                raise UnknownImportError(f"{file.uri} is damaged: {error}") from error
        return sorted(found, key=lambda job: job.number)

    def write(self, job: BegunJob) -> None:
        filesystem.write_atomic(self._uri(job), sealed(asdict(job)))

    def remove(self, job: BegunJob) -> None:
        filesystem.delete([self._uri(job)])

    def _uri(self, job: BegunJob) -> str:
        return filesystem.join(self.ledger.folder, f"{job.number:06d}.job")


class PartsImport:
    """The import of parts into one collection.

    Args:
        finished: called with a part and its rows when it is in the collection and in the ledger.
        note: called with a line about each job.
    """

    def __init__(
        self,
        service: ImportService,
        ledger: Ledger,
        finished: Callable[[PartFile], None],
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._service, self._ledger = service, ledger
        self._jobs = JobLedger(ledger)
        self._finished, self._note = finished, note
        self._running: dict[str, BegunJob] = {}
        self._progress: dict[str, object] = {}
        self._changed = time.monotonic()
        self._listed: set[str] = set()
        self._number = 0

    def run(self, parts: Sequence[PartFile]) -> None:
        """Imports parts and waits until the last one is in the collection; continues what an earlier run began.

        Raises:
            UnknownImportError: if it is not known what an earlier run imported.
            CollectionError: if the service refuses a job, a job fails, with its reason and its parts, or no job makes
                progress; parts that were in by then stay in.
            InterruptedRunError: if a stop was requested meanwhile.
        """
        known = {part.name: part for part in parts}
        self._listed = {job.id for job in self._service.jobs()}
        for begun in self._jobs.open_jobs():
            self._number = max(self._number, begun.number)
            self._resume(begun, known)
        begun_parts = {name for job in self._running.values() for name in job.parts}
        done = self._ledger.acknowledged()
        waiting = (part for part in parts if part.name not in begun_parts and part.name not in done)
        groups = _groups(waiting, max(1, self._service.files_per_job))
        group = next(groups, ())
        wait = POLL_S
        while group or self._running:
            stop.check()
            if group and len(self._running) < self._service.jobs_at_once and self._start(group):
                group, wait = next(groups, ()), POLL_S
                continue
            stop.sleep(wait)
            wait = POLL_S if self._poll(known) else min(LONGEST_POLL_S, wait * 1.2)
            if time.monotonic() - self._changed > STALLED_S:
                raise CollectionError(
                    f"{self._service.place} has made no progress with {len(self._running)} import jobs for "
                    f"{STALLED_S:.0f} s",
                    "look at the server's data nodes, and run the same command again",
                )

    def _resume(self, begun: BegunJob, known: dict[str, PartFile]) -> None:
        """Takes over a job of an earlier run."""
        done = self._ledger.acknowledged()
        missing = [name for name in begun.parts if name not in known and name not in done]
        if missing:
            raise UnknownImportError(f"an earlier run imports {missing[0]}, which the snapshot does not have now")
        if begun.id is None:
            found = self._find(begun)
            if found is None:
                self._jobs.remove(begun)
                return
            begun = self._with_id(begun, found)
        assert begun.id is not None
        state = self._service.state(begun.id)
        if state.stage is JobStage.FAILED:
            raise UnknownImportError(f"import job {begun.id} of an earlier run failed: {state.reason}")
        self._note(f"import job {begun.id} of an earlier run: waiting for its {len(begun.parts)} parts")
        self._running[begun.id] = begun

    def _start(self, group: Sequence[PartFile]) -> bool:
        """Creates a job; False if the service takes no further one yet."""
        names = tuple(part.name for part in group)
        begun = BegunJob(self._number + 1, names, tuple(sorted(self._listed)))
        self._jobs.write(begun)
        files = [self._service.path_of(part.uri) for part in group]
        # Of the collection as it was made, and of the attempt: a collection made from scratch needs another job.
        key = f"vecbeam-{digest([self._ledger.collection, self._ledger.load_id, begun.number, names], 32)}"
        job: str | None = None
        attempts = 0
        try:
            while job is None:
                try:
                    job = self._service.create(files, key)
                except LostAnswerError:
                    job, attempts = self._find(begun), attempts + 1
                    if job is None and attempts == ATTEMPTS:
                        raise
        except QueueFullError:
            self._jobs.remove(begun)
            return False
        except (LostAnswerError, InterruptedRunError):
            raise  # the job may exist
        except CollectionError:
            self._jobs.remove(begun)
            raise
        begun = self._with_id(begun, job)
        self._number = begun.number
        self._running[job] = begun
        self._changed = time.monotonic()
        self._note(f"import job {job}: {len(names)} parts")
        return True

    def _with_id(self, begun: BegunJob, job: str) -> BegunJob:
        named = BegunJob(begun.number, begun.parts, begun.before, job)
        self._jobs.write(named)
        self._listed.add(job)
        return named

    def _find(self, begun: BegunJob) -> str | None:
        """The id of a job whose creation was not answered; None if there is none.

        Raises:
            UnknownImportError: if more than one job has come since.
        """
        seen = {*begun.before, *self._running}
        end = time.monotonic() + SETTLE_S
        while True:
            fresh = [job for job in self._service.jobs() if job.id not in seen]
            if len(fresh) > 1:
                raise UnknownImportError(f"{len(fresh)} import jobs have begun, and vecbeam began one")
            if fresh:
                return fresh[0].id
            if time.monotonic() >= end:
                return None
            stop.sleep(min(1.0, SETTLE_S))

    def _poll(self, known: dict[str, PartFile]) -> bool:
        """Looks at each job that runs; whether any has made progress."""
        moved = False
        for job, begun in list(self._running.items()):
            state = self._service.state(job)
            if self._progress.get(job) != (state.stage, state.progress):
                self._progress[job] = (state.stage, state.progress)
                self._changed, moved = time.monotonic(), True
            if state.stage is JobStage.FAILED:
                raise self._failed(job, begun, state)
            if state.stage is JobStage.DONE:
                self._settle(begun, known)
                del self._running[job]
        return moved

    def _settle(self, begun: BegunJob, known: dict[str, PartFile]) -> None:
        done = self._ledger.acknowledged()  # a run that was killed here has acknowledged some
        parts = [known[name] for name in begun.parts if name not in done]
        with ThreadPoolExecutor(ACKNOWLEDGED_AT_ONCE, thread_name_prefix="acknowledge") as pool:
            list(pool.map(lambda part: self._ledger.acknowledge(part.name, part.rows), parts))
        for part in parts:
            self._finished(part)
        self._jobs.remove(begun)

    def _failed(self, job: str, begun: BegunJob, state: ImportState) -> CollectionError:
        named = [name for name in begun.parts if any(name in file for file in (*state.files, state.reason))]
        shown = named or list(begun.parts)
        more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
        reads = "it can't read them: " if reading_failed(state.reason) else ""
        return CollectionError(
            f"{self._service.place} can't import {', '.join(shown[:3])}{more}: {reads}"
            f"{state.reason or 'no reason is given'} (job {job})",
            "the server has to read the checkpoint from its own disk or bucket, Zilliz Cloud from yours with the keys "
            "in ZILLIZ_STORAGE_ACCESS_KEY and ZILLIZ_STORAGE_SECRET_KEY; else set collection.load: upsert, and run "
            "the same command again",
        )


def await_imports(service: ImportService, name: str) -> None:
    """Waits until the imports of earlier runs into a collection have ended, with or without success.

    Raises:
        CollectionError: if some take too long.
    """
    began = time.monotonic()
    while time.monotonic() - began < STALLED_S:
        if all(job.stage is not JobStage.RUNNING for job in service.jobs()):
            return
        stop.sleep(min(LONGEST_POLL_S, 5 * POLL_S))
    raise CollectionError(
        f"imports into {name!r} of an earlier run have not ended in {STALLED_S:.0f} s at {service.place}",
        "look at the server's data nodes, and run the same command again",
    )


def _groups(parts: Iterator[PartFile], most: int) -> Iterator[tuple[PartFile, ...]]:
    while group := tuple(islice(parts, most)):
        yield group
