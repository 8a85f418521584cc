"""Models that are fitted on the corpus: vectors against scikit-learn's and gensim's own, alone and in the pipeline."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import configure, text, write_jsonl

from pipelines.backfill import backfill
from pipelines.search import find
from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError, MissingExtraError
from transforms import milvus
from transforms.encoders import resolve, text_inputs
from transforms.encoders.fitted.term_model import TermModel
from transforms.read.item_sample import ItemSample
from transforms.support.vectors import matrix_of

pytest.importorskip("sklearn", reason="scikit-learn, which fits these models, is not installed")
TEXTS = {f"item-{number}": f"{text(number)} on the hill" for number in range(60)}
FAMILIES: dict[str, dict[str, Any]] = {
    "tfidf": {},
    "lsa": {"dimensions": 12},
    "projection": {"dimensions": 16},
    "hashing": {},
    "word2vec": {"dimensions": 16, "fit": {"min_count": 1, "epochs": 3}},
}
SPARSE = ("tfidf", "hashing")
CRANFIELD = Path(__file__).parents[2] / "shared" / "data" / "cranfield"
family = pytest.mark.parametrize("name", FAMILIES)


def needs(name: str) -> None:
    if name == "word2vec":
        pytest.importorskip("gensim", reason="gensim, which fits word2vec, is not installed")


def model_of(name: str, **more: Any) -> TermModel:
    model = resolve(EncoderConfig(model=name, **{**FAMILIES[name], **more}))
    assert isinstance(model, TermModel)
    return model


def fitted(name: str, texts: list[str], **more: Any) -> TermModel:
    model = model_of(name, **more)
    return model.fit(texts) if model.needs_fit else model


def sampled() -> list[str]:
    """The texts in the order in which a model is fitted on them."""
    sample = ItemSample(1000, 0)
    sample.add(pa.table({"item_id": list(TEXTS), "@content": list(TEXTS.values())}))
    return sample.texts


def dense(vectors: pa.Array, dimensions: int) -> Any:
    """Vectors of any kind as float32[n, dimensions]."""
    if not pa.types.is_struct(vectors.type):
        return matrix_of(vectors)
    rows = np.zeros((len(vectors), dimensions), np.float32)
    for row, vector in zip(rows, vectors.to_pylist(), strict=True):
        row[vector["indices"]] = vector["values"]
    return rows


def by_the_library(name: str, texts: list[str], wanted: list[str]) -> Any:
    """Vectors of the wanted texts by the libraries alone, fitted on some texts: float64[n, dimensions]."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import normalize
    from sklearn.random_projection import GaussianRandomProjection

    weights = TfidfVectorizer(sublinear_tf=True, stop_words="english")
    if name == "tfidf":
        return weights.fit(texts).transform(wanted).toarray()
    if name == "lsa":
        return normalize(make_pipeline(weights, TruncatedSVD(12, random_state=0)).fit(texts).transform(wanted))
    if name == "projection":
        steps = make_pipeline(weights, GaussianRandomProjection(16, random_state=0))
        return normalize(steps.fit(texts).transform(wanted))
    if name == "hashing":
        return (
            HashingVectorizer(n_features=2**18, stop_words="english", alternate_sign=False).transform(wanted).toarray()
        )
    from gensim.models import Word2Vec

    words = TfidfVectorizer()
    split = words.build_analyzer()
    sentences = [split(one) for one in texts]
    vectors = Word2Vec(sentences, vector_size=16, window=8, min_count=1, sg=1, epochs=3, seed=0, workers=1).wv
    idf = dict(zip(words.fit(texts).get_feature_names_out(), words.idf_, strict=True))
    return normalize([np.mean([idf[word] * vectors[word] for word in split(one)], axis=0) for one in wanted])


def assert_same(found: Any, expected: Any) -> None:
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    assert (np.einsum("ij,ij->i", found, expected) / lengths).min() >= 0.9999


@family
def test_a_whole_run_stores_the_library_s_own_vectors(name: str, tmp_path: Path) -> None:
    needs(name)
    write_jsonl(tmp_path / "corpus" / "items.jsonl", [{"id": key, "text": one} for key, one in TEXTS.items()])
    encoder = {"model": name, **FAMILIES[name]}
    config = configure(tmp_path, encoder=encoder, collection={"uri": "./milvus.db"})
    report = backfill(config)
    assert (report.items.new, report.verify.found, report.rejects) == (60, 60, {})
    assert report.runtime["engine"] == "scikit-learn"
    [part] = tmp_path.glob("checkpoint/tested/*/parts/*.parquet")
    rows = pq.read_table(part)
    expected = by_the_library(name, sampled(), rows.column("text").to_pylist())
    assert_same(dense(rows.column("vector").combine_chunks(), expected.shape[1]), expected)
    with milvus.connected(config.collection) as connection:
        connection.client.load_collection("tested")
        [row] = connection.client.query("tested", filter='item_id == "item-7"', output_fields=["vector"])
    at = rows.column("item_id").to_pylist().index("item-7")
    served = np.zeros_like(expected[:1])
    served[0, list(row["vector"]) if name in SPARSE else slice(None)] = (
        list(row["vector"].values()) if name in SPARSE else row["vector"]
    )
    assert_same(served, expected[at : at + 1])
    found = find(config, TEXTS["item-11"], k=1)
    assert (found.metric, found.hits[0][0]["item_id"]) == ("IP" if name in SPARSE else "COSINE", "item-11")
    assert found.hits[0][0]["score"] == pytest.approx(1, abs=1e-4)
    milvus.release(config.collection)


@family
def test_a_text_has_one_vector_alone_and_in_any_batch(name: str) -> None:
    needs(name)
    encoder = fitted(name, sampled()).load()
    texts = [*TEXTS.values(), " ".join(TEXTS.values()), "elk", "elk elk elk"]

    def embedded(given: list[str]) -> list[Any]:
        return list(encoder.encode(text_inputs(given)).vectors.to_pylist())

    together = embedded(texts)
    assert [embedded([one])[0] for one in texts] == together
    order = random.Random(0).sample(range(len(texts)), len(texts))
    shuffled = embedded([texts[at] for at in order])
    assert [shuffled[order.index(at)] for at in range(len(texts))] == together


def test_the_same_corpus_gives_the_same_models_in_another_process() -> None:
    needs("word2vec")
    code = "from test_classical import *\nprint([fitted(name, sampled()).space.id for name in FAMILIES])"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": f".{os.pathsep}tests"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([fitted(name, sampled()).space.id for name in FAMILIES])


FACTS = {"tfidf": 0.356, "lsa": 0.401, "hashing": 0.32, "projection": 0.257}


@pytest.mark.parametrize("name", FACTS)
@pytest.mark.skipif(not CRANFIELD.is_dir(), reason="the Cranfield collection is not on this machine")
def test_retrieval_on_cranfield_is_what_scikit_learn_gives(name: str) -> None:
    """By exact search; `benchmarks/retrieval.py` does it through the pipeline."""
    from benchmarks.cranfield import ndcg, read_judgements

    documents = [json.loads(line) for line in (CRANFIELD / "docs.jsonl").read_text().splitlines()]
    queries, relevant = read_judgements(CRANFIELD)
    texts = [document["text"] for document in documents]
    model = fitted(name, texts, dimensions={"lsa": 200, "projection": 384, "hashing": 2**14}.get(name))
    encoder = model.load()
    matrices = [
        dense(encoder.encode(text_inputs(some)).vectors, model.dimensions) for some in (queries.values(), texts)
    ]
    scores = matrices[0] @ matrices[1].T
    best = {
        query: [documents[at]["id"] for at in np.argsort(-row, kind="stable")[:10]]
        for query, row in zip(queries, scores, strict=True)
    }
    assert ndcg(best, relevant) == pytest.approx(FACTS[name], abs=0.01)


def test_a_sample_does_not_depend_on_the_order_of_the_corpus() -> None:
    items = list(TEXTS.items())

    def texts(order: list[tuple[str, str]], *limits: int, seed: int = 0) -> list[str]:
        sample = ItemSample(limits[0], seed, *limits[1:])
        for start in range(0, len(order), 7):
            some = order[start : start + 7]
            sample.add(pa.table({"item_id": [key for key, _ in some], "@content": [one for _, one in some]}))
        return sample.texts

    for limits in ((20,), (1000,), (1000, 500), (20, 300)):
        assert texts(items, *limits) == texts(items[::-1], *limits) == texts(items[30:] + items[:30], *limits)
    assert len(texts(items, 20)) == 20
    assert texts(items, 1000)[:20] == texts(items, 20)
    assert 400 < sum(map(len, texts(items, 1000, 500))) <= 500
    assert texts(items, 20) != texts(items, 20, seed=1)


@pytest.mark.parametrize("name", ["tfidf", "lsa", "word2vec"])
def test_words_that_were_not_in_the_fit_are_dropped_and_counted(name: str) -> None:
    needs(name)
    found = fitted(name, sampled()).load().encode(text_inputs(["elk zebra", "zebra", "a the -", "elk"]))
    assert found.dropped.tolist()[:2] == [1, 1]
    if name == "word2vec":  # without stop words
        assert found.refused == {
            1: ("UnknownWords", f"its term is not among those that {name} was fitted on, so that it has no vector")
        }
    else:
        assert {row: error for row, (error, _) in found.refused.items()} == {1: "UnknownWords", 2: "UnknownWords"}
        assert found.refused[2][1] == "the text has no term: only stop words, single characters and punctuation"


@pytest.mark.parametrize(
    ("name", "settings", "texts", "says"),
    [
        ("lsa", {"dimensions": 80}, 60, "80 is more than the 60 directions in which the 60 items"),
        ("lsa", {"dimensions": 8}, 5, "8 is more than the 5 directions in which the 5 items"),
        ("projection", {"dimensions": 300}, 60, r"300 is more than the \d+ terms of the 60 items"),
        ("tfidf", {"fit": {"min_df": 61}}, 60, r"within min_df 61 and max_df 1\.0"),
        ("tfidf", {"fit": {"max_df": 0.01}}, 60, r"within min_df 1 and max_df 0\.01"),
        ("word2vec", {"fit": {"min_count": 1000}}, 60, "no word occurs 1000 times in the 60 items"),
    ],
)
def test_a_corpus_that_is_too_small_is_refused(name: str, settings: dict[str, Any], texts: int, says: str) -> None:
    needs(name)
    with pytest.raises(ConfigurationError, match=says) as raised:
        fitted(name, sampled()[:texts], **settings)
    assert raised.value.message.startswith("encoder.")
    assert raised.value.remedy.startswith(("set encoder.", "lower encoder."))


@pytest.mark.parametrize("name", ["tfidf", "lsa", "projection", "word2vec"])
@pytest.mark.parametrize("only", ["the and of", "7 8 9", "- ! ?"])
def test_a_corpus_without_a_term_is_refused(name: str, only: str) -> None:
    needs(name)
    if name == "word2vec" and only == "the and of":
        return  # all words are terms
    with pytest.raises(ConfigurationError, match=f"the 3 items that {name} is fitted on have no term"):
        fitted(name, [only] * 3)


def test_texts_that_are_all_equal_have_one_direction() -> None:
    with pytest.raises(ConfigurationError, match="2 is more than the 1 directions") as raised:
        fitted("lsa", ["elk fox gnu"] * 40, dimensions=2)
    assert raised.value.remedy == "set encoder.dimensions: 1, or less"
    model = fitted("lsa", ["elk fox gnu"] * 40, dimensions=1)
    assert np.allclose(np.abs(model.load().encode(text_inputs(["elk fox gnu"])).matrix), 1)


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("all-MiniLM-L6-v2", {"fit": {"sample": 5}}, r"encoder\.fit: all-MiniLM-L6-v2 is not fitted on the corpus"),
        ("fake", {"fit": {}}, r"encoder\.fit: fake is not fitted on the corpus"),
        ("hashing", {"fit": {"sample": 5}}, r"encoder\.fit\.sample: hashing does not have it"),
        ("tfidf", {"fit": {"window": 5}}, r"encoder\.fit\.window: tfidf does not have it"),
        ("word2vec", {"fit": {"ngrams": 2}}, r"encoder\.fit\.ngrams: word2vec does not have it"),
        ("tfidf", {"dimensions": 64}, r"encoder\.dimensions: tfidf makes sparse vectors"),
        ("lsa", {"prompt": "query: "}, r"encoder\.prompt: a prompt is more words"),
        ("lsa", {"precision": "int8"}, r"encoder\.precision: lsa has no int8"),
        ("lsa", {"revision": "main"}, r"encoder\.revision: lsa is fitted on the corpus"),
        ("tfidf", {"engine": "openvino"}, r"encoder\.engine: tfidf runs on scikit-learn .* not on openvino"),
        ("hashing", {"device": "cuda"}, r"encoder\.device: hashing runs on scikit-learn"),
        ("lsa", {"max_tokens": 40_000}, "40000 is more than the model's 32768"),
    ],
)
def test_what_a_model_does_not_have_is_refused(name: str, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        resolve(EncoderConfig(model=name, **settings))


def test_settings_change_the_space_and_only_those_that_change_vectors() -> None:
    texts = sampled()
    base = fitted("tfidf", texts).space
    assert fitted("tfidf", texts, batch_tokens=64).space == base
    plain = fitted("tfidf", texts, fit={"sublinear_tf": False}).space
    assert any("sublinear_tf" in one for one in base.differences(plain))
    assert any("dimensions" in one for one in base.differences(fitted("tfidf", texts, fit={"ngrams": 2}).space))
    long = fitted("tfidf", texts, normalize=False)
    vectors = dense(long.load().encode(text_inputs(texts)).vectors, long.dimensions)
    assert long.space != base
    assert np.linalg.norm(vectors, axis=1).min() > 1.5


def test_the_longest_texts_are_cut_and_counted() -> None:
    encoder = fitted("tfidf", sampled(), max_tokens=8).load()
    found = encoder.encode(text_inputs(["elk fox " * 10]))
    assert (found.amount.tolist(), found.dropped.tolist()) == ([8], [12])


def test_the_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from transforms.support import extras

    monkeypatch.setattr(extras, "is_installed", lambda *names: "gensim" not in names and "sklearn" not in names)
    with pytest.raises(MissingExtraError) as raised:
        model_of("word2vec").fit(sampled())
    assert raised.value.remedy == "pip install 'vecbeam[classical]'"
    assert "sklearn, gensim is not installed" in raised.value.message
