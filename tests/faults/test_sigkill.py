"""SIGKILL at many points of a backfill: the same command ends as if nothing had happened."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from kill_points import POINTS, chosen
from worlds import WORLDS

pytestmark = pytest.mark.timeout(1800)
SCRIPT = Path(__file__).with_name("kill_points.py")
CHOSEN = [(world, str(point)) for world in WORLDS for point in chosen(POINTS, world)]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, dict[str, Any]]]:
    """What came of each point over a corpus, by its name; "None" is the undisturbed run."""

    @cache
    def of(world: str) -> dict[str, dict[str, Any]]:
        if world == "pictures":
            pytest.importorskip("timm", reason="the extra image is not installed")
        command = [sys.executable, str(SCRIPT), str(tmp_path_factory.mktemp("killed")), world]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        return {line["point"]: line for line in map(json.loads, done.stdout.splitlines())}

    return of


def test_there_are_forty_points_or_more() -> None:
    assert len(set(POINTS)) >= 40
    whens = [point.when for point in chosen(POINTS)]
    assert {when: whens.count(when) >= 8 for when in ("before", "after")} == {"before": True, "after": True}


@pytest.mark.parametrize("world", WORLDS)
def test_undisturbed(results: Callable[[str], dict[str, dict[str, Any]]], world: str) -> None:
    run = results(world)["None"]
    assert (run["first"], run["described"]) == (0, 0), run["output"]
    assert run["rows"] > 50
    assert run["collection_digest"] == run["parts_digest"]
    assert not [file for file in run["files"] if file.endswith(".tmp") or file.startswith("loads/")]


@pytest.mark.parametrize(("world", "point"), CHOSEN)
def test_the_same_command_completes_it(
    results: Callable[[str], dict[str, dict[str, Any]]], world: str, point: str
) -> None:
    run, undisturbed = results(world)[point], results(world)["None"]

    assert run["first"] == -9, f"was not killed: {run['output']}"
    assert (run["second"], run["described"]) == (0, 0), run["output"]
    for fact in ("collections", "rows", "collection_digest", "parts_digest", "files"):
        assert run[fact] == undisturbed[fact], fact
    assert run["encoded"] <= undisturbed["encoded"] + run["encoders"], "more than one batch was embedded again"
