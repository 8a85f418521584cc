"""The examples in docstrings are true. Read from the source, so that none is missed wherever it is."""

from __future__ import annotations

import ast
import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "transforms", "pipelines", "vecbeam")


def with_examples() -> list[Path]:
    files = (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))
    return [path for path in files if ">>> " in path.read_text()]


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each string that is a statement: of attributes and cached properties too, which doctest's own
    search does not find."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


@pytest.mark.parametrize("path", with_examples(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_examples_of_a_module(path: Path) -> None:
    name = str(path.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__init__")
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner()
    said: list[str] = []
    for line, text in docstrings(path):
        test = doctest.DocTestParser().get_doctest(text, dict(vars(module)), f"{name}:{line}", str(path), line - 1)
        runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)
    assert runner.tries == path.read_text().count(">>> "), "an example is where nothing runs it"


def test_there_are_examples() -> None:
    assert len(with_examples()) > 10
