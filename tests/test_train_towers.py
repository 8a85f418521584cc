"""Two towers of texts: `vecbeam train --two-towers`, and any model of sentence-transformers with a router."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import configure
from models import TEXTS, save_model
from synonyms import NUMBERS, asked, write_synonyms
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.reindex import reindex
from pipelines.search import search
from pipelines.steps.quality.trained_model import RECORD
from pipelines.train import train
from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError
from transforms.encoders import Model, resolve, text_inputs
from transforms.encoders.engines.torch.modules import load_modules
from transforms.train.text_training import TrainingSettings

pytest.importorskip("datasets")
pytest.importorskip("accelerate")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("towers")
    write_synonyms(folder)
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> dict[str, Any]:
    """What the command printed; the model is in `mine`."""
    words = ["train", str(folder / "pairs.jsonl"), "--model", str(folder / "base" / "whole"), "--two-towers", "--json"]
    words += ["--epochs", "20", "--batch", "16", "--learning-rate", "0.05", "--out", str(folder / "mine")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def near(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(found, wanted, atol=2e-6)


def save_router(base: Path, folder: Path, **changes: Any) -> Path:
    """A model with two towers that have different weights."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router

    model = load_modules(str(base), "cpu")
    documents = list(model.children())
    queries = deepcopy(documents)
    with torch.no_grad():
        for weights in queries[0].parameters():
            weights += 0.05 * torch.randn(weights.shape, generator=torch.Generator().manual_seed(1))
    towers = {"query": queries, "document": documents} | changes
    whole = SentenceTransformer(modules=[Router(towers)], prompts=model.prompts, device="cpu")
    whole.save_pretrained(str(folder), create_model_card=False, safe_serialization=True)
    return folder


def test_both_towers_are_trained_and_recorded(folder: Path, trained: dict[str, Any]) -> None:
    assert trained["difference"]["low"] > 0
    assert json.loads((folder / "mine" / RECORD).read_bytes())["settings"]["two_towers"] is True
    assert "two_towers True" in (folder / "mine" / "README.md").read_text()
    weights = {one.parent.name: one.read_bytes() for one in (folder / "mine").rglob("*.safetensors")}
    assert {*weights} == {"query_0_StaticEmbedding", "document_0_StaticEmbedding"}
    base = (folder / "base" / "whole" / "model.safetensors").read_bytes()
    assert len({*weights.values(), base}) == 3


def test_rows_and_queries_have_the_vectors_of_the_library_s_own_towers(folder: Path, trained: dict[str, Any]) -> None:
    library = load_modules(str(folder / "mine"), "cpu")
    encoder = resolve(EncoderConfig(model=str(folder / "mine"), precision="float32")).load()
    texts = [row["query"] for row in trained["rows"]]
    rows, queries = (encoder.encode(text_inputs(texts), query=query).matrix for query in (False, True))
    near(rows, library.encode_document(texts, normalize_embeddings=True))
    near(queries, library.encode_query(texts, normalize_embeddings=True))


def test_the_model_is_served_after_a_reindex(folder: Path, trained: dict[str, Any]) -> None:
    index = {"uri": "./milvus.db", "index": {"type": "FLAT"}}
    base = {"model": str(folder / "base" / "whole"), "precision": "float32"}
    right = {asked(n): f"d{n}" for n in NUMBERS}
    unseen = [row["query"] for row in trained["rows"]]

    def found(config: Any) -> int:
        return sum(right[query] in [hit["item_id"] for hit in search(config, query, k=5)] for query in unseen)

    config = configure(folder, encoder=base, collection=index)
    backfill(config)
    before = found(config)
    mine = configure(folder, encoder=base | {"model": str(folder / "mine")}, collection=index)
    reindex(mine)
    assert found(mine) > before
    library = load_modules(str(folder / "mine"), "cpu")
    hits = search(mine, unseen[0], k=3)
    answers = library.encode_document([hit["text"] for hit in hits], normalize_embeddings=True)
    near([hit["score"] for hit in hits], answers @ library.encode_query(unseen[0], normalize_embeddings=True))


@pytest.fixture(scope="module")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("router")
    prompts = {"query": "query : ", "document": "text : "}
    return save_router(save_model(folder / "base", prompts=prompts), folder / "mine")


def resolved(folder: Path, **settings: Any) -> Model:
    return resolve(EncoderConfig.model_validate({"model": str(folder), "precision": "float32"} | settings))


def test_a_router_of_transformers_has_the_library_s_vectors(transformer: Path) -> None:
    library = load_modules(str(transformer), "cpu")
    encoder = resolved(transformer, engine="torch").load()
    rows, queries = (encoder.encode(text_inputs(TEXTS), query=query).matrix for query in (False, True))
    near(rows, library.encode_document(TEXTS))
    near(queries, library.encode_query(TEXTS))
    assert np.abs(rows - queries).max() > 0.01
    alone = np.concatenate([encoder.encode(text_inputs([text]), query=True).matrix for text in TEXTS])
    near(alone, queries)


def test_a_tower_is_converted_alone(transformer: Path) -> None:
    pytest.importorskip("openvino")
    found = resolved(transformer, engine="openvino").load().encode(text_inputs(TEXTS), query=True).matrix
    near(found, load_modules(str(transformer), "cpu").encode_query(TEXTS))


def test_the_space_has_both_towers(transformer: Path, tmp_path: Path) -> None:
    first = resolved(transformer).space
    other = save_router(transformer.parent / "base" / "whole", tmp_path / "other")
    assert resolved(other).space == first
    weights = next(other.glob("query_*/model.safetensors"))
    weights.write_bytes(next(other.glob("document_*/model.safetensors")).read_bytes())
    [difference] = first.differences(resolved(other).space)
    assert difference.startswith("query_tower.weights")


def test_a_router_is_trained_further(transformer: Path, folder: Path, tmp_path: Path) -> None:
    settings = TrainingSettings(batch=16)
    found = train(
        folder / "pairs.jsonl", tmp_path / "m", model=str(transformer), settings=settings, even_if_not_better=True
    )
    record = json.loads((tmp_path / "m" / RECORD).read_bytes())
    assert record["settings"]["two_towers"] is True
    assert found.figures["steps"] > 0
    old, new = (
        {one.parent.name: one.read_bytes() for one in place.rglob("*.safetensors")}
        for place in (transformer, tmp_path / "m")
    )
    assert {*old} == {*new}
    assert all(old[name] != new[name] for name in old)


def test_what_has_other_towers_is_refused(transformer: Path, folder: Path, tmp_path: Path) -> None:
    settings = TrainingSettings(two_towers=True)
    with pytest.raises(ConfigurationError, match="--two-towers: --model static"):
        train(folder / "pairs.jsonl", tmp_path / "m", model="static", settings=settings)
    base = transformer.parent / "base" / "whole"
    wide = list(load_modules(str(save_model(tmp_path / "wide", others=["Normalize"])), "cpu").children())
    for towers, message in {
        "query": "queries in 32 dimensions, and documents in 24",
        "image": "has the routes query, document, image",
    }.items():
        router = save_router(base, tmp_path / towers, **{towers: wide})
        with pytest.raises(ConfigurationError, match=message):
            resolved(router)
