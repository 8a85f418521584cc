"""Several vectors per row, and a family of encoders from another package whose vectors are sparse."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from corpora import configure, text, write_jsonl
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.load import load
from pipelines.plan import plan
from pipelines.reindex import reindex
from pipelines.search import search
from pipelines.sync import sync
from pipelines.verify import verify
from schemas.config import Config
from schemas.errors import CollectionError, ConfigurationError, EncoderError, GateError, SpaceMismatchError
from schemas.layout import VectorKind
from transforms import milvus

LETTERS = '''
"""Texts as how often they have each letter: sparse vectors, and two ways to get them wrong."""

from dataclasses import dataclass

import numpy as np

from schemas.layout import Modality, Space, VectorKind
from transforms.chunk.text import TextChunker
from transforms.encoders.base import Encoded, text_inputs
from transforms.encoders import fake
from transforms.support.vectors import dense_array, sparse_array


@dataclass(frozen=True)
class Letters:
    config: object
    kind = VectorKind.SPARSE
    dimensions = 26
    modalities = frozenset({Modality.TEXT})
    probe = text_inputs(["abc"])
    max_tokens = 1000
    prompt = ""

    @property
    def space(self):
        return Space({"family": "letters", "prompt": self.config.prompt or ""})

    def tokenizer(self):
        return fake.describe(self.config, None).tokenizer()

    def as_seen(self, text, *, query=False):
        return text

    def chunker(self, config, modality):
        return TextChunker(config, self)

    def load(self, sample=()):
        return self

    def runtime(self):
        return {"engine": "letters", "device": "cpu", "precision": "float32"}

    def encode(self, inputs, *, query=False, advance=None):
        rows = []
        for text in inputs.column("text").to_pylist():
            counts = [text.lower().count(chr(97 + at)) for at in range(26)]
            if "zebra" in text:
                counts = [0] * 26
            if "infinite" in text:
                counts[3] = np.inf
            rows.append((range(26), counts))
        amount = np.full(inputs.num_rows, 1, np.int64)
        vectors = sparse_array(rows)
        if self.config.model == "wrong-kind":
            vectors = dense_array(np.ones((inputs.num_rows, 26), np.float32))
        return Encoded(vectors, amount, amount * 0)


def describe(config, source):
    return Letters(config)
'''


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A package outside the tree that brings the family `letters`, and others that can't be used."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "letters_family.py").write_text(LETTERS)
    brought = {
        "letters": {"letters": "letters_family", "broken": "no_such_module", "twice": "letters_family"},
        "other": {"twice": "letters_family"},
    }
    for name, points in brought.items():
        information = folder / f"{name}_family-1.2.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-family\nVersion: 1.2\n")
        lines = ["[vecbeam.encoders]", *(f"{point} = {module}:describe" for point, module in points.items())]
        (information / "entry_points.txt").write_text("\n".join(lines))
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


TWO = {"meaning": {"model": "fake", "dimensions": 16}, "spelling": {"model": "letters"}}


def two_vectors(tmp_path: Path, **keys: Any) -> Config:
    """A configuration of a dense and a sparse vector, over 40 items, in their folder as vecbeam.yaml."""
    return configure(tmp_path, encoders=TWO, **keys)


@pytest.fixture
def items(tmp_path: Path) -> list[dict[str, Any]]:
    records = [{"id": f"item-{number}", "text": text(number)} for number in range(40)]
    write_jsonl(tmp_path / "corpus" / "items.jsonl", records)
    return records


def test_a_family_from_another_package_fills_a_second_vector(
    package: Path, tmp_path: Path, items: list[dict[str, Any]]
) -> None:
    config = two_vectors(tmp_path)
    assert plan(config).chunks.value == 40
    report = backfill(config)
    assert (report.chunks.embedded, report.verify.published, report.verify.damaged) == (40, True, 0)
    assert report.verify.recalls == {"meaning": 1.0, "spelling": 1.0}
    assert report.runtime["spelling.engine"] == "letters"

    [part] = tmp_path.glob("checkpoint/tested/*/parts/*.parquet")
    rows = pq.read_table(part)
    assert rows.column_names[7:11] == ["meaning", "spelling", "tokens", "tokens_dropped"]
    first = rows.column("spelling")[0].as_py()
    assert first["values"] == [text(0).lower().count(chr(97 + at)) for at in first["indices"]]

    # Nothing changed, nothing embedded; one edited, one gone.
    assert sync(config).chunks.embedded == 0
    items[3]["text"] = "quite another text, quickly written"
    write_jsonl(tmp_path / "corpus" / "items.jsonl", items[:-1])
    report = sync(config)
    assert (report.chunks.embedded, report.chunks.loaded, report.chunks.deleted) == (1, 1, 1)

    found = search(config, "quite another text, quickly written", k=1, vector="meaning")
    assert found[0]["item_id"] == "item-3"
    assert search(config, "quick quality quotes", k=1, vector="spelling")[0]["item_id"] == "item-3"
    with pytest.raises(ConfigurationError, match="rows have no vector 'smell'"):
        search(config, "anything", vector="smell")

    assert verify(config).verify.missing == 0
    with milvus.connected(config.collection) as connection:
        [row] = connection.client.query("tested", filter='item_id == "item-7"', output_fields=["*"])
        row["spelling"] = {3: 5.0}
        connection.client.upsert(milvus.served(connection, "tested"), [row])
    with pytest.raises(GateError, match=r"1 rows damaged: they differ in spelling \(1\)"):
        verify(config)
    assert verify(config, repair=True).verify.published
    assert load(config, rebuild=True).verify.recalls == {"meaning": 1.0, "spelling": 1.0}


def test_another_model_for_one_vector_is_another_space(
    package: Path, tmp_path: Path, items: list[dict[str, Any]]
) -> None:
    backfill(two_vectors(tmp_path))
    other = configure(tmp_path, encoders={**TWO, "spelling": {"model": "letters", "prompt": "x"}})
    with pytest.raises(SpaceMismatchError, match=r"spelling\.prompt: x here, there"):
        sync(other)
    assert reindex(other).chunks.embedded == 40


def test_a_sparse_vector_without_a_number_is_a_reject(
    package: Path, tmp_path: Path, items: list[dict[str, Any]]
) -> None:
    items[5]["text"] = "a zebra"
    items[6]["text"] = "infinite letters"
    write_jsonl(tmp_path / "corpus" / "items.jsonl", items)
    report = backfill(two_vectors(tmp_path, verify={"max_rejected": 0.1}))
    assert report.rejects == {"VectorNotFinite": 1, "VectorZero": 1}
    assert report.verify.found == 38


def test_a_family_that_breaks_its_promise_is_the_encoder_s_fault(
    package: Path, tmp_path: Path, items: list[dict[str, Any]]
) -> None:
    encoders = {"spelling": {"model": "wrong-kind", "family": "letters"}}
    with pytest.raises(EncoderError, match=r"encoder of spelling gives vectors of type list.*promises sparse ones"):
        backfill(configure(tmp_path, encoders=encoders))


@pytest.mark.parametrize(
    ("family", "says"),
    [
        ("broken", "'broken' of the package letters-family 1.2 can't be imported: ModuleNotFoundError"),
        ("twice", "'twice' comes from two packages: .*-family 1.2, .*-family 1.2"),
        ("nowhere", "'nowhere' is not an installed family of encoders"),
    ],
)
def test_a_family_that_can_t_be_used_is_refused_by_name(
    package: Path, tmp_path: Path, items: list[dict[str, Any]], family: str, says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        backfill(configure(tmp_path, encoder={"model": "m", "family": family}))
    assert not (tmp_path / "checkpoint").exists()


def test_a_kind_of_vector_that_milvus_does_not_hold_is_refused_alone_before_anything_is_read(
    package: Path, tmp_path: Path, items: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import letters_family

    monkeypatch.setattr(letters_family.Letters, "kind", VectorKind.MULTI)
    with pytest.raises(ConfigurationError, match=r"encoders\.spelling\.model: it has a vector for each token"):
        backfill(configure(tmp_path, encoders={"spelling": TWO["spelling"]}))
    assert not list(tmp_path.glob("checkpoint/tested/*/parts"))


@pytest.mark.server
def test_a_server_that_holds_one_vector_refuses_two(
    package: Path, tmp_path: Path, items: list[dict[str, Any]], milvus_server: Any
) -> None:
    config = two_vectors(tmp_path, collection={"uri": milvus_server.uri})
    says = r"Milvus 2\.3\.5 holds 1 vectors per row, not 2; encoders\.spelling: .*can't store vectors of type SPARSE"
    for command in (plan, backfill, reindex):
        with pytest.raises(CollectionError, match=says):
            command(config)
    assert not list(tmp_path.glob("checkpoint/tested/*/parts"))


@pytest.mark.parametrize(
    ("encoders", "says"),
    [
        ({"text": {"model": "fake"}}, "'text' can't be the name of a vector"),
        ({"a-b": {"model": "fake"}}, "letters, digits and underscores"),
        ({"score": {"model": "fake"}}, "'score' can't be the name of a vector"),
        (
            {"a": {"model": "fake", "accelerator": "type:t4"}, "b": {"model": "fake", "accelerator": "type:a100"}},
            "different accelerators",
        ),
    ],
)
def test_names_of_vectors_that_can_t_be(tmp_path: Path, encoders: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        configure(tmp_path, encoders=encoders)


def test_the_command_line_searches_the_vector_that_is_named(
    package: Path, tmp_path: Path, items: list[dict[str, Any]]
) -> None:
    config = two_vectors(tmp_path)
    backfill(config)
    milvus.release(config.collection)
    command = ["search", str(tmp_path / "vecbeam.yaml"), text(7), "-k", "1", "--json"]
    done = CliRunner().invoke(app, [*command, "--vector", "spelling"])
    assert json.loads(done.stdout)["metric"] == "IP"
    done = CliRunner().invoke(app, [*command, "--vector", "smell"])
    assert done.exit_code == 2
    assert "name one of: meaning, spelling" in json.loads(done.stdout)["error"]["remedy"]


def test_sparse_arrays_sort_and_leave_zeros_out() -> None:
    from transforms.support.vectors import multi_array, not_finite, sparse_array, without_length

    made = sparse_array([([9, 2, 4], [1.0, 0.0, -2.0]), ([], []), ([7], [np.nan])])
    assert made.to_pylist()[:2] == [{"indices": [4, 9], "values": [-2.0, 1.0]}, {"indices": [], "values": []}]
    assert not_finite(made).tolist() == [False, False, True]
    assert without_length(made.slice(1)).tolist() == [True, False]
    several = multi_array([np.zeros((2, 3), np.float32), np.ones((1, 3), np.float32), np.zeros((0, 3), np.float32)])
    assert without_length(several).tolist() == [True, False, True]
