"""One run at a time on one checkpoint: who holds it, and since when.

On a local disk the system's own file lock, which ends with its process. On an object store a lease: a small object that
its holder renews every fifteen seconds, and that counts for nothing a minute after the last renewal. Between its
writing and its reading again two runs that start in the same second could not see each other; so each waits a moment
and looks whether the lease is still its own. It looks again before each renewal: a run that slept while another one
took over stops after the batch at hand.

Where workers are other machines the run's job is written beside its holder. Such a job outlives the process that
started it, so nobody takes over before its runner says that it has ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from schemas.errors import CheckpointError, LockedError
from transforms.support import stop
from transforms.support.job import Job
from transforms.support.storage import filesystem

RENEW_S = 15.0
STALE_S = 60.0
SETTLE_S = 1.0


class Hold:
    """A checkpoint that is held, and the jobs that work on it elsewhere. Several threads may use it at once."""

    def __init__(self, uri: str, facts: dict[str, Any]) -> None:
        self.uri = uri
        self._facts = facts
        self._jobs: list[Job] = []
        self._lock = threading.Lock()

    def add(self, job: Job) -> None:
        """Writes down a job that has started.

        Raises:
            LockedError: where another run has taken over while this machine slept.
        """
        with self._lock:
            if (other := _taken_over(self.uri, self._facts)) is not None:
                raise _refused(other, self.uri.rsplit("/runs/", 1)[0])
            self._jobs.append(job)
            self._write()

    def remove(self, job: Job) -> None:
        """Strikes out a job that has ended."""
        with self._lock:
            self._jobs.remove(job)
            self._write()

    def renew(self) -> None:
        """Writes it again."""
        with self._lock:
            self._write()

    def release(self) -> None:
        """Lets others in, once all jobs have ended."""
        with self._lock:
            if self._jobs:
                self._facts["ended"] = True
                self._write()
            else:
                filesystem.delete([self.uri])

    def _write(self) -> None:
        described = {**self._facts, **({"jobs": [job.as_json() for job in self._jobs]} if self._jobs else {})}
        filesystem.write_atomic(self.uri, json.dumps(described).encode())


@contextlib.contextmanager
def held(root: str, run_id: str) -> Iterator[Hold]:
    """Holds the checkpoint of a corpus for the length of a block.

    Raises:
        LockedError: where another run holds it, or a job of a run that is gone.
    """
    mine = {
        "run_id": run_id,
        "host": socket.gethostname(),
        "process": os.getpid(),
        "process_started": psutil.Process().create_time(),
        "since": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
    }
    with _held_locally(root, mine) if filesystem.is_local(root) else _leased(root, mine) as hold:
        yield hold


def _check_jobs(holder: dict[str, Any], root: str, uri: str) -> None:
    """Refuses to take over from a run whose jobs may still be at work.

    Raises:
        LockedError: where one runs, or where nobody can say whether it does.
    """
    for job in (Job.from_json(values) for values in holder.get("jobs", ())):
        state = job.state()
        if state.ended:
            continue
        run = holder.get("run_id", "?")
        if state.name:
            raise LockedError(
                f"{root} is held by the {job} of run {run}, which is {state.name}",
                f"wait until it has ended; to end it now: {job.cancelling}",
            )
        raise LockedError(
            f"{root} is held by the {job} of run {run}, whose state is not known ({state.reason})",
            f"make sure that it has ended ({job.cancelling}), and only then delete {uri}",
        )


def _refused(holder: dict[str, Any], root: str) -> LockedError:
    who = f"run {holder.get('run_id', '?')} (process {holder.get('process', '?')} on {holder.get('host', '?')})"
    return LockedError(
        f"{root} is held by {who} since {holder.get('since', '?')}",
        "wait until it ends; the lock of a run that was killed opens by itself",
    )


@contextlib.contextmanager
def _held_locally(root: str, mine: dict[str, Any]) -> Iterator[Hold]:
    folder = Path(root) / "runs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"can't write {folder}: {error.strerror}", "name a folder that can be written") from error
    holder = folder / ".holder.json"
    try:
        # Not reentrant across objects, so that two runs of one process exclude each other as well.
        with FileLock(folder / ".lock", timeout=0, is_singleton=False):
            _check_jobs(_read_local(holder), root, str(holder))
            holder.write_text(json.dumps(mine))
            hold = Hold(str(holder), mine)
            try:
                yield hold
            finally:
                hold.release()
    except Timeout:
        raise _refused(_read_local(holder), root) from None


def _read_local(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):  # its holder has only just begun, or just ended
        return {}
    return found


@contextlib.contextmanager
def _leased(root: str, mine: dict[str, Any]) -> Iterator[Hold]:
    uri = filesystem.join(root, "runs", "lock.json")
    found = _read_lease(uri)
    if found is not None:
        if not _is_over(*found):
            raise _refused(found[0], root)
        _check_jobs(found[0], root, uri)
    hold = Hold(uri, mine)
    hold.renew()
    stop.sleep(SETTLE_S)
    if (other := _taken_over(uri, mine)) is not None:
        raise _refused(other, root)
    ended = threading.Event()
    thread = threading.Thread(target=_renew, args=(hold, mine, ended), name="lease", daemon=True)
    thread.start()
    try:
        yield hold
    finally:
        ended.set()
        thread.join()
        if (other := _taken_over(uri, mine)) is not None:
            stop.reset()
            raise _refused(other, root)
        hold.release()


def _renew(hold: Hold, mine: dict[str, Any], ended: threading.Event) -> None:
    while not ended.wait(RENEW_S):
        # The next renewal is near, and the run itself meets the store too.
        with contextlib.suppress(CheckpointError, OSError):
            if _taken_over(hold.uri, mine) is not None:
                stop.request_stop()
                return
            hold.renew()


def _taken_over(uri: str, mine: dict[str, Any]) -> dict[str, Any] | None:
    """Who holds the lease in our place: this machine may have slept for longer than a lease lasts."""
    found = _read_lease(uri)
    return found[0] if found is not None and found[0].get("run_id") != mine["run_id"] else None


def _read_lease(uri: str) -> tuple[dict[str, Any], float] | None:
    found = filesystem.find(uri)
    if found is None:
        return None
    try:
        return json.loads(filesystem.read_bytes(uri)), found.modified
    except (OSError, ValueError):  # deleted in between
        return None


def _is_over(holder: dict[str, Any], renewed: float) -> bool:
    if holder.get("ended"):
        return True
    if holder.get("host") == socket.gethostname():
        try:
            process = psutil.Process(int(holder.get("process", -1)))
            return abs(process.create_time() - float(holder.get("process_started", 0))) > 1
        except (psutil.NoSuchProcess, ValueError):
            return True
    return time.time() - renewed > STALE_S
