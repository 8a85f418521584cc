"""SIGKILL at many points of a sync and of a reindex: the same command ends as if nothing had happened."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kill_points import chosen
from kill_points_sync import COMMANDS

pytestmark = pytest.mark.timeout(1800)
SCRIPT = Path(__file__).with_name("kill_points_sync.py")
POINTS = [(command.name, str(point)) for command in COMMANDS for point in chosen(command.points)]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    """What came of each point, by command and name; "None" is the undisturbed run."""
    folder = tmp_path_factory.mktemp("killed-sync")
    done = subprocess.run([sys.executable, str(SCRIPT), str(folder)], stdout=subprocess.PIPE, text=True, check=True)
    return {(line["command"], line["point"]): line for line in map(json.loads, done.stdout.splitlines())}


def test_there_are_thirty_points_or_more() -> None:
    assert sum(len(command.points) for command in COMMANDS) >= 30
    assert len(set(POINTS)) == len(POINTS) >= 15


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_undisturbed(results: dict[tuple[str, str], dict[str, Any]], command: str) -> None:
    run = results[command, "None"]
    assert (run["first"], run["described"]) == (0, 0), run["output"]
    assert run["collection_digest"] == run["live_digest"]
    assert not [file for file in run["files"] if file.endswith(".tmp") or file.startswith("loads/")]


@pytest.mark.parametrize(("command", "point"), POINTS)
def test_the_same_command_completes_it(
    results: dict[tuple[str, str], dict[str, Any]], command: str, point: str
) -> None:
    run, undisturbed = results[command, point], results[command, "None"]
    assert run["first"] == -9, f"was not killed: {run['output']}"
    assert (run["second"], run["described"]) == (0, 0), run["output"]
    for fact in ("collections", "served", "rows", "collection_digest", "live_digest", "files"):
        assert run[fact] == undisturbed[fact], fact
    assert run["encoded"] <= undisturbed["encoded"] + 1, "more than one batch was embedded again"
