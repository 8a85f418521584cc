"""SIGKILL at many points of a backfill: the same command ends as if nothing had happened."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kill_points import POINTS, chosen

pytestmark = pytest.mark.timeout(1800)
SCRIPT = Path(__file__).with_name("kill_points.py")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What came of each point, by its name; "None" is the undisturbed run."""
    folder = tmp_path_factory.mktemp("killed")
    done = subprocess.run([sys.executable, str(SCRIPT), str(folder)], stdout=subprocess.PIPE, text=True, check=True)
    return {line["point"]: line for line in map(json.loads, done.stdout.splitlines())}


def test_there_are_forty_points_or_more() -> None:
    assert len(set(POINTS)) >= 40
    whens = [point.when for point in chosen(POINTS)]
    assert {when: whens.count(when) >= 8 for when in ("before", "after")} == {"before": True, "after": True}


def test_undisturbed(results: dict[str, dict[str, Any]]) -> None:
    run = results["None"]
    assert (run["first"], run["described"]) == (0, 0), run["output"]
    assert run["rows"] > 60
    assert run["collection_digest"] == run["parts_digest"]
    assert not [file for file in run["files"] if file.endswith(".tmp") or file.startswith("loads/")]


@pytest.mark.parametrize("point", map(str, chosen(POINTS)))
def test_the_same_command_completes_it(results: dict[str, dict[str, Any]], point: str) -> None:
    run, undisturbed = results[point], results["None"]

    assert run["first"] == -9, f"was not killed: {run['output']}"
    assert (run["second"], run["described"]) == (0, 0), run["output"]
    for fact in ("collections", "rows", "collection_digest", "parts_digest", "files"):
        assert run[fact] == undisturbed[fact]
    assert run["encoded"] <= undisturbed["encoded"] + 1, "more than one batch was embedded again"
