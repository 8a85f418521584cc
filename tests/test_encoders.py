"""Encoders against the library's own output, and spaces against what defines them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import TEXTS, save_model

from schemas.config import Config, EncoderConfig
from schemas.errors import ConfigurationError, EncoderError
from transforms.encoders import CATALOGUE, resolve, text_inputs


@pytest.fixture(scope="module")
def library() -> Any:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    return sentence_transformers.SentenceTransformer


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT with seeded random weights, as the library saves it: mean pooling, Dense, Normalize, prompts."""
    return save_model(tmp_path_factory.mktemp("small"), prompts={"query": "find: ", "document": "text: "})


def cosine(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_the_packaged_model_gives_the_library_s_vectors(library: Any) -> None:
    model = resolve(EncoderConfig())
    ours = model.load().encode(text_inputs(TEXTS))
    reference = library(model.files.folder, device="cpu").encode(TEXTS)  # type: ignore[attr-defined]

    assert ours.matrix.dtype == np.float32
    assert ours.matrix.shape == (len(TEXTS), 384)
    assert cosine(ours.matrix, reference).min() >= 0.99999
    assert ours.amount.max() == 256
    assert ours.dropped.tolist() == [0, 0, 0, 0, 502 - 256, 0]


def test_bfloat16_is_near(library: Any) -> None:
    exact = resolve(EncoderConfig()).load().encode(text_inputs(TEXTS)).matrix
    fast = resolve(EncoderConfig(precision="bfloat16")).load().encode(text_inputs(TEXTS)).matrix
    assert cosine(exact, fast).mean() >= 0.999


def test_tokens_that_are_known_are_taken_as_they_are() -> None:
    model = resolve(EncoderConfig())
    encoder, tokenizer = model.load(), model.tokenizer()
    ids = [np.array(tokenizer.encode(text).ids, np.int32) for text in TEXTS]
    known = [row if len(row) <= 256 else None for row in ids]
    told, counted = encoder.encode(text_inputs(TEXTS, known)), encoder.encode(text_inputs(TEXTS))
    assert np.array_equal(told.matrix, counted.matrix)
    assert np.array_equal(told.amount, counted.amount)
    assert told.dropped.tolist() == [0, 0, 0, 0, 502 - 256, 0]
    assert cosine(encoder.encode(text_inputs(["another text"], ids[:1])).matrix, told.matrix[:1]) >= 0.99999


def test_a_released_encoder_is_loaded_again_when_it_is_needed() -> None:
    from transforms.embed.lazy_encoders import LazyEncoders, release_encoders
    from transforms.encoders.models import Models

    config = Config(name="c", corpus={"paths": ["x"]}, checkpoint="c", collection={"uri": "m.db"})
    models = Models.of(config)
    lazy = LazyEncoders(config, models.layout, models.cutting)
    first = lazy.get()
    vectors = first[0].encoder.encode(text_inputs(TEXTS[:1])).matrix
    assert lazy.get() is first
    release_encoders()
    assert lazy.get() is not first
    assert np.array_equal(lazy.get()[0].encoder.encode(text_inputs(TEXTS[:1])).matrix, vectors)


@pytest.mark.parametrize("query", [False, True])
def test_a_folder_with_dense_and_prompts(small: Path, library: Any, query: bool) -> None:
    model = resolve(EncoderConfig(model=str(small)))
    ours = model.load().encode(text_inputs(TEXTS), query=query).matrix
    whole = library(str(small), device="cpu")
    reference = whole.encode_query(TEXTS) if query else whole.encode_document(TEXTS)

    assert (model.facts.prompt, model.facts.query_prompt) == ("text: ", "find: ")
    assert ours.shape == (len(TEXTS), 24)
    assert cosine(ours, reference).min() >= 0.99999


def test_dimensions_are_cut_and_scaled_again(small: Path, library: Any) -> None:
    ours = resolve(EncoderConfig(model=str(small), dimensions=8)).load().encode(text_inputs(TEXTS)).matrix
    reference = library(str(small), device="cpu", truncate_dim=8).encode_document(TEXTS)
    assert ours.shape == (len(TEXTS), 8)
    assert np.allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
    assert cosine(ours, reference).min() >= 0.99999


def test_the_space_is_in_the_bytes_not_in_the_names(tmp_path: Path) -> None:
    model = resolve(EncoderConfig())
    copy = tmp_path / "another-name"
    shutil.copytree(model.files.folder, copy)  # type: ignore[attr-defined]
    for name, key in (("tokenizer.json", "truncation"), ("config.json", "_name_or_path")):
        values = json.loads((copy / name).read_text())
        values[key] = None
        (copy / name).write_text(json.dumps(values, indent=1))

    assert resolve(EncoderConfig(model=str(copy))).space.id == model.space.id
    assert model.facts.weights == CATALOGUE["all-MiniLM-L6-v2"].weights_sha256


@pytest.mark.parametrize(
    "change", [{"prompt": "text: "}, {"query_prompt": "find: "}, {"max_tokens": 128}, {"dimensions": 64}]
)
def test_settings_that_change_vectors_change_the_space(change: dict[str, Any]) -> None:
    here, there = resolve(EncoderConfig()).space, resolve(EncoderConfig(**change)).space
    assert here.id != there.id
    assert len(here.differences(there)) == 1


def test_precision_is_no_part_of_the_space() -> None:
    assert resolve(EncoderConfig(precision="bfloat16")).space.id == resolve(EncoderConfig()).space.id


@pytest.mark.parametrize(
    ("missing", "says"),
    [("tokenizer.json", "tokenizer.json"), ("model.safetensors", "safetensors"), ("config.json", "config.json")],
)
def test_a_folder_that_lacks_a_file_is_refused(small: Path, tmp_path: Path, missing: str, says: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(small, copy)
    (copy / missing).unlink()
    with pytest.raises(ConfigurationError, match=says):
        resolve(EncoderConfig(model=str(copy)))


def test_damaged_weights_are_refused(small: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(small, copy)
    (copy / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(EncoderError, match="can't load"):
        resolve(EncoderConfig(model=str(copy))).load()


@pytest.mark.parametrize(
    ("model", "says"), [("no-such-name", "not a catalogue name"), ("organisation/model", "encoder.revision")]
)
def test_unknown_models_are_refused(model: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        resolve(EncoderConfig(model=model))


def test_a_model_with_nan_for_a_word_rejects_just_the_items_with_it(small: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    from safetensors.numpy import load_file, save_file

    from schemas.layout import Layout
    from transforms.embed.lazy_encoders import load_fillers
    from transforms.embed.rows import embed_table
    from transforms.encoders import vector_field

    copy = tmp_path / "nan"
    shutil.copytree(small, copy)
    weights = dict(load_file(copy / "model.safetensors"))
    tokenizer = resolve(EncoderConfig(model=str(copy))).tokenizer()
    poisoned = tokenizer.encode("ships", add_special_tokens=False).ids[0]
    name = next(name for name in weights if name.endswith("word_embeddings.weight"))
    weights[name] = weights[name].copy()
    weights[name][poisoned] = np.nan
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    texts = ["harbours and the open sea", "ships", "words", "a sentence about ships"]
    rows = [
        {"id": f"{i}#0", "item_id": str(i), "chunk": 0, "text": text, "start": 0, "end": len(text)}
        | {"content_hash": "", "tokens": 4, "tokens_dropped": 0, "@uri": "a.jsonl", "@place": f"line {i + 1}"}
        | {"@digest": bytes(16), "@content_digest": bytes(16), "@kind": 0, "@source": -1, "@source_item": -1}
        for i, text in enumerate(texts)
    ]
    model = resolve(EncoderConfig(model=str(copy)))
    layout = Layout((vector_field("vector", model),))
    fillers = load_fillers({"vector": model}, layout, "vector")
    batch = embed_table(pa.Table.from_pylist(rows, schema=layout.chunks), fillers, layout)

    assert batch.rows.column("item_id").to_pylist() == ["0", "2"]
    assert np.isfinite(np.stack(batch.rows.column("vector").to_numpy(zero_copy_only=False))).all()
    found = [(r["id"], r["place"], r["step"], r["error"]) for r in batch.rejects.to_pylist()]
    assert found == [("1", "line 2", "embed", "VectorNotFinite"), ("3", "line 4", "embed", "VectorNotFinite")]
