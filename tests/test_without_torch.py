"""What works where the extra torch is not installed, and what is said where something needs it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from blocked import TORCH, run_without
from models import save_model

from pipelines.backfill import backfill
from schemas.config.loader import load_config

ROWS = [
    {"id": name, "text": f"{name} is a country in {place}"} for name, place in (("japan", "Asia"), ("kenya", "Africa"))
]


def configuration(folder: Path, **encoder: Any) -> Path:
    path = folder / "vecbeam.yaml"
    values = {
        "name": "countries",
        "corpus": {"paths": "corpus.jsonl"},
        "chunk": {"max_tokens": 32, "overlap_tokens": 0},
        "encoder": {"model": "model", **encoder},
        "checkpoint": "checkpoint",
        "collection": {"uri": "./milvus.db"},
    }
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model, converted for OpenVINO with torch, and what a backfill published with it."""
    from milvus_lite.server_manager import server_manager_instance

    folder = tmp_path_factory.mktemp("published")
    shutil.move(save_model(folder / "made"), folder / "model")
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VECBEAM_CACHE", str(folder / "cache"))
        backfill(load_config(configuration(folder, engine="openvino")))
    server_manager_instance.release_server(str(folder / "milvus.db"))
    return folder


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "copy"
    shutil.copytree(published, copy)
    return copy


LIBRARY = """
import json, sys, vecbeam
for word in sys.argv[1:]:
    command, _, rest = word.partition(" ")
    try:
        config = vecbeam.load_config("vecbeam.yaml")
        found = getattr(vecbeam, command)(config, **json.loads(rest or "{}"))
        print(json.dumps([command, getattr(found, "as_json", lambda: found)()]))
    except vecbeam.VecbeamError as error:
        print(json.dumps([command, {**error.facts(), "exit_code": error.exit_code}]))
"""


def called(folder: Path, *commands: str, cache: str = "cache") -> list[tuple[str, Any]]:
    """Commands, each with its arguments as JSON behind it, and what they gave or raised, in one process."""
    done = run_without(TORCH, *commands, folder=folder, code=LIBRARY, VECBEAM_CACHE=str(folder / cache))
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines() if line.startswith("[")]


def test_help_needs_nothing(tmp_path: Path) -> None:
    done = run_without(TORCH, "--help", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "backfill" in done.stdout


def test_what_embeds_nothing_needs_no_torch(folder: Path) -> None:
    configuration(folder, engine="torch")
    (_, plan), *reports = called(folder, "plan", "sync", "verify", 'load {"rebuild": true}')
    assert plan["action"] == "nothing"
    assert [(name, report["chunks"]["loaded"]) for name, report in reports] == [("sync", 0), ("verify", 0), ("load", 2)]


def test_a_converted_model_searches_and_embeds_without_torch(folder: Path) -> None:
    (folder / "corpus.jsonl").open("a").write('{"id": "peru", "text": "Peru is a country in America"}\n')
    query = {"query": "Peru is a country in America", "k": 1}
    (_, report), (_, hits) = called(folder, "sync", f"search {json.dumps(query)}")
    assert (report["chunks"]["embedded"], report["runtime"]["engine"]) == (1, "openvino"), report
    assert hits[0]["item_id"] == "peru"
    assert hits[0]["score"] > 0.999


def test_a_first_run_that_needs_torch_reads_and_writes_nothing(folder: Path) -> None:
    configuration(folder, engine="torch")
    shutil.rmtree(folder / "checkpoint")
    (folder / "corpus.jsonl").write_text("no record, which a run that reads it would reject\n", encoding="utf-8")
    [(_, said)] = called(folder, "backfill")
    assert said["message"] == "encoder.engine: torch needs the extra torch, which is not installed"
    assert [*(folder / "checkpoint").rglob("*.parquet")] == []
    [report] = (folder / "checkpoint").rglob("report.json")
    assert json.loads(report.read_text())["rejects"] == {}, "the corpus was read"


def test_what_needs_torch_says_so_before_anything_is_written(folder: Path) -> None:
    (folder / "corpus.jsonl").open("a").write('{"id": "peru", "text": "Peru is a country in America"}\n')
    before = sorted(path.name for path in (folder / "checkpoint").rglob("*.parquet"))
    configuration(folder, engine="torch")
    for command, said in called(folder, "sync", "plan", 'search {"query": "a country"}'):
        assert said == {
            "class": "MissingExtraError",
            "message": "encoder.engine: torch needs the extra torch, which is not installed",
            "remedy": "pip install 'vecbeam[torch]'",
            "exit_code": 2,
        }, command
    configuration(folder)
    for command, said in called(folder, 'search {"query": "a country"}', cache="empty"):
        assert said["class"] == "MissingExtraError", command
        assert "never converted" in said["message"]
        assert "VECBEAM_CACHE" in said["remedy"]
    assert sorted(path.name for path in (folder / "checkpoint").rglob("*.parquet")) == before


def test_a_conversion_of_other_files_is_not_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transforms.encoders import resolve
    from transforms.encoders.engines import cache
    from transforms.encoders.engines.openvino.conversion import PACKAGES
    from transforms.support import extras

    monkeypatch.setenv("VECBEAM_CACHE", str(folder / "cache"))
    monkeypatch.setattr(cache, "version_of", lambda name: None if name in TORCH else extras.version_of(name))
    files = resolve(load_config(folder / "vecbeam.yaml").encoder).files  # type: ignore[attr-defined]
    assert cache.find(cache.Origin.of(files, PACKAGES)) is not None
    assert cache.find(cache.Origin.of(replace(files, weights="0" * 64), PACKAGES)) is None
    assert cache.find(cache.Origin.of(files, PACKAGES, "int8")) is None
    monkeypatch.setattr(cache, "version_of", lambda name: None if name in TORCH else "0")
    assert cache.find(cache.Origin.of(files, PACKAGES)) is None, "another OpenVINO"
