"""Fitted models in the checkpoint: fitted once, found by every command and worker, fitted again only on request."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from corpora import configure, text, write_jsonl
from typer.testing import CliRunner

from pipelines import reindex as reindexing
from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.gc import gc
from pipelines.load import load
from pipelines.plan import plan
from pipelines.reindex import reindex
from pipelines.rollback import rollback
from pipelines.run import report_text
from pipelines.run.plan_text import text as plan_text
from pipelines.search import search
from pipelines.steps.search.searcher import Searcher
from pipelines.sync import sync
from pipelines.verify import verify
from schemas.config import Config, EncoderConfig
from schemas.errors import ConfigurationError, EncoderError, GateError, RejectsError, SpaceMismatchError
from transforms import milvus
from transforms.encoders import families, resolve, resolve_on_worker
from transforms.encoders.fitted import fitted_files
from transforms.encoders.fitted.kept_fits import KeptFits
from transforms.encoders.fitted.term_model import TermModel
from transforms.encoders.models import Models, corpus_root

pytest.importorskip("sklearn", reason="scikit-learn, which fits these models, is not installed")
LSA = {"model": "lsa", "dimensions": 8}
TFIDF = {"model": "tfidf"}
ALLOWED = {"max_dropped_tokens": 0.9, "max_rejected": 0.9}


def corpus(folder: Path, **changes: Any) -> Config:
    """Forty items of one file, and a configuration."""
    write_jsonl(folder / "corpus" / "a.jsonl", [{"id": f"item-{n}", "text": text(n)} for n in range(40)])
    encoder = {} if "encoders" in changes else {"encoder": LSA}
    return configure(folder, **{**encoder, "verify": ALLOWED, "collection": {"uri": "./milvus.db"}, **changes})


def more(folder: Path) -> None:
    """Five items with words that nobody has seen."""
    write_jsonl(folder / "corpus" / "b.jsonl", [{"id": f"new-{n}", "text": f"{text(n)} zebra"} for n in range(5)])


def fits(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("checkpoint/tested/fitted/*"))


def parts(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("checkpoint/tested/*/parts/*.parquet"))


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path) -> Any:
    """Nothing is found that an earlier test has read; Lite stops after the test."""
    families._FOUND.clear()
    fitted_files._read.cache_clear()
    yield
    for path in tmp_path.glob("**/vecbeam.yaml"):
        from schemas.config.loader import load_config

        milvus.release(load_config(path).collection)


KILLED = """
import os, sys
from pipelines import backfill
from schemas.config.loader import load_config
{patch}
backfill.backfill(load_config(sys.argv[1]))
"""
AFTER_THE_FIT = "backfill.bring_up_to_date = lambda *given, **named: os._exit(9)"
BEFORE_THE_MANIFEST = """
from transforms.support.storage import filesystem
write = filesystem.write_atomic
filesystem.write_atomic = lambda uri, data: os._exit(9) if "manifest" in uri else write(uri, data)
"""


def test_a_run_that_is_killed_at_the_fit_ends_like_any_other(tmp_path: Path) -> None:
    whole = backfill(corpus(tmp_path / "whole"))
    [fit] = whole.fits
    assert (fit.model, fit.vector, fit.items, fit.terms, fit.dimensions) == ("lsa", "vector", 40, 50, 8)
    assert "\nfit       lsa on 40 items in " in report_text.text(whole)
    for name, patch in (("after", AFTER_THE_FIT), ("during", BEFORE_THE_MANIFEST)):
        folder = tmp_path / name
        config = corpus(folder)
        code = KILLED.format(patch=patch)
        done = subprocess.run([sys.executable, "-c", code, str(folder / "vecbeam.yaml")], check=False)
        assert (done.returncode, parts(folder)) == (9, [])
        report = backfill(config)
        assert (report.space, report.snapshot, report.exit_code) == (whole.space, whole.snapshot, 0)
        assert len(report.fits) == (name == "during")
        assert (fits(folder), parts(folder)) == (fits(tmp_path / "whole"), parts(tmp_path / "whole"))


def test_a_sync_embeds_new_items_with_the_model_that_there_is(tmp_path: Path) -> None:
    config = corpus(tmp_path)
    first = backfill(config)
    again = backfill(config)
    assert (again.chunks.embedded, again.space, again.steps.count("fit")) == (0, first.space, 0)
    more(tmp_path)
    report = sync(config)
    assert (report.items.new, report.chunks.embedded, report.space) == (5, 5, first.space)
    assert report.tokens.dropped == 5  # zebra
    assert len(fits(tmp_path)) == 1
    assert verify(config).verify.missing == 0
    assert load(config, rebuild=True).space == first.space
    assert search(config, text(7), k=1)[0]["item_id"] in ("item-7", "new-2")


def test_a_refit_publishes_another_space_and_searchers_follow(tmp_path: Path) -> None:
    config = corpus(tmp_path, encoder=TFIDF)
    first = backfill(config)
    more(tmp_path)
    sync(config)
    searcher = Searcher(config)
    with pytest.raises(ConfigurationError, match="can't search for 'zebra'"):
        searcher.search(["zebra"])
    report = reindex(config, refit=True)
    assert report.reason == reindexing.REFIT
    assert (report.space != first.space, report.chunks.embedded, report.tokens.dropped) == (True, 45, 0)
    assert len(fits(tmp_path)) == 2
    assert searcher.search([text(3)], 1).hits[0][0]["item_id"] in ("item-3", "new-3")
    assert searcher.search(["zebra"], 1).hits[0][0]["item_id"].startswith("new-")
    searcher.close()
    assert sync(config).space == report.space
    assert reindex(config, refit=True).chunks.embedded == 0  # the same corpus gives the same model
    back = rollback(config)
    assert back.exit_code == 0
    with pytest.raises(ConfigurationError, match="zebra"):
        search(config, "zebra")
    assert (verify(config).exit_code, sync(config).space) == (0, first.space)


def test_a_refit_that_does_not_pass_the_gate_changes_nothing_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = corpus(tmp_path, encoder=TFIDF)
    first = backfill(config)
    more(tmp_path)
    sync(config)

    def refused(*given: object, **named: object) -> None:
        raise GateError("recall is 0.1", "raise ef")

    with monkeypatch.context() as patched:
        patched.setattr(reindexing, "publish", refused)
        with pytest.raises(GateError):
            reindex(config, refit=True)
    write_jsonl(tmp_path / "corpus" / "c.jsonl", [{"id": "last", "text": "elk elk elk"}])
    report = sync(config)
    assert (report.space, report.chunks.embedded) == (first.space, 1)
    assert search(config, "elk", k=1)[0]["item_id"] == "last"
    assert verify(config).exit_code == 0


def test_other_settings_are_another_model(tmp_path: Path) -> None:
    config = corpus(tmp_path)
    first = backfill(config)
    other = corpus(tmp_path, encoder={**LSA, "fit": {"ngrams": 2}})
    for command in (sync, verify):
        with pytest.raises(SpaceMismatchError) as raised:
            command(other)
        assert "'ngrams': 2" in raised.value.message
        assert "vecbeam reindex" in raised.value.remedy
    with pytest.raises(ConfigurationError, match="holds no lsa that was fitted with these settings"):
        search(other, "elk")
    planned = plan(other)
    assert (planned.action, planned.space, planned.fits[0].items) == ("reindex", "", 40)
    report = reindex(other)
    assert (report.space != first.space, report.chunks.embedded, len(fits(tmp_path))) == (True, 40, 2)
    assert plan(other).fits == []
    assert sync(other).space == report.space
    # A setting that the fit does not depend on needs no other fit.
    longer = corpus(tmp_path, encoder={**LSA, "normalize": False, "fit": {"ngrams": 2}})
    assert "fit" not in reindex(longer).steps
    assert len(fits(tmp_path)) == 2


@pytest.mark.parametrize("model", ["tfidf", "lsa", "word2vec", "hashing"])
def test_a_plan_before_the_first_run_says_what_is_fitted(model: str, tmp_path: Path) -> None:
    if model == "word2vec":
        pytest.importorskip("gensim", reason="gensim, which fits word2vec, is not installed")
    sparse = model in ("tfidf", "hashing")
    encoder = {"model": model} if sparse else {"model": model, "dimensions": 8}
    config = corpus(tmp_path, encoder=encoder)
    planned = plan(config)
    assert (planned.action, planned.items.new, planned.chunks.value) == ("backfill", 40, 40)
    assert not (tmp_path / "checkpoint").exists()
    if model == "hashing":
        assert (planned.fits, len(planned.space)) == ([], 16)
        return
    assert [(one.vector, one.model, one.items) for one in planned.fits] == [("vector", model, 40)]
    assert f"to fit      {model} on 40 items, before anything is embedded\n" in plan_text(planned)
    assert planned.space == ""
    assert planned.seconds.measured == "a calibration of 6 s"
    small = corpus(tmp_path, encoder={**encoder, "fit": {"sample": 30}})
    assert plan(small).fits[0].items == 30


def test_a_fitted_model_that_is_damaged_is_named_and_a_refit_restores_it(tmp_path: Path) -> None:
    config = corpus(tmp_path)
    first = backfill(config)
    [folder] = (tmp_path / "checkpoint" / "tested" / "fitted").iterdir()
    for name, damage in (
        ("arrays.safetensors", lambda file: file.write_bytes(file.read_bytes()[:-4])),
        ("terms.json", lambda file: file.unlink()),
        ("manifest.json", lambda file: file.write_text(file.read_text().replace("40", "41"))),
        ("manifest.json", lambda file: file.write_text("{")),
        ("manifest.json", lambda file: file.unlink()),
    ):
        fresh_start()
        damage(folder / name)
        more(tmp_path)
        for command in (sync, lambda given: search(given, "elk")):
            with pytest.raises(EncoderError) as raised:
                command(config)
            assert str(folder) in raised.value.message
            assert name in raised.value.message
            assert raised.value.remedy.endswith("embeds everything with it")
        fresh_start()
        (tmp_path / "corpus" / "b.jsonl").unlink()
        report = reindex(config, refit=True)
        assert (report.space, report.chunks.embedded, report.exit_code) == (first.space, 0, 0)
        assert search(config, text(5), k=1)[0]["item_id"] == "item-5"


def fresh_start() -> None:
    """Forgets what this process has read."""
    families._FOUND.clear()
    fitted_files._read.cache_clear()


def test_an_object_store_keeps_models_too(s3_bucket: tuple[Any, str]) -> None:
    client, bucket = s3_bucket
    model = resolve(EncoderConfig(**TFIDF))
    assert isinstance(model, TermModel)
    fitted = model.fit([text(n) for n in range(20)])
    root = f"s3://{bucket}/checkpoint/tested"
    kept = fitted.kept_in(root)
    assert kept.fitted is not None
    assert KeptFits(root).find(model.fit_facts) == fitted.fitted
    again = resolve_on_worker(EncoderConfig(**TFIDF), fitted.space.id, fitted.space, root)
    fresh_start()
    assert again.load().encode(again.probe).vectors == fitted.load().encode(fitted.probe).vectors
    folder = kept.fitted.folder.removeprefix(f"s3://{bucket}/")
    client.delete_object(Bucket=bucket, Key=f"{folder}/manifest.json")
    assert KeptFits(root).find(model.fit_facts) is None
    with pytest.raises(EncoderError, match=r"is incomplete: there is no manifest\.json"):
        KeptFits(root, lambda: [fitted.space]).find(model.fit_facts)


def test_a_model_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "newer"
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps({"format": 2}))
    with pytest.raises(EncoderError, match="has format 2; this vecbeam reads format 1"):
        fitted_files.open_fitted(str(folder))


def test_a_corpus_without_items_is_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": "a", "body": "elk"}, {"id": "b", "body": "fox"}])
    config = configure(tmp_path, encoder=TFIDF)
    with pytest.raises(ConfigurationError, match=r"corpus\.content"):
        backfill(config)
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": "a", "text": " "}])
    with pytest.raises(RejectsError) as raised:
        backfill(config)
    assert raised.value.message == "the corpus holds no item, so that tfidf can't be fitted on it"
    assert raised.value.report.rejects == {"EmptyText": 1}
    assert fits(tmp_path) == []
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": "a", "text": "elk fox gnu hen ibis jay kite lynx mole"}])
    with pytest.raises(ConfigurationError, match="8 is more than the 1 directions"):
        backfill(configure(tmp_path, encoder=LSA))


def test_what_has_no_known_term_is_a_reject(tmp_path: Path) -> None:
    config = corpus(tmp_path, encoder=TFIDF)
    backfill(config)
    write_jsonl(tmp_path / "corpus" / "b.jsonl", [{"id": "bad", "text": "zebra zebu"}, {"id": "worse", "text": "the"}])
    report = sync(config)
    assert report.rejects == {"UnknownWords": 2}
    [file] = tmp_path.glob("checkpoint/tested/*/rejects/*.parquet")
    reasons = {row["id"]: row["reason"] for row in pq.read_table(file).to_pylist()}
    assert reasons["bad"].startswith("chunk 0: none of its 2 terms is among those that tfidf was fitted on")
    assert reasons["worse"].startswith("chunk 0: the text has no term: only stop words")


def test_a_refit_of_what_is_not_fitted_is_refused(tmp_path: Path) -> None:
    for encoder in ({"model": "fake"}, {"model": "hashing"}):
        corpus(tmp_path, encoder=encoder)
        done = CliRunner().invoke(app, ["reindex", str(tmp_path / "vecbeam.yaml"), "--refit", "--json"])
        error = json.loads(done.stdout)["error"]
        assert done.exit_code == 2
        assert error["message"] == f"--refit: {encoder['model']} is not fitted on the corpus"


def test_gc_removes_models_that_made_nothing_that_is_kept(tmp_path: Path) -> None:
    config = corpus(tmp_path, encoder=TFIDF)
    backfill(config)
    [first] = fits(tmp_path)
    more(tmp_path)
    reindex(config, refit=True)
    assert not any("fitted" in uri for uri in gc(config).files)
    found = gc(config, keep=0, yes=True)
    assert sum(f"fitted/{first}/" in uri for uri in found.files) == 3
    assert len(fits(tmp_path)) == 1
    assert first not in fits(tmp_path)
    fresh_start()
    assert search(config, "zebra", k=1)[0]["item_id"].startswith("new-")


def test_several_vectors_of_a_row_are_fitted_in_one_reading(tmp_path: Path) -> None:
    encoders = {"vector": {"model": "fake", "dimensions": 8}, "topics": LSA, "words": TFIDF}
    config = corpus(tmp_path, encoders=encoders)
    assert [one.model for one in plan(config).fits] == ["lsa", "tfidf"]
    report = backfill(config)
    assert (report.verify.found, len(fits(tmp_path)), report.steps.count("fit")) == (40, 2, 1)
    fresh_start()
    more(tmp_path)
    assert sync(config).chunks.embedded == 5
    for vector in encoders:
        assert search(config, text(4), k=1, vector=vector)[0]["item_id"] in ("item-4", "new-4")
    assert search(config, "elk fox", k=3, vector=["topics", "words"])
    again = reindex(config, refit=True)
    assert (again.chunks.embedded, len(fits(tmp_path))) == (45, 4)


def test_a_worker_reads_the_model_of_the_run_from_the_checkpoint(tmp_path: Path) -> None:
    config = corpus(tmp_path)
    backfill(config)
    more(tmp_path)
    newer = reindex(config, refit=True)
    fresh_start()
    for folder in (tmp_path / "checkpoint" / "tested").glob("*/space.json"):
        from schemas.layout import Space

        space = Space(json.loads(folder.read_text())["space"])
        model = resolve_on_worker(config.encoder, space.id, space, corpus_root(config))
        assert model.space == space
        assert model.load().encode(model.probe).matrix.shape == (1, 8)
    with pytest.raises(EncoderError, match=r"is incomplete: there is no manifest\.json"):
        resolve_on_worker(config.encoder, newer.space, space, str(tmp_path / "elsewhere"))
    assert resolve(config.encoder).space != space
    assert [*Models.of(config).to_fit] == []


def _check_rows(batch: Any) -> None:
    assert batch[1].num_rows == 40
    assert {len(vector) for vector in batch[1].column("vector").to_pylist()} == {8}


def test_public_transforms_use_the_model_of_the_checkpoint(tmp_path: Path) -> None:
    import apache_beam as beam

    from vecbeam import Chunk, Embed, ReadItems

    config = corpus(tmp_path)
    path = str(tmp_path / "vecbeam.yaml")

    def embed() -> None:
        with beam.Pipeline(runner="FnApiRunner") as pipeline:
            chunks = (pipeline | ReadItems(path)).batches | Chunk(path)
            _ = (chunks.batches | Embed(path)).batches | beam.Map(_check_rows)

    with pytest.raises(ConfigurationError, match="holds no lsa that was fitted"):
        embed()
    backfill(config)
    embed()
