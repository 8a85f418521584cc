"""One run at a time on one checkpoint: who holds it, and since when.

On a local disk the system's own file lock, which ends with its process. On an object store a lease: a small object that
its holder renews every fifteen seconds, and that counts for nothing a minute after the last renewal. Between its
writing and its reading again two runs that start in the same second could not see each other; so each waits a moment
and looks whether the lease is still its own. It looks again before each renewal: a run that slept while another one
took over stops after the batch at hand.
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
from transforms import filesystem, stopping

RENEW_S = 15.0
STALE_S = 60.0
SETTLE_S = 1.0


@contextlib.contextmanager
def held(root: str, run_id: str) -> Iterator[None]:
    """Holds the checkpoint of a corpus for the length of a block.

    Raises:
        LockedError: where another run holds it.
    """
    mine = {
        "run_id": run_id,
        "host": socket.gethostname(),
        "process": os.getpid(),
        "process_started": psutil.Process().create_time(),
        "since": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
    }
    with _held_locally(root, mine) if filesystem.is_local(root) else _leased(root, mine):
        yield


def _refused(holder: dict[str, Any], root: str) -> LockedError:
    who = f"run {holder.get('run_id', '?')} (process {holder.get('process', '?')} on {holder.get('host', '?')})"
    return LockedError(
        f"{root} is held by {who} since {holder.get('since', '?')}",
        "wait until it ends; the lock of a run that was killed opens by itself",
    )


@contextlib.contextmanager
def _held_locally(root: str, mine: dict[str, Any]) -> Iterator[None]:
    folder = Path(root) / "runs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"can't write {folder}: {error.strerror}", "name a folder that can be written") from error
    holder = folder / ".holder.json"
    try:
        # Not reentrant across objects, so that two runs of one process exclude each other as well.
        with FileLock(folder / ".lock", timeout=0, is_singleton=False):
            holder.write_text(json.dumps(mine))
            try:
                yield
            finally:
                holder.unlink(missing_ok=True)
    except Timeout:
        raise _refused(_read_local(holder), root) from None


def _read_local(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):  # its holder has only just begun, or just ended
        return {}
    return found


@contextlib.contextmanager
def _leased(root: str, mine: dict[str, Any]) -> Iterator[None]:
    uri = filesystem.join(root, "runs", "lock.json")
    found = _read_lease(uri)
    if found is not None and not _is_over(*found):
        raise _refused(found[0], root)
    filesystem.write_atomic(uri, json.dumps(mine).encode())
    stopping.sleep(SETTLE_S)
    if (other := _taken_over(uri, mine)) is not None:
        raise _refused(other, root)
    ended = threading.Event()
    thread = threading.Thread(target=_renew, args=(uri, mine, ended), name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if (other := _taken_over(uri, mine)) is not None:
            stopping.reset()
            raise _refused(other, root)
        filesystem.delete([uri])


def _renew(uri: str, mine: dict[str, Any], ended: threading.Event) -> None:
    while not ended.wait(RENEW_S):
        # The next renewal is near, and the run itself meets the store too.
        with contextlib.suppress(CheckpointError, OSError):
            if _taken_over(uri, mine) is not None:
                stopping.request_stop()
                return
            filesystem.write_atomic(uri, json.dumps(mine).encode())


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
    if holder.get("host") == socket.gethostname():
        try:
            process = psutil.Process(int(holder.get("process", -1)))
            return abs(process.create_time() - float(holder.get("process_started", 0))) > 1
        except (psutil.NoSuchProcess, ValueError):
            return True
    return time.time() - renewed > STALE_S
