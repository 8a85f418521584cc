"""The house: what import-linter can't say of it. Its contracts, in pyproject.toml, hold which way imports go."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import conftest
import typer

from pipelines.cli import app

ROOT = Path(__file__).parents[1]
FOLDERS = ("schemas", "transforms", "pipelines", "vecbeam")
HEAVY = ("apache_beam", "pyarrow", "pymilvus", "torch")
MAY_REPEAT = {"base", "engine", "__init__"}
"""Stems of files that several folders may have: the protocol of each, and each engine."""


@cache
def modules() -> dict[str, ast.Module]:
    """Path below the root -> what is in the file."""
    paths = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    return {str(path.relative_to(ROOT)): ast.parse(path.read_bytes()) for path in paths}


def repeated(named: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Names that occur in several places -> the places, for pairs of name and place."""
    places: dict[str, list[str]] = defaultdict(list)
    for name, place in named:
        places[name].append(place)
    return {name: where for name, where in places.items() if len(where) > 1}


def test_no_two_files_have_one_name() -> None:
    stems = ((Path(path).stem, path) for path in modules() if Path(path).stem not in MAY_REPEAT)
    assert repeated(stems) == {}


def test_no_two_classes_have_one_name() -> None:
    classes = [
        (node.name, path)
        for path, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert repeated(classes) == {}


def test_each_dofn_carries_the_launcher_s_version() -> None:
    plain = [
        f"{path}:{node.lineno}"
        for path, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("DoFn") for base in node.bases)
        if [ast.unparse(base) for base in node.bases] != ["VersionedDoFn"]
    ]
    assert [place.split(":")[0] for place in plain] == ["transforms/support/versioned_dofn.py"]


def test_each_file_says_what_it_is() -> None:
    assert [path for path, tree in modules().items() if not ast.get_docstring(tree)] == []


def test_each_command_has_a_file_that_a_contract_names() -> None:
    """A command in a layer of its own could import others."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract.get("containers") == ["pipelines"])
    commands = set(typer.main.get_group(app).commands)
    together = next(names for layer in layers if "backfill" in (names := layer.split(" | ")))
    assert commands - {"demo", "serve"} == set(together)


def test_no_other_distribution_owns_our_names() -> None:
    owners = packages_distributions()
    for name in FOLDERS:
        assert set(owners.get(name, ["vecbeam"])) == {"vecbeam"}


def imported(code: str, wanted: tuple[str, ...]) -> list[str]:
    """Which of the wanted modules a fresh process has after running some code."""
    code = f"{code}\nimport json, sys\nprint(json.dumps([module for module in {wanted} if module in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found: list[str] = json.loads(done.stdout)
    return found


def test_help_waits_for_nothing_heavy() -> None:
    assert imported("import pipelines.cli", (*HEAVY, "pydantic")) == []


def test_help_of_a_command_waits_for_none_of_them() -> None:
    # pydantic comes with typer's own reading of options.
    code = f"""
from typer.testing import CliRunner
from pipelines.cli import app
for name in {list(typer.main.get_group(app).commands)}:
    assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0, name
"""
    assert imported(code, (*HEAVY, "pipelines.run.session", "schemas.config")) == []


def test_the_files_that_use_the_server_are_those_that_one_worker_gets() -> None:
    found = {
        path.stem
        for path in (ROOT / "tests").rglob("test_*.py")
        if re.search(r"(milvus_uri|milvus_server|shared_uri)\b(?! import)", path.read_text(encoding="utf-8"))
        and path.stem != "test_house"
    }
    assert found - {"test_stops", "test_portable_runs"} == set(conftest.SERVER_FILES)  # those start their own


NEED_TORCHVISION = re.compile(
    r"^ +(?:from|import) (?:transformers|sentence_transformers|timm|open_clip)\b", re.MULTILINE
)
AFTER_THE_MODEL = {"transforms/encoders/engines/torch/engine.py", "transforms/encoders/engines/torch/packed.py"}
"""They run on a model that is loaded already."""


def test_torchvision_is_made_importable_before_libraries_that_import_it() -> None:
    for path in [*modules(), *map(str, (ROOT / "benchmarks").glob("*.py"))]:
        source = Path(path).read_text(encoding="utf-8")
        found = NEED_TORCHVISION.search(source)
        if found and path not in AFTER_THE_MODEL:
            assert 0 <= source.find("make_importable()") < found.start(), path
