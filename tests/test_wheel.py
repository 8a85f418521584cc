"""The wheel: what it holds, and that an installation of it finds its own packages wherever it is started."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SOURCES = ("schemas", "transforms", "pipelines", "vecbeam")
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of these sources, made where there is no C++ compiler."""
    folder = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    subprocess.run(
        [*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder / "made"), str(folder)],
        env={**os.environ, "CC": "false", "CXX": "false"},
        check=True,
    )
    [made] = (folder / "made").glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of an environment with the wheel in it, and what it depends on from this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    [packages] = folder.glob("lib/python*/site-packages")
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "dependencies.pth").write_text("\n".join([*ours, sysconfig.get_path("platlib")]), encoding="utf-8")
    python = folder / "bin" / "python"
    subprocess.run([*PIP, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)], check=True)
    return folder / "bin"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder of somebody's project, with packages that have the names of vecbeam's, and a corpus."""
    for name in ("schemas", "transforms", "pipelines"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('not the package of vecbeam')\n")
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"id": "a", "text": "some words"}) + "\n", encoding="utf-8")
    values = {
        "name": "words",
        "corpus": {"paths": "corpus.jsonl"},
        "encoder": {"model": "fake"},
        "checkpoint": "checkpoint",
        "collection": {"uri": "./milvus.db"},
        "runner": {"name": "local", "direct_running_mode": "multi_processing", "direct_num_workers": 1},
    }
    (tmp_path / "vecbeam.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return tmp_path


def run(folder: Path, *words: str | Path, **environment: str) -> tuple[int, str, str]:
    variables = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    done = subprocess.run(
        words, cwd=folder, env={**variables, **environment}, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout.strip(), done.stderr.strip()


def test_the_wheel_holds_what_is_no_module(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    kernels = {f"transforms/encoders/engines/amx/kernels/{path.name}" for path in ROOT.rglob("amx/kernels/*.*")}
    assert len(kernels) == 7
    assert {*kernels, "vecbeam/py.typed", "schemas/vecbeam.schema.json"} <= {*names}
    assert {name.partition("/")[0] for name in names} == {*SOURCES, "vecbeam-0.1.0.dist-info"}
    modules = {str(path.relative_to(ROOT)) for source in SOURCES for path in (ROOT / source).rglob("*.py")}
    assert modules <= {*names}


def test_metadata_names_extras_and_no_torch_without_one(wheel: Path) -> None:
    metadata = zipfile.ZipFile(wheel).read("vecbeam-0.1.0.dist-info/METADATA").decode()
    needed = [
        line.removeprefix("Requires-Dist: ") for line in metadata.splitlines() if line.startswith("Requires-Dist")
    ]
    assert not [line for line in needed if "torch" in line and "extra ==" not in line]
    assert not [line for line in needed if "sentence-transformers" in line and "extra ==" not in line]
    assert "Provides-Extra: torch" in metadata
    assert "Classifier: Typing :: Typed" in metadata


def test_the_command_works_in_a_folder_with_packages_of_our_names(installed: Path, hostile: Path) -> None:
    for command in ([installed / "vecbeam"], [installed / "python", "-m", "vecbeam"]):
        assert run(hostile, *command, "--version") == (0, "vecbeam 0.1.0", "")


def test_worker_processes_find_our_packages_too(installed: Path, hostile: Path) -> None:
    code, out, said = run(hostile, installed / "python", "-m", "vecbeam", "plan", "--json")
    assert code == 0, said
    assert json.loads(out)["items"]["new"] == 1


def test_a_program_that_would_import_others_is_told_which(installed: Path, hostile: Path) -> None:
    python = installed / "python"
    (hostile / "script.py").write_text("import vecbeam\nprint(vecbeam.load_config('vecbeam.yaml').name)\n")
    for words in (("script.py",), ("-c", "from vecbeam import load_config")):
        code, out, said = run(hostile, python, *words)
        assert (code, out) == (1, "")
        assert (
            f"ImportError: {hostile}/schemas/__init__.py hides the package schemas of vecbeam in {installed.parent}"
            in said
        )
        assert "PYTHONSAFEPATH=1" in said
    assert run(hostile, python, "-P", "script.py") == (0, "words", "")
    code, _, said = run(hostile, installed / "vecbeam", "--version", PYTHONPATH=str(hostile))
    assert (code, said.startswith(f"vecbeam: {hostile}/schemas")) == (2, True)


PROGRAM = """
import multiprocessing, os, sys
sys.path = [path for path in sys.path if path not in ("", os.getcwd())]
import vecbeam

def name(path):
    return vecbeam.load_config(path).name

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(name, ["vecbeam.yaml"]))
    from pipelines.run.jobs.beam_job import run
    try:
        run(vecbeam.load_config("vecbeam.yaml"), print)
    except vecbeam.VecbeamError as error:
        print(error)
"""


def test_a_program_s_worker_processes_are_refused_in_such_a_folder(
    installed: Path, hostile: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    program = tmp_path_factory.mktemp("program") / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    code, out, said = run(hostile, installed / "python", program)
    assert code == 0, said
    first, refusal = out.splitlines()
    assert first == "words"
    assert f"multi_processing starts workers in {hostile}" in refusal
    assert "export PYTHONSAFEPATH=1" in refusal
