"""One run at a time on one checkpoint: who holds it, and since when.

On a local disk the system's own file lock, which ends with its process. On an object store a lease (`store_lease`),
which its holder renews every fifteen seconds. A run that slept while another one took over finds that at its next
renewal, and stops after its current batch.

If workers are other machines, the run's job is written next to its holder. Such a job outlives the process that
started it, so no run takes over before the job's runner says that it has ended.
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

from schemas.errors import CheckpointError, InterruptedRunError, LockedError
from transforms.checkpoint.holder import check_jobs, ended_here, is_over, refused
from transforms.checkpoint.store_lease import StoreLease
from transforms.support import stop
from transforms.support.job import Job
from transforms.support.storage import filesystem

RENEW_S = 15.0


class Hold:
    """A held checkpoint, and its jobs on other machines. Several threads may use it at once.

    Args:
        uri: of the file that names the holder.
        facts: who holds it, with `run_id`.
        lease: if that file is a lease on an object store.
    """

    def __init__(self, uri: str, facts: dict[str, Any], lease: StoreLease | None = None) -> None:
        self.uri = uri
        self._facts = facts
        self._lease = lease
        self._jobs: list[Job] = []
        self._renewals = 0
        self._lock = threading.Lock()

    def add(self, job: Job) -> None:
        """Writes down a job that has started.

        Raises:
            LockedError: if another run has taken over while this machine slept.
        """
        with self._lock:
            self._jobs.append(job)
            try:
                self._write()
            except LockedError:
                self._jobs.remove(job)
                raise

    def remove(self, job: Job) -> None:
        """Strikes out a job that has ended."""
        with self._lock:
            self._jobs.remove(job)
            self._write()

    def renew(self) -> None:
        """Writes it again.

        Raises:
            LockedError: if another run has taken over.
        """
        with self._lock:
            self._renewals += 1
            self._write()

    def release(self) -> None:
        """Lets others in, once all jobs have ended.

        Raises:
            LockedError: if another run has taken over.
        """
        with self._lock:
            if self._jobs:
                self._facts["ended"] = True
            if self._jobs or self._lease is not None:
                # Renewed before it is deleted: nobody takes over in between.
                self._renewals += 1
                self._write()
            if not self._jobs:
                filesystem.delete([self.uri])

    def described(self) -> bytes:
        """The content of the file. That of a lease changes with each renewal, and so does its ETag."""
        renewals = {"renewals": self._renewals} if self._lease is not None else {}
        jobs = {"jobs": [job.as_json() for job in self._jobs]} if self._jobs else {}
        return json.dumps({**self._facts, **renewals, **jobs}).encode()

    def _write(self) -> None:
        if self._lease is not None:
            self._lease.write(self.described())
        else:
            filesystem.write_atomic(self.uri, self.described())


def holder_of(root: str) -> dict[str, Any] | None:
    """Who holds the checkpoint of a corpus, by its file; None if nobody does. Changes nothing.

    A lease is taken for expired by this machine's clock, which `held` does not trust: writing would tell the store's.
    """
    is_local = filesystem.is_local(root)
    uri = filesystem.join(root, "runs", ".holder.json" if is_local else "lock.json")
    try:
        data, facts = filesystem.read_with_facts(uri)
        found: dict[str, Any] = json.loads(data)
    except (FileNotFoundError, ValueError):
        return None
    age = 0.0 if is_local else time.time() - facts.modified  # only a lease is renewed
    return found if found.get("jobs") or not is_over(found, lambda: age) else None


@contextlib.contextmanager
def held(root: str, run_id: str) -> Iterator[Hold]:
    """Holds the checkpoint of a corpus for the length of a block.

    Raises:
        LockedError: if another run holds it, or a job of a run that is gone.
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
            check_jobs(_read_local(holder), root, str(holder))
            holder.write_text(json.dumps(mine))
            hold = Hold(str(holder), mine)
            try:
                yield hold
            finally:
                hold.release()
    except Timeout:
        raise refused(_read_local(holder), root) from None


def _read_local(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):  # its holder has only just begun, or just ended
        return {}
    return found


@contextlib.contextmanager
def _leased(root: str, mine: dict[str, Any]) -> Iterator[Hold]:
    lease = StoreLease(root, mine["run_id"])
    hold = Hold(lease.uri, mine, lease)
    lease.take(hold.described())
    ended = threading.Event()
    thread = threading.Thread(target=_renew, args=(hold, ended), name="lease", daemon=True)
    thread.start()
    failed = False
    try:
        with filesystem.caching(_cache_rules(root)):
            yield hold
    except BaseException:
        failed = True
        raise
    finally:
        ended.set()
        thread.join()
        try:
            hold.release()
        except LockedError:
            stop.reset()
            raise
        except Exception:
            # A process that lives on, of a notebook or a service, would wait for itself for ever.
            ended_here.add(mine["run_id"])
            # A store that refuses everything has refused the block first, and that error names the place.
            if not failed:
                raise


def _cache_rules(root: str) -> filesystem.Rules:
    """What a run may keep of its checkpoint: no other run writes there, and its workers write no snapshots."""
    below = filesystem.join(root, "")
    runs, loads = (f"{below}{name}/" for name in ("runs", "loads"))
    snapshots = tuple(f"{below}{name}/" for name in ("snapshots", "files", "refused"))

    def fixed(uri: str) -> bool:
        return uri.endswith(".parquet") and not uri.startswith((runs, loads))

    # A part is read back from the store at least once: that shows that it was written well.
    return filesystem.Rules(
        below,
        fixed,
        own=lambda uri: uri.endswith(".parquet") and uri.startswith((runs, *snapshots)),
        listed=lambda prefix: prefix.startswith(snapshots),
    )


def _renew(hold: Hold, ended: threading.Event) -> None:
    while not ended.wait(RENEW_S):
        # The next renewal is near, and the run itself meets the store too.
        try:
            hold.renew()
        except LockedError:
            stop.request_stop()
            return
        except InterruptedRunError:  # the run ends within seconds
            return
        except (CheckpointError, OSError):
            continue
