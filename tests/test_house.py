"""The house: imports go one way, and the three names are ours alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"apache_beam", "torch", "pymilvus", "sentence_transformers", "transformers"}


def imports(folder: str) -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((str(path.relative_to(ROOT)), name.name) for name in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield str(path.relative_to(ROOT)), node.module


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("schemas", {"transforms", "pipelines", *HEAVY}),
        ("transforms", {"pipelines"}),
        ("transforms/encoders", {"pipelines", "apache_beam", "pymilvus"}),
    ],
)
def test_imports_go_one_way(folder: str, forbidden: set[str]) -> None:
    assert [(path, name) for path, name in imports(folder) if name.split(".")[0] in forbidden] == []


def test_an_encoder_stands_alone() -> None:
    ours = {name for _, name in imports("transforms/encoders") if name.startswith("transforms")}
    assert all(name.startswith(("transforms.encoders", "transforms.chunk", "transforms.support")) for name in ours)


def test_no_other_distribution_owns_our_names() -> None:
    owners = packages_distributions()
    for name in ("schemas", "transforms", "pipelines"):
        assert set(owners.get(name, ["vecbeam"])) == {"vecbeam"}


def test_help_waits_for_nothing_heavy() -> None:
    heavy = ("apache_beam", "torch", "pymilvus", "pydantic")
    code = f"import sys, pipelines.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
