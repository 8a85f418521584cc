"""SIGKILL at many points of a sync and of a reindex: the same command ends as if nothing had happened."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from kill_points import chosen
from kill_points_sync import COMMANDS
from worlds import WORLDS

pytestmark = pytest.mark.timeout(1800)
SCRIPT = Path(__file__).with_name("kill_points_sync.py")
POINTS = [
    (world, command.name, str(point))
    for world in WORLDS
    for command in COMMANDS
    for point in chosen(command.points, world)
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[tuple[str, str], dict[str, Any]]]:
    """What came of each point over a corpus, by command and name; "None" is the undisturbed run."""

    @cache
    def of(world: str) -> dict[tuple[str, str], dict[str, Any]]:
        if world == "pictures":
            pytest.importorskip("timm", reason="the extra image is not installed")
        command = [sys.executable, str(SCRIPT), str(tmp_path_factory.mktemp("killed-sync")), world]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        return {(line["command"], line["point"]): line for line in map(json.loads, done.stdout.splitlines())}

    return of


def test_there_are_thirty_points_or_more() -> None:
    assert sum(len(command.points) for command in COMMANDS) >= 30
    assert len(set(POINTS)) == len(POINTS) >= 15


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_undisturbed(results: Callable[[str], dict[tuple[str, str], dict[str, Any]]], command: str, world: str) -> None:
    run = results(world)[command, "None"]
    assert (run["first"], run["described"]) == (0, 0), run["output"]
    assert run["collection_digest"] == run["live_digest"]
    assert not [file for file in run["files"] if file.endswith(".tmp") or file.startswith("loads/")]


@pytest.mark.parametrize(("world", "command", "point"), POINTS)
def test_the_same_command_completes_it(
    results: Callable[[str], dict[tuple[str, str], dict[str, Any]]], world: str, command: str, point: str
) -> None:
    run, undisturbed = results(world)[command, point], results(world)[command, "None"]
    assert run["first"] == -9, f"was not killed: {run['output']}"
    assert (run["second"], run["described"]) == (0, 0), run["output"]
    for fact in ("collections", "served", "rows", "collection_digest", "live_digest", "files"):
        assert run[fact] == undisturbed[fact], fact
    assert run["encoded"] <= undisturbed["encoded"] + run["encoders"], "more than one batch was embedded again"
