"""The driver of the campaigns: a short slice of real kills, what counts as a fault, and how a campaign continues."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import campaign
import pytest
from lives import COMMANDS, FAULTS, compare

FOUND = {
    "rows": [["1#0", "a"], ["2#0", "b"]],
    "surplus": 0,
    "live": [["1#0", "a"], ["2#0", "b"]],
    "files": ["snapshots/1.parquet"],
    "collections": ["_x"],
}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"rows": [["1#0", "a"]]}, "lost"),
        ({"live": [["2#0", "b"]]}, "lost"),
        ({"files": []}, "lost"),
        ({"rows": [["1#0", "a"], ["1#0", "a"], ["2#0", "b"]]}, "duplicated"),
        ({"surplus": 1}, "duplicated"),
        ({"rows": [["1#0", "a"], ["2#0", "b"], ["3#0", "c"]]}, "orphaned"),
        ({"files": ["snapshots/1.parquet", "parts/x.tmp"]}, "orphaned"),
        ({"collections": ["_x", "_y"]}, "orphaned"),
        ({"rows": [["1#0", "a"], ["2#0", "other"]]}, "wrong"),
    ],
)
def test_what_counts_as_a_fault(change: dict[str, Any], fault: str) -> None:
    assert compare(FOUND, FOUND) == dict.fromkeys(FAULTS, 0)
    assert compare({**FOUND, **change}, FOUND) == {name: int(name == fault) for name in FAULTS}


def test_what_can_not_be_read_counts_as_failed() -> None:
    assert compare(None, FOUND) == {name: int(name == "failed") for name in FAULTS}


def test_a_slice(tmp_path: Path) -> None:
    """A life of a collection, each command of which gets a SIGKILL."""
    script = Path(campaign.__file__)
    command = [sys.executable, str(script), "--only", "kills-lite", "--state", str(tmp_path), "--workers", "1"]
    done = subprocess.run([*command, "--amount", "3"], capture_output=True, text=True, timeout=600)

    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "kills-lite.jsonl").read_text().splitlines()]
    assert sum(line["killed"] for line in lines) >= 3
    assert {line["command"] for line in lines} == {*COMMANDS}
    assert {name: sum(line[name] for line in lines) for name in FAULTS} == dict.fromkeys(FAULTS, 0)
    assert all(line["twice"] <= 1 for line in lines), "more than one batch was embedded again"
    shown = subprocess.run([*command, "--show"], capture_output=True, text=True)
    assert shown.stdout == done.stdout
    assert " kills | 0 | 0 | 0 | 0 | 0 | " in shown.stdout


def test_a_fault_fails_the_campaign(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    line = {"seed": 7, "command": "sync", "killed": True, "twice": 0, "lost": 2}
    (tmp_path / "kills-lite.jsonl").write_text(json.dumps(line) + "\n")
    monkeypatch.setattr(sys, "argv", ["campaign.py", "--only", "kills-lite", "--state", str(tmp_path)])

    assert campaign.main() == 1
    assert "1 kills | 2 | 0 | 0 | 0 | 0 | 0 | 7-7" in capsys.readouterr().out


def test_a_campaign_continues_with_the_seeds_that_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "histories.jsonl"
    whole = [json.dumps({"seed": seed, "histories": 5}) for seed in (0, 1, 3)]
    path.write_text("\n".join([*whole, '{"seed": 4, "hist']))  # the last line was cut by a kill

    lines = campaign.read(path)
    assert [line["seed"] for line in lines] == [0, 1, 3]
    assert campaign.Context(tmp_path, lines, 100, 1).missing(3) == [2, 4, 5]
    assert campaign.CAMPAIGNS["histories"].count(lines) == 15
