"""A trained model: whether it is better, what it was trained on, and its folder, which is written whole."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from pipelines.run.progress import Progress
from schemas.errors import ConfigurationError, GateError, StorageError
from transforms.quality.bootstrap import intervals
from transforms.quality.paired_test import compare
from transforms.quality.retrieval_measures import FIRST
from transforms.train.step_counter import STEPS
from transforms.train.text_training import TrainingSettings
from transforms.train.training_pairs import Pair, PairFile, Split, same

RECORD = "training.json"
"""The file of a trained model that says what it was trained on."""


def check_better(
    figures: Mapping[str, Any],
    before: np.ndarray[Any, Any],
    after: np.ndarray[Any, Any],
    *,
    even_if_not_better: bool,
) -> None:
    """Raises GateError unless the model is better, or `even_if_not_better`."""
    low = figures["difference"]["low"]
    if not even_if_not_better and (low is None or low <= 0):
        raise GateError(
            f"the trained model is not better on {len(before)} held-out queries: nDCG@10 {before.mean():.4f} before "
            f"and {after.mean():.4f} after, difference {_shown(figures['difference'])}; nothing was written",
            "give more pairs, train longer with --epochs, or write it all the same with --even-if-not-better",
        )


def check_place(place: Path) -> None:
    """Raises ConfigurationError unless a folder may be written there."""
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise ConfigurationError(f"--out: {place} exists", "name a folder that does not exist yet")
    parent = next(one for one in (place.absolute().parents) if one.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ConfigurationError(f"--out: can't write into {parent}", "name a folder that may be written")


def training_step(progress: Progress) -> Callable[[int], None]:
    """Begins the step of a training, once it is known how many steps of the trainer it has."""
    return lambda steps: progress.step("train", total=steps, counter=STEPS)


def figures_of(before: np.ndarray[Any, Any], after: np.ndarray[Any, Any], seed: int) -> dict[str, Any]:
    """The figures of a finding: nDCG@10 of the held-out queries before and after, and their difference."""
    paired = compare(before, after, seed)
    first, second = intervals(np.stack([before, after], axis=1), seed)
    return {
        "held_out_queries": len(before),
        f"{FIRST}_before": first.as_json(),
        f"{FIRST}_after": second.as_json(),
        "difference": paired.difference.as_json(),
        "won": paired.won,
        "lost": paired.lost,
    }


def _shown(interval: Mapping[str, float | None]) -> str:
    low, high = interval["low"], interval["high"]
    return f"{interval['value']:+.4f}" + (
        "" if low is None or high is None else f" (95% from {low:+.4f} to {high:+.4f})"
    )


def table_of_queries(held_out: Sequence[Pair], before: np.ndarray[Any, Any], after: np.ndarray[Any, Any]) -> pa.Table:
    """A row for each held-out query, the biggest loss first."""
    queries = list({same(pair.query): pair.query for pair in reversed(held_out)}.items())
    names = dict(queries)
    ordered = list(dict.fromkeys(same(pair.query) for pair in held_out))
    rows: list[dict[str, Any]] = [
        {"query": names[name], "before": round(float(a), 4), "after": round(float(b), 4)}
        for name, a, b in zip(ordered, before, after, strict=True)
    ]
    return pa.Table.from_pylist(sorted(rows, key=lambda row: row["after"] - row["before"]))


def record_of(
    file: PairFile,
    parts: Split,
    base: Mapping[str, Any],
    settings: TrainingSettings,
    held_out: float,
    figures: Mapping[str, Any],
    loss: str,
) -> dict[str, Any]:
    """What a model was trained on.

    Args:
        base: `model`, `revision` and `weights_sha256`.
    """
    packages = ("vecbeam", "sentence-transformers", "transformers", "torch", "datasets", "accelerate")
    return {
        "pairs": {"file": Path(file.path).name, "sha256": file.digest, "count": len(file.pairs)},
        "base": dict(base),
        "split": {
            "share": held_out,
            "trained": len(parts.trained),
            "held_out": len(parts.held_out),
            "left_out": parts.left_out,
            "by": "label" if file.labels else "query",
        },
        "settings": settings._asdict() | {"loss": loss},
        "figures": dict(figures),
        "versions": {name: version(name) for name in packages},
    }


def write_model(save: Callable[[Path], None], place: Path, record: Mapping[str, Any], *, library: str) -> None:
    """Writes the folder under a temporary name next to its place, and renames it once it is whole.

    Args:
        save: writes the model into a folder.
        library: whose model it is; "" for none.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
        try:
            save(temporary)
            (temporary / RECORD).write_bytes(orjson.dumps(record, option=orjson.OPT_INDENT_2))
            (temporary / "README.md").write_text(_card(place.name, record, library=library))
            temporary.chmod(0o755)
            temporary.rename(place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise StorageError(f"--out: can't write {place}: {error}", "check the disk and its rights") from error


def _card(name: str, record: Mapping[str, Any], *, library: str) -> str:
    figures, pairs, base, parts = (record[key] for key in ("figures", "pairs", "base", "split"))
    mined = record.get("negatives")
    rows = {
        "base model": f"{base['model']}, weights {base['weights_sha256'][:12]}",
        "pairs": f"{parts['trained']:,} of {pairs['count']:,} of {pairs['file']}, SHA-256 {pairs['sha256'][:12]}",
        "held out": f"{figures['held_out_queries']:,} queries, by {parts['by']}",
        "nDCG@10 before": f"{figures['ndcg_at_10_before']['value']:.4f}",
        "nDCG@10 after": f"{figures['ndcg_at_10_after']['value']:.4f}",
        "difference": _shown(figures["difference"]),
        **({"hard negatives": f"{mined['count']:,} of {mined['from']}"} if mined else {}),
        "settings": ", ".join(f"{key} {value}" for key, value in record["settings"].items()),
    }
    table = "".join(f"| {key} | {value} |\n" for key, value in rows.items())
    tag = "sentence-similarity" if library == "sentence-transformers" else "zero-shot-image-classification"
    head = f"---\nlibrary_name: {library}\npipeline_tag: {tag}\n---\n" if library else ""
    return f"{head}# {name}\n\nTrained by vecbeam. {RECORD} has all figures.\n\n| | |\n|---|---|\n{table}"
