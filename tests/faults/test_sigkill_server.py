"""SIGKILL at some points of a backfill into the real server: the same command ends as if nothing had happened."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kill_points import SERVER_POINTS
from milvus_server import Server

pytestmark = pytest.mark.server
SCRIPT = Path(__file__).with_name("kill_points.py")


@pytest.fixture(scope="module")
def results(milvus_server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What came of each point, by its name; "None" is the undisturbed run."""
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, str(SCRIPT), str(folder), "texts", milvus_server.uri]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {line["point"]: line for line in map(json.loads, done.stdout.splitlines())}


def test_undisturbed(results: dict[str, dict[str, Any]]) -> None:
    run = results["None"]
    assert (run["first"], run["described"]) == (0, 0), run["output"]
    assert run["rows"] > 60
    assert run["collection_digest"] == run["parts_digest"]


@pytest.mark.parametrize("point", map(str, SERVER_POINTS))
def test_the_same_command_completes_it(results: dict[str, dict[str, Any]], point: str) -> None:
    run, undisturbed = results[point], results["None"]

    assert run["first"] == -9, f"was not killed: {run['output']}"
    assert (run["second"], run["described"]) == (0, 0), run["output"]
    for fact in ("collections", "rows", "collection_digest", "parts_digest", "files"):
        assert run[fact] == undisturbed[fact], fact
    assert run["encoded"] <= undisturbed["encoded"] + 1, "more than one batch was embedded again"
