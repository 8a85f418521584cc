"""The examples of docs/guides/uses.md about a model that gets stale, and about identity by a threshold."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from corpora import WORDS, text, write_jsonl
from drawings import drawing, encoded, save_timm_model
from test_uses import blocks, example, run

from pipelines.backfill import backfill
from pipelines.sync import sync
from schemas.config import Config
from schemas.config.loader import load_config
from transforms import milvus

pytest.importorskip("sklearn", reason="the extra explore is not installed")
NEW = "zebra quagga okapi kudu eland gnu".split()  # noqa: SIM905


def configured(folder: Path, name: str, **values: Any) -> Config:
    given = {"name": name, "checkpoint": "checkpoint", "collection": {"uri": "./milvus.db", "index": {"type": "FLAT"}}}
    (folder / f"{name}.yaml").write_text(json.dumps(given | values))
    return load_config(folder / f"{name}.yaml")


def test_a_stale_model_is_seen_fitted_again_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"id": f"old{n}", "text": text(n)} for n in range(40)])
    encoder = {"model": "lsa", "dimensions": 8}
    allowed = {"max_dropped_tokens": 0.9}
    config = configured(tmp_path, "docs", corpus={"paths": ["*.jsonl"]}, encoder=encoder, verify=allowed)
    backfill(config)
    # The words of the new items are other ones, except for one of each.
    texts = [f"{NEW[n % 6]} {NEW[(n + n // 6) % 6]} {NEW[(n * 5 + 1) % 6]} {WORDS[n % 3]}" for n in range(30)]
    write_jsonl(tmp_path / "b.jsonl", [{"id": f"new{n}", "text": one} for n, one in enumerate(texts)])
    (tmp_path / "log.txt").write_text(f"zebra quagga\n{text(3)}\n")
    report = sync(config)
    assert report.items.new == 30
    assert report.tokens.dropped >= 60
    milvus.release(config.collection)

    seen, again, compared = example("Stale models")
    drift = run(tmp_path, seen, monkeypatch)
    assert (drift["drifted"], drift["items"], drift["earlier_items"]) == (True, 30, 40)
    assert run(tmp_path, again, monkeypatch)["tokens"]["dropped"] < report.tokens.dropped
    moved = run(tmp_path, compared, monkeypatch)
    assert moved["old_space"] != moved["new_space"]
    first = moved["rows"][0]
    assert (first["content"], first["old"], first["rbo"]) == ("zebra quagga", [], 0)
    assert all(item.startswith("new") for item in first["new"][:3])
    assert moved["rows"][1]["old"]
    milvus.release(config.collection)


def test_identity_is_a_threshold_with_the_error_rates_of_labelled_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("timm", reason="the extra image is not installed")
    [pairs] = blocks("csv")
    (tmp_path / "pairs.csv").write_text(pairs)
    listed = list(csv.DictReader(io.StringIO(pairs)))
    people: dict[str, int] = {}
    (tmp_path / "photos").mkdir()
    for name in dict.fromkeys(one for row in listed for one in (row["a"], row["b"])):
        person, number = name.removesuffix(".jpg").split("-")
        shown = drawing(people.setdefault(person, len(people) + 1))
        # The same drawing, smaller and darker.
        shown = shown.resize((72, 60)).point(lambda value: value * 9 // 10) if number == "2" else shown
        (tmp_path / "photos" / name).write_bytes(encoded(shown, "JPEG", quality=85))
    model = save_timm_model(tmp_path / "model")
    config = configured(tmp_path, "people", corpus={"paths": ["photos/*.jpg"]}, encoder={"model": str(model)})
    assert backfill(config).items.new == 6
    milvus.release(config.collection)
    [words] = example("Identity by a threshold")
    found = run(tmp_path, words, monkeypatch)
    assert found["pairs"] == 6
    cosines = vectors(config)
    same = [cosines[row["a"], row["b"]] for row in listed if row["same"] == "1"]
    others = [cosines[row["a"], row["b"]] for row in listed if row["same"] == "0"]
    assert found["false_match_rate"] == pytest.approx(sum(one >= 0.9 for one in others) / 3, abs=1e-6)
    assert found["false_non_match_rate"] == pytest.approx(sum(one < 0.9 for one in same) / 3, abs=1e-6)
    # The threshold at which both rates are equal tells the people apart.
    apart = run(tmp_path, [*words, "--above", str(found["equal_error_above"])], monkeypatch)
    assert (apart["false_match_rate"], apart["false_non_match_rate"], apart["groups"]) == (0, 0, 3)
    groups = {row["item_id"]: row["group"] for row in apart["rows"]}
    assert all((groups[row["a"]] == groups[row["b"]]) == (row["same"] == "1") for row in listed)


def vectors(config: Config) -> dict[tuple[str, str], float]:
    """The cosine of each two items."""
    import numpy as np

    from pipelines.steps.collection.current_rows import current_rows

    seen = current_rows(config).sample("vector")
    names = seen.rows.column("item_id").to_pylist()
    cosines = np.asarray(seen.normalised @ seen.normalised.T)
    return {(a, b): float(cosines[i, j]) for i, a in enumerate(names) for j, b in enumerate(names)}
