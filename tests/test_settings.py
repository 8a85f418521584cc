"""The configuration: its JSON Schema, and each mistake refused with key, value and remedy."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from schemas.config import Config, json_schema
from schemas.config.loader import load_config
from schemas.config.yaml_places import read_yaml
from schemas.errors import ConfigurationError

GOOD = """
name: docs
corpus: {paths: "*.jsonl", content: text, metadata: {author: string, year: {type: int, default: 0}}}
checkpoint: ./checkpoint
collection: {uri: ./milvus.db}
"""


def load(tmp_path: Path, *overrides: str, text: str = GOOD) -> Config:
    path = tmp_path / "vecbeam.yaml"
    path.write_text(text)
    return load_config(path, overrides)


def test_local_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    config = load(tmp_path)
    assert config.corpus.paths == [str(tmp_path / "*.jsonl")]
    assert config.checkpoint == str(tmp_path / "checkpoint")
    assert config.collection.uri == str(tmp_path / "milvus.db")


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("corpus.pathz=[x]", ["corpus.pathz", "did you mean 'paths'"]),
        ("encoder.precision=float8", ["encoder.precision", "'float8'", "float32"]),
        ("batch_rows=many", ["batch_rows", "'many'"]),
        ("collection.index={type: HNSW, nlist: 4}", ["collection.index", "'nlist'", "M, efConstruction"]),
        ("collection.index={type: HNSW, M: 1}", ["M of HNSW", "2 to 2048", "1"]),
        ("collection.index={type: IVF_PQ}", ["collection.index.type", "'IVF_PQ'", "IVF_FLAT"]),
        ("collection.search={nprobe: 4}", ["'nprobe'", "HNSW", "ef"]),
        ("collection.index={type: HNSW, ef: 64}", ["'ef' is not an index parameter", "set it in collection.search"]),
        ("collection.search={M: 8}", ["'M' is not a search parameter", "set it in collection.index"]),
        ("collection.metric=HAMMING", ["collection.metric", "'HAMMING'", "COSINE"]),
        ("collection.token=abc", ["collection.token", "MILVUS_TOKEN"]),
        ("collection.uri=http://user:pass@host:19530", ["collection.uri", "MILVUS_TOKEN"]),
        ("collection.uri=milvus", ["collection.uri", "'milvus'", ".db"]),
        ("name=with-dash", ["name", "'with-dash'"]),
        ("chunk.overlap_tokens=200", ["overlap_tokens 200", "lower it"]),
        ("corpus.metadata={text: string}", ["'text'", "rename"]),
        ("corpus.metadata={year: date}", ["corpus.metadata.year", "'date'"]),
        ("corpus.paths=${VECBEAM_NOT_SET}/x", ["corpus.paths", "VECBEAM_NOT_SET", "export"]),
        ("runner={name: local, s3_secret_access_key: x}", ["s3_secret_access_key", "environment"]),
        ("runner={name: dataflow, project: p}", ["Milvus Lite", "server"]),
        ("runner={name: flink, azure_connection_string: x}", ["azure_connection_string", "AZURE_STORAGE_CONNECTION"]),
        ("runner={name: local, storage_sas: x}", ["storage_sas", "environment"]),
        ("runner={name: local, azure_account_key: x}", ["azure_account_key", "environment"]),
        ("runner={name: local, setup: 'AccountName=a;AccountKey=b'}", ["setup is a secret", "environment"]),
        ("runner={name: flink, mounted: [share]}", ["runner.mounted", "'share'", "absolute"]),
        ("nonsense", ["--set", "key=value"]),
    ],
)
def test_mistakes_are_refused(tmp_path: Path, override: str, parts: list[str]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(tmp_path, override)
    assert refused.value.exit_code == 2
    for part in parts:
        assert part in str(refused.value)


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"vecbeam.yaml:6:1: .*duplicate key 'name'"):
        load(tmp_path, text=GOOD + "name: other\n")


def test_a_key_that_is_a_mapping_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"vecbeam.yaml:6:1: .*a key is a list or a mapping"):
        load(tmp_path, text=GOOD + "{{NAME}}: other\n")


def test_each_mistake_is_a_line_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(tmp_path, "batch_rows=many", text=GOOD.replace("checkpoint: ./", "chunk:\n  max_tokns: 3\ncheckpoint: ./"))
    assert f"{tmp_path}/vecbeam.yaml:5:3: unknown key 'chunk.max_tokns'; did you mean 'max_tokens'?" in (
        refused.value.lines
    )
    assert any(line.startswith("--set batch_rows: batch_rows: 'many'") for line in refused.value.lines)


def test_a_check_across_keys_names_the_setting_of_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "vecbeam.yaml"
    file.write_text(
        "name: docs\ncorpus: {paths: [a.jsonl], content: [text]}\nchunk: {max_tokens: 100}\nencoder: {model: fake}\n"
        "checkpoint: checkpoint\ncollection: {uri: ./milvus.db}\n"
    )
    with pytest.raises(ConfigurationError) as refused:
        load_config(file, ["chunk.overlap_tokens=300"])
    [line] = refused.value.lines
    assert line.startswith(f"{file}:3:1 with --set chunk.overlap_tokens: chunk: overlap_tokens 300 is more than half")


def test_invalid_yaml_names_the_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"vecbeam.yaml:7:7: not valid YAML: "):
        load(tmp_path, text=GOOD + "batch: [1\nrunner: x\n")


MERGED = """
name: docs
corpus:
  paths: "*.jsonl"
  content: text
  metadata:
    a: &one {type: string, max_bytes: 100}
    b: {<<: *one, max_bytes: 200}
    c: {<<: [{type: int}, *one]}
checkpoint: ./checkpoint
collection: {uri: ./milvus.db}
"""


def test_merge_keys_are_those_of_yaml(tmp_path: Path) -> None:
    fields = load(tmp_path, text=MERGED.replace(", *one]", "]")).corpus.metadata
    assert [(field.type, field.max_bytes) for field in fields.values()][:2] == [("string", 100), ("string", 200)]
    assert fields["c"].type == "int"
    values, _ = read_yaml(MERGED, "x")
    assert values == yaml.safe_load(MERGED)


def test_duplicates_are_refused_beside_merge_keys(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"vecbeam.yaml:8:35: .*duplicate key 'max_bytes'"):
        load(tmp_path, text=MERGED.replace("max_bytes: 200", "max_bytes: 200, max_bytes: 3"))


def test_a_mistake_in_an_anchor_names_the_anchor(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(tmp_path, text=MERGED.replace("max_bytes: 100", "max_bytes: much"))
    assert any(line.startswith(f"{tmp_path}/vecbeam.yaml:7:28: corpus.metadata.a") for line in refused.value.lines)


@pytest.mark.parametrize("text", ["a: &a [*a]\n", "name: \x00\n", "a: &a {b: *a}\n", "- 1\n", "", "? [a]\n: b\n"])
def test_odd_yaml_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError):
        load(tmp_path, text=text)


def test_an_override_changes_nothing_under_the_same_anchor(tmp_path: Path) -> None:
    text = MERGED.replace("    c: {<<: [{type: int}, *one]}\n", "    c: *one\n")
    fields = load(tmp_path, "corpus.metadata.c.max_bytes=7", text=text).corpus.metadata
    assert (fields["a"].max_bytes, fields["c"].max_bytes) == (100, 7)


def test_a_missing_file_names_init(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="vecbeam init"):
        load_config(tmp_path / "nothing.yaml")


def test_the_environment_is_put_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECBEAM_TEST_HOST", "milvus.example")
    config = load(tmp_path, "collection.uri=http://${VECBEAM_TEST_HOST}:19530")
    assert config.collection.uri == "http://milvus.example:19530"


def test_the_checked_in_schema_is_that_of_the_models() -> None:
    assert json_schema.PATH.read_text() == json_schema.text(), "run: python -m schemas.config.json_schema"


def test_the_schema_takes_what_the_models_take() -> None:
    values = yaml.safe_load(GOOD) | {"collection": {"uri": "./m.db", "index": {"type": "HNSW", "M": 8}}, "chunk": False}
    jsonschema.validate(values, json_schema.json_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values | {"unknown": 1}, json_schema.json_schema())


REMOTE = """
name: docs
corpus: {paths: ["gs://bucket/*.jsonl"]}
checkpoint: gs://bucket/checkpoints
collection: {uri: "http://milvus:19530"}
"""


@pytest.mark.parametrize("runner", ["dataflow", "flink", "spark", "portable"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("checkpoint", "./checkpoints"),
        ("corpus.paths", "['gs://bucket/*.jsonl', /data/*.jsonl]"),
        ("encoder.model", "/models/mine"),
        ("encoder.model", "mine"),
    ],
)
def test_local_paths_are_refused_where_workers_are_other_machines(
    tmp_path: Path, runner: str, key: str, value: str
) -> None:
    (tmp_path / "mine").mkdir()
    overrides = [f"runner={{name: {runner}}}", f"{key}={value}"]
    (tmp_path / "remote.yaml").write_text(REMOTE)
    with pytest.raises(ConfigurationError) as refused:
        load_config(tmp_path / "remote.yaml", overrides)
    path = {"checkpoint": "./checkpoints", "corpus.paths": "/data/*.jsonl"}.get(key, value)
    for part in (key, path, f"runner {runner}", "runner.mounted"):
        assert part in str(refused.value)


def test_local_paths_are_taken_where_workers_have_them(tmp_path: Path) -> None:
    (tmp_path / "remote.yaml").write_text(REMOTE)
    local = ["checkpoint=/share/checkpoints", "corpus.paths=[/share/docs/*.txt]", "encoder.model=/share/model"]
    for runner in (
        "{name: flink, mounted: [/share/]}",
        "{name: spark, environment_type: LOOPBACK}",
        "{name: local}",
    ):
        assert load_config(tmp_path / "remote.yaml", [f"runner={runner}", *local]).checkpoint == "/share/checkpoints"
    for beside in ("/shared", "/share/../etc"):
        with pytest.raises(ConfigurationError, match="checkpoint"):
            load_config(tmp_path / "remote.yaml", ["runner={name: flink, mounted: [/share]}", f"checkpoint={beside}"])
