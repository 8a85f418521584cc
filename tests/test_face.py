"""The public package: what an import costs, its types and docstrings, and its transforms in users' pipelines."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from zlib import crc32

import apache_beam as beam
import eager
import pyarrow.parquet as pq
import pytest
import yaml

import vecbeam
from schemas.config import Config
from schemas.config.loader import parse_config
from transforms import milvus

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "beam.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def values() -> dict[str, Any]:
    return {
        "name": "islands",
        "corpus": {"paths": "islands.jsonl", "id": "code", "content": ["about"]},
        "encoder": {"model": "fake"},
        "checkpoint": "checkpoint",
        "collection": {"uri": "./milvus.db"},
    }


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return parse_config(values(), folder=tmp_path)


def ids(folder: Path) -> list[str]:
    parts = sorted(folder.glob("checkpoint/islands/*/parts/*.parquet"))
    return [name for part in parts for name in pq.read_table(part).column("item_id").to_pylist()]


def rejected(folder: Path) -> list[str]:
    files = sorted(folder.glob("checkpoint/islands/*/rejects/*.parquet"))
    return [name for file in files for name in pq.read_table(file).column("error").to_pylist()]


HOST = """
import logging, os, signal, sys
import pyarrow as pa
import pymilvus, openvino_telemetry  # as another program may use them

def state():
    return {
        # torch sets these itself when it is imported.
        "variables": [each for each in sorted(os.environ.items()) if not each[0].startswith(("KMP_", "TORCH"))],
        "pool": pa.default_memory_pool().backend_name,
        "signals": [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)],
        "levels": {name: logging.getLogger(name).level for name in ("", "pymilvus", "apache_beam")},
        "hooks": (sys.excepthook, sys.stdout, sys.stderr),
        "modules": sys.modules["openvino_telemetry"],
    }

before = state()
import vecbeam
config = vecbeam.load_config(sys.argv[1])
assert vecbeam.backfill(config).chunks.loaded == 3
with vecbeam.Index(sys.argv[1]) as index:
    assert len(index.search("cold", 2)) == 2
after = state()
for name in before:
    assert before[name] == after[name], (name, before[name], after[name])
"""


def test_a_run_leaves_the_process_of_another_program_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "islands.jsonl").write_text("".join(f'{{"code": "{n}", "about": "{n} and cold"}}\n' for n in "abc"))
    chosen = values() | {"encoder": {"model": "all-MiniLM-L6-v2", "engine": "openvino"}}
    (tmp_path / "vecbeam.yaml").write_text(yaml.safe_dump(chosen))
    run = subprocess.run(
        [sys.executable, "-c", HOST, str(tmp_path / "vecbeam.yaml")], capture_output=True, text=True, cwd=ROOT
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert "Traceback" not in run.stderr


def test_import_loads_nothing_and_changes_nothing() -> None:
    code = (
        "import sys, os, logging, signal; before = (dict(os.environ), logging.root.level, signal.getsignal(2));"
        "import vecbeam; after = (dict(os.environ), logging.root.level, signal.getsignal(2));"
        "print(before == after, sorted({'apache_beam', 'torch', 'pymilvus', 'pyarrow'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True []"


def test_each_name_is_there_and_typed() -> None:
    source = (ROOT / "vecbeam" / "__init__.py").read_text(encoding="utf-8")
    for name in vecbeam.__all__:
        assert getattr(vecbeam, name) is not None
        assert re.search(rf"^    (from .* import .*\b{name}\b|{name}: str)", source, re.MULTILINE), name
    assert {*vecbeam.__all__} <= {*dir(vecbeam)}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = vecbeam.nothing  # type: ignore[attr-defined]


def test_keys_do_not_follow_from_the_order_of_records(config: Config, tmp_path: Path) -> None:
    names = [{"code": str(number), "about": f"Text {number}."} for number in range(40)]
    keys = expected(names)
    for records in (names, names[::-1]):
        given = eager.tables(vecbeam.ItemsFromRecords(config, shards=3), records, tmp_path)
        listed = [(*key, *table.column("item_id").to_pylist()) for key, table in given.batches.items()]
        assert listed == sorted(keys)
        assert given.rejects == []
    assert len(keys) == 3


def test_each_transform_gives_tables_and_rejects(config: Config, tmp_path: Path) -> None:
    records = [
        {"code": "a", "about": "One"},
        {"code": "b"},
        {"code": "c", "about": " \n"},
        {"code": "d", "about": "Two"},
    ]
    (tmp_path / "islands.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    read = eager.tables(vecbeam.ReadItems(config), None, tmp_path)
    given = eager.tables(vecbeam.ItemsFromRecords(config, shards=1), records, tmp_path)
    items = [[table.column("item_id").to_pylist() for table in one.batches.values()] for one in (read, given)]
    assert items == [[["a", "d"]]] * 2
    refused = [[(row["id"], row["step"], row["error"]) for row in one.rejects] for one in (read, given)]
    assert refused == [[("b", "read", "MissingField"), ("c", "read", "EmptyText")]] * 2

    chunked = eager.tables(vecbeam.Chunk(config), read.batches.items(), tmp_path)
    embedded = eager.tables(vecbeam.Embed(config), chunked.batches.items(), tmp_path)
    assert [*chunked.batches] == [*embedded.batches] == [*read.batches]
    assert (chunked.rejects, embedded.rejects) == ([], [])
    [chunks], [rows] = chunked.batches.values(), embedded.batches.values()
    assert chunks.column("text").to_pylist() == ["One", "Two"]
    assert rows.column("id").to_pylist() == ["a#0", "d#0"]
    assert len(rows.column("vector")[0]) == 64

    for _ in range(2):  # the second time each part exists
        assert eager.tables(vecbeam.WriteParts(config), embedded.batches.items(), tmp_path).batches == embedded.batches
        assert ids(tmp_path) == ["a", "d"]


def expected(records: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    shards: dict[int, list[str]] = {}
    for record in records:
        shards.setdefault(crc32(record["code"].encode()) % 3, []).append(record["code"])
    return [(f"records-{number:05d}", 0, *sorted(names)) for number, names in shards.items()]


def test_read_items_gives_what_a_backfill_embeds(config: Config, tmp_path: Path) -> None:
    (tmp_path / "islands.jsonl").write_text('{"code": "a", "about": "One"}\n{"code": "b"}\n', encoding="utf-8")
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        items = pipeline | vecbeam.ReadItems(config)
        rows = (items.batches | vecbeam.Chunk(config)).batches | vecbeam.Embed(config)
        _ = rows.batches | vecbeam.WriteParts(config)
        _ = items.rejects | vecbeam.WriteRejects(config, "read")
    assert (ids(tmp_path), rejected(tmp_path)) == (["a"], ["MissingField"])
    report = vecbeam.backfill(
        config.model_copy(update={"verify": config.verify.model_copy(update={"max_rejected": 1})})
    )
    assert (report.chunks.embedded, report.items.rejected) == (0, 1), "the part was found again"


def test_a_python_pipeline_reads_embeds_and_writes(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(compile(block("python"), "beam.md", "exec"), names)
    assert "2" in capsys.readouterr().out
    assert ids(names["work"]) == ["jp", "ke"]
    assert rejected(names["work"]) == ["EmptyText"]
    with milvus.connected(names["config"].collection) as client:
        client.client.load_collection("islands")
        rows = client.client.query("islands", filter='id != ""', output_fields=["id", "text"])
    assert sorted((row["id"], row["text"]) for row in rows) == [
        ("jp#0", "Japan spans many islands."),
        ("ke#0", "Kenya is in East Africa."),
    ]
    milvus.release(names["config"].collection)


def test_a_yaml_pipeline_embeds_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jinja2", reason="Beam YAML comes with apache-beam[yaml]")
    pytest.importorskip("docstring_parser", reason="Beam YAML comes with apache-beam[yaml]")
    from apache_beam.yaml.yaml_transform import expand_pipeline

    monkeypatch.chdir(tmp_path)
    Path("islands.yaml").write_text(yaml.safe_dump(values()), encoding="utf-8")
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        expand_pipeline(pipeline, block("yml"))
    assert (ids(tmp_path), rejected(tmp_path)) == (["jp", "ke"], ["EmptyText"])
