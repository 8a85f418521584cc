"""`vecbeam train PAIRS`: a text model from a user's own pairs; with `--histories`, vectors of items from histories."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from pipelines.steps.results.finding import Finding
from schemas.config import Config, EncoderConfig
from schemas.errors import ConfigurationError, GateError, StorageError
from transforms.encoders.families import resolve
from transforms.encoders.model_source import ModelSource
from transforms.encoders.sentence_transformers import SentenceTransformersModel
from transforms.encoders.static_embedding import StaticModel
from transforms.quality.bootstrap import intervals
from transforms.quality.paired_test import compare
from transforms.quality.retrieval_measures import FIRST, check_measures
from transforms.train import item_vectors, own_words, text_training
from transforms.train.text_training import TrainingSettings
from transforms.train.training_pairs import Pair, PairFile, Split, read_pairs, same, split

RECORD = "training.json"
"""The file of a trained model that says what it was trained on."""
DEFAULT = TrainingSettings()
OWN_WORDS = TrainingSettings(epochs=20, learning_rate=0.05)
"""How vectors of words are trained that start as random ones."""
DIMENSIONS = 64


@dataclass(frozen=True)
class StartingModel:
    """The model to start from: its configuration, folder and facts."""

    config: EncoderConfig
    folder: Path
    model: SentenceTransformersModel | StaticModel


def train(
    pairs: str | Path,
    out: str | Path,
    config: Config | None = None,
    *,
    model: str = "",
    revision: str | None = None,
    vector: str = "",
    held_out: float = 0.2,
    settings: TrainingSettings | None = None,
    even_if_not_better: bool = False,
    dimensions: int = DIMENSIONS,
) -> Finding:
    """Trains a model on pairs, and writes it as a folder if it is better on the queries that were held out.

    Args:
        pairs: JSON lines; see `transforms.train.training_pairs`.
        out: a folder that does not exist yet, on this machine.
        config: whose encoder is the base, unless `model` is given.
        model, revision: the base: a catalogue name, a hub id or a folder. `static` is without a base: random vectors
            of the words of the training part, which become a file `words.vec` in the folder.
        vector: the vector of the configuration whose encoder is the base; by default the first.
        held_out: the share of the queries that is held out.
        settings: by default `DEFAULT`, or `OWN_WORDS` for `static`.
        even_if_not_better: writes the model whatever the figures are.
        dimensions: of the vectors of `static`.

    Returns:
        A finding with a row for each held-out query: nDCG@10 before and after, the biggest loss first.

    Raises:
        ConfigurationError: for a wrong file or option, or a base that is not of sentence-transformers.
        MissingExtraError: if the extra `train` or `explore` is not installed.
        GateError: if the model is not better: the 95% interval of the difference includes 0. Nothing is written.
        StorageError: if the folder can't be written.
    """
    text_training.check_training()
    check_measures("vecbeam train")
    is_own = model == own_words.NAME
    settings = settings or (OWN_WORDS if is_own else DEFAULT)
    _check_settings(settings, dimensions)
    place = Path(out)
    _check_place(place)
    file = read_pairs(str(pairs), settings.seed)
    parts = split(file.pairs, held_out, settings.seed, file.labels)
    with tempfile.TemporaryDirectory(prefix="vecbeam-words-") as folder:
        if is_own:
            texts = [text for pair in parts.trained for text in pair if text]
            own_words.save_random_words(Path(folder) / "words", texts, dimensions, settings.seed)
        base = _base(config, str(Path(folder) / "words") if is_own else model, revision, vector)
        loaded = text_training.load(base.folder, base.model.facts)
    facts = base.model.facts
    candidates = _candidates(file.pairs, parts.held_out)
    hidden = {same(text) for pair in parts.held_out for text in pair[:2]}
    before = text_training.scores(loaded, facts, parts.held_out, candidates)
    minable = [text for text in candidates if same(text) not in hidden]
    trained = text_training.train(loaded, facts, parts.trained, settings, minable)
    after = text_training.scores(loaded, facts, parts.held_out, candidates)
    figures = {**_figures(before, after, settings.seed), "trained_pairs": len(parts.trained), **trained}
    check_better(figures, before, after, even_if_not_better=even_if_not_better)
    named = own_words.NAME if is_own else base.config.model
    record = _record(file, parts, base, named, settings, held_out, figures)
    _write(partial(own_words.write_words if is_own else _save, loaded), place, record, is_library=not is_own)
    notes = [*file.notes]
    if parts.left_out:
        notes.append(f"{parts.left_out:,} pairs share a text with the held-out part: left out of the training")
    if is_own:
        notes.append(f"encoder.model is {place / own_words.FILE}")
    return Finding(
        f"Training on {len(parts.trained):,} pairs",
        {"pairs": str(pairs), "base": named, "out": str(place)},
        figures,
        _table(parts.held_out, before, after),
        notes,
    )


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


def train_items(
    histories: str | Path,
    out: str | Path,
    *,
    dimensions: int = DIMENSIONS,
    epochs: int = 20,
    least: int = 2,
    seed: int = 0,
) -> Finding:
    """Trains vectors of items on histories, and writes them as a file of word vectors.

    Raises:
        ConfigurationError: for a wrong file or option.
        MissingExtraError: if the extra `classical` is not installed.
        CheckpointError: if the file can't be written.
    """
    place = Path(out)
    if place.suffix != ".vec":
        raise ConfigurationError(f"--out: {place} does not end with .vec", f"for example {place.with_suffix('.vec')}")
    if place.exists():
        raise ConfigurationError(f"--out: {place} exists", "name another file, or remove it")
    for key, value in (("--dimensions", dimensions), ("--epochs", epochs), ("--least", least)):
        if value < 1:
            raise ConfigurationError(f"{key}: {value} is not a number from 1 on", "leave it out for the default")
    read = item_vectors.read_histories(str(histories))
    count = item_vectors.write_item_vectors(place, read.items, dimensions, epochs, least, seed)
    everything = {item for items in read.items for item in items}
    figures = {"items": count, "without_vector": len(everything) - count, "histories": len(read.items)}
    notes = [f"items in fewer than {least} histories have no vector"] if count < len(everything) else []
    basis = {"histories_file": str(histories), "out": str(place)}
    return Finding(f"Vectors of {count:,} items", basis, figures, pa.table({}), notes)


def check_words(pairs: str, histories: str, out: Path | None) -> None:
    """Raises ConfigurationError unless the command names one file to train on, and what to write."""
    if bool(pairs) == bool(histories):
        raise ConfigurationError(
            "PAIRS and --histories are both given" if pairs else "there is nothing to train on",
            "write vecbeam train pairs.jsonl --out model, or vecbeam train --histories FILE --out items.vec",
        )
    if out is None:
        raise ConfigurationError("--out: not given", "name the folder of the model, or the file of item vectors")


def _base(config: Config | None, model: str, revision: str | None, vector: str) -> StartingModel:
    if model:
        encoder = EncoderConfig(model=model, revision=revision)
        key = f"--model {model}"
    elif config is not None:
        from pipelines.steps.collection.query_model import vector_named

        encoder = config.vectors[vector_named(config, vector)]
        key = f"encoder.model: {encoder.model}"
    else:
        raise ConfigurationError("there is no base model", "name a configuration, or --model")
    found = resolve(encoder)
    if not isinstance(found, (SentenceTransformersModel, StaticModel)):
        raise ConfigurationError(
            f"{key} is not a model of sentence-transformers", "train all-MiniLM-L6-v2, for example: --model NAME"
        )
    return StartingModel(encoder, ModelSource(encoder).folder(), found)


def _check_settings(settings: TrainingSettings, dimensions: int) -> None:
    if dimensions < 1:
        raise ConfigurationError(f"--dimensions: {dimensions} is not a number from 1 on", "for example 64")
    least = {"epochs": 1, "batch": 2, "hard_negatives": 0}
    for name, smallest in least.items():
        if getattr(settings, name) < smallest:
            key = f"--{name.replace('_', '-')}"
            raise ConfigurationError(
                f"{key}: {getattr(settings, name)} is less than {smallest}", "give a larger number"
            )
    if not 0 < settings.learning_rate < 1:
        raise ConfigurationError(
            f"--learning-rate: {settings.learning_rate} is not between 0 and 1", "for example 2e-5"
        )


def _check_place(place: Path) -> None:
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise ConfigurationError(f"--out: {place} exists", "name a folder that does not exist yet")
    parent = next(one for one in (place.absolute().parents) if one.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ConfigurationError(f"--out: can't write into {parent}", "name a folder that may be written")


def _candidates(pairs: Sequence[Pair], held_out: Sequence[Pair]) -> list[str]:
    """The different texts that answer queries, or do not, in the order of the file."""
    found: dict[str, str] = {}
    for pair in (*pairs, *held_out):
        for text in pair[1:]:
            if text:
                found.setdefault(same(text), text)
    return list(found.values())


def _figures(before: np.ndarray[Any, Any], after: np.ndarray[Any, Any], seed: int) -> dict[str, Any]:
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


def _table(held_out: Sequence[Pair], before: np.ndarray[Any, Any], after: np.ndarray[Any, Any]) -> pa.Table:
    queries = list({same(pair.query): pair.query for pair in reversed(held_out)}.items())
    names = dict(queries)
    ordered = list(dict.fromkeys(same(pair.query) for pair in held_out))
    rows: list[dict[str, Any]] = [
        {"query": names[name], "before": round(float(a), 4), "after": round(float(b), 4)}
        for name, a, b in zip(ordered, before, after, strict=True)
    ]
    return pa.Table.from_pylist(sorted(rows, key=lambda row: row["after"] - row["before"]))


def _record(
    file: PairFile,
    parts: Split,
    base: StartingModel,
    named: str,
    settings: TrainingSettings,
    held_out: float,
    figures: Mapping[str, Any],
) -> dict[str, Any]:
    facts = base.model.facts
    packages = ("vecbeam", "sentence-transformers", "transformers", "torch", "datasets", "accelerate")
    return {
        "pairs": {"file": Path(file.path).name, "sha256": file.digest, "count": len(file.pairs)},
        "base": {"model": named, "revision": base.config.revision, "weights_sha256": facts.weights},
        "split": {
            "share": held_out,
            "trained": len(parts.trained),
            "held_out": len(parts.held_out),
            "left_out": parts.left_out,
            "by": "label" if file.labels else "query",
        },
        "settings": settings._asdict() | {"loss": "MultipleNegativesRankingLoss"},
        "figures": dict(figures),
        "versions": {name: version(name) for name in packages},
    }


def _save(model: Any, folder: Path) -> None:
    model.save_pretrained(str(folder), create_model_card=False, safe_serialization=True)


def _write(save: Callable[[Path], None], place: Path, record: Mapping[str, Any], *, is_library: bool) -> None:
    """Writes the folder under a temporary name next to its place, and renames it once it is whole.

    Args:
        save: writes the model into a folder.
        is_library: whether the model is one of sentence-transformers.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
        try:
            save(temporary)
            (temporary / RECORD).write_bytes(orjson.dumps(record, option=orjson.OPT_INDENT_2))
            (temporary / "README.md").write_text(_card(place.name, record, is_library=is_library))
            temporary.chmod(0o755)
            temporary.rename(place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise StorageError(f"--out: can't write {place}: {error}", "check the disk and its rights") from error


def _card(name: str, record: Mapping[str, Any], *, is_library: bool) -> str:
    figures, pairs, base, parts = (record[key] for key in ("figures", "pairs", "base", "split"))
    rows = {
        "base model": f"{base['model']}, weights {base['weights_sha256'][:12]}",
        "pairs": f"{parts['trained']:,} of {pairs['count']:,} of {pairs['file']}, SHA-256 {pairs['sha256'][:12]}",
        "held out": f"{figures['held_out_queries']:,} queries, by {parts['by']}",
        "nDCG@10 before": f"{figures['ndcg_at_10_before']['value']:.4f}",
        "nDCG@10 after": f"{figures['ndcg_at_10_after']['value']:.4f}",
        "difference": _shown(figures["difference"]),
        "settings": ", ".join(f"{key} {value}" for key, value in record["settings"].items()),
    }
    table = "".join(f"| {key} | {value} |\n" for key, value in rows.items())
    head = "---\nlibrary_name: sentence-transformers\npipeline_tag: sentence-similarity\n---\n" if is_library else ""
    return f"{head}# {name}\n\nTrained by vecbeam. {RECORD} has all figures.\n\n| | |\n|---|---|\n{table}"
