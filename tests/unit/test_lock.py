"""Who holds a checkpoint: when a lease is over, and which facts of a holder are on disk."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import LockedError
from transforms.checkpoint import holder, lock, store_lease
from transforms.support import stop
from transforms.support.job import Job, JobState

PROPERTY = settings(derandomize=True, database=None, deadline=None, max_examples=30)
HERE = socket.gethostname()
NO_PROCESS = 2**22 + 1
"""Above the highest process id that Linux gives."""


def started() -> float:
    return psutil.Process().create_time()


@pytest.mark.parametrize(
    ("found", "age", "over"),
    [
        # Of this host the process table tells, however old the lease is.
        ({"host": HERE, "process": os.getpid(), "process_started": started()}, 1e6, False),
        (
            {"host": HERE, "process": os.getpid(), "process_started": started() - 60},
            0,
            True,
        ),  # another process has its number now
        ({"host": HERE, "process": NO_PROCESS, "process_started": started()}, 0, True),
        ({"host": HERE}, 0, True),
        ({"host": HERE, "process": "x"}, 0, True),
        # Of another host the last renewal does.
        ({"host": "elsewhere"}, 0, False),
        ({"host": "elsewhere"}, holder.STALE_S - 5, False),
        ({"host": "elsewhere"}, holder.STALE_S + 5, True),
        ({}, 0, False),
        # One that released the lock while its jobs continued.
        ({"host": "elsewhere", "ended": True}, 0, True),
        ({"host": HERE, "process": os.getpid(), "process_started": started(), "ended": True}, 0, True),
    ],
)
def test_when_a_lease_is_over(found: dict[str, Any], age: float, over: bool) -> None:
    assert holder.is_over(found, lambda: age) is over


JOBS = [Job("job-1", "dataflow", {"project": "p", "region": "r"}), Job("job-2", "flink", {"endpoint": "e"})]


@PROPERTY
@given(steps=st.lists(st.sampled_from(["add", "remove", "renew"]), max_size=8))
def test_what_stands_on_disk_of_a_holder(steps: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "runs", "lock.json")
        path.parent.mkdir()
        hold = lock.Hold(str(path), {"run_id": "mine"})
        running: list[Job] = []
        for step in steps:
            if step == "add" and len(running) < len(JOBS):
                running.append(JOBS[len(running)])
                hold.add(running[-1])
            elif step == "remove" and running:
                hold.remove(running.pop(0 if len(running) == 1 else -1))
            else:
                hold.renew()
            found = json.loads(path.read_text())
            assert found["run_id"] == "mine"
            assert [Job.from_json(job) for job in found.get("jobs", [])] == running
        hold.release()
        assert path.exists() == bool(running)
        assert not running or json.loads(path.read_text())["ended"] is True


def test_a_job_is_not_started_on_a_checkpoint_that_another_run_took_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_lease, "SETTLE_S", 0.0)
    path = tmp_path / "runs" / "lock.json"
    lease = store_lease.StoreLease(str(tmp_path), "mine")
    hold = lock.Hold(str(path), {"run_id": "mine"}, lease)
    lease.take(hold.described())
    path.write_text(json.dumps({"run_id": "theirs", "host": "elsewhere", "process": 7, "since": "today"}))
    with pytest.raises(LockedError, match=r"held by run theirs \(process 7 on elsewhere\) since today"):
        hold.add(JOBS[0])
    assert json.loads(path.read_text())["run_id"] == "theirs"


@pytest.mark.parametrize("take", [lock._held_locally, lock._leased])
def test_two_holders_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, take: Any) -> None:
    monkeypatch.setattr(store_lease, "SETTLE_S", 0.0)
    mine = {"run_id": "1", "host": HERE, "process": os.getpid(), "process_started": started(), "since": "now"}
    other = take(str(tmp_path), mine | {"run_id": "2"})
    with take(str(tmp_path), dict(mine)), pytest.raises(LockedError, match="held by run 1 "), other:
        pass
    with take(str(tmp_path), mine | {"run_id": "2"}):
        pass
    assert [path.name for path in (tmp_path / "runs").glob("*.json")] == []


@pytest.mark.parametrize("take", [lock._held_locally, lock._leased])
@pytest.mark.parametrize(
    ("state", "message"),
    [
        (JobState("RUNNING"), r"held by the dataflow job job-1 .* which is RUNNING"),
        (JobState("", "no network"), r"whose state is not known \(no network\)"),
        (JobState("CANCELLED"), None),
    ],
)
def test_a_job_outlives_the_run_that_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, take: Any, state: JobState, message: str | None
) -> None:
    monkeypatch.setattr(store_lease, "SETTLE_S", 0.0)
    monkeypatch.setattr(Job, "state", lambda _: state)
    with take(str(tmp_path), {"run_id": "1"}) as hold:
        hold.add(JOBS[0])
    if message:
        with pytest.raises(LockedError, match=message), take(str(tmp_path), {"run_id": "2"}):
            pass
    else:
        with take(str(tmp_path), {"run_id": "2"}):
            pass


def test_a_holder_whose_lease_was_taken_says_so_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_lease, "SETTLE_S", 0.0)
    uri = tmp_path / "runs" / "lock.json"
    with pytest.raises(LockedError, match="held by run theirs"), lock._leased(str(tmp_path), {"run_id": "mine"}):
        uri.write_text(json.dumps({"run_id": "theirs"}))
    assert json.loads(uri.read_text()) == {"run_id": "theirs"}
    stop.check()  # nothing is left of the stop
