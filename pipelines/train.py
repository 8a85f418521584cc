"""`vecbeam train PAIRS`: a text model from a user's own pairs; with `--histories`, vectors of items from histories."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.run.progress import Progress
from pipelines.steps.quality.mined_rows import mined_rows
from pipelines.steps.quality.starting_model import encoder_of, starting_model
from pipelines.steps.quality.trained_model import (
    check_better,
    check_place,
    figures_of,
    record_of,
    table_of_queries,
    training_step,
    write_model,
)
from pipelines.steps.quality.trained_pictures import train_pictures
from pipelines.steps.results.finding import Finding
from schemas.config import Config
from schemas.config.loader import as_config
from schemas.errors import ConfigurationError
from transforms.encoders.router import RouterModel
from transforms.quality.retrieval_measures import check_measures
from transforms.train import item_vectors, own_words, text_training
from transforms.train.hard_negatives import with_negatives
from transforms.train.picture_pairs import is_of_pictures
from transforms.train.text_training import TrainingSettings
from transforms.train.training_pairs import Pair, Split, read_pairs, same, split

DEFAULT = TrainingSettings()
OWN_WORDS = TrainingSettings(epochs=20, learning_rate=0.05)
"""How vectors of words are trained that start as random ones."""
DIMENSIONS = 64
PAIRS = "pairs"
"""The value of `--negatives-from` for the texts of the file."""


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
    negatives_from: Config | str | Path | None = None,
    progress: Progress | None = None,
) -> Finding:
    """Trains a model on pairs, and writes it as a folder if it is better on the queries that were held out.

    Args:
        pairs: JSON lines; see `transforms.train.training_pairs`. Of texts and images, see
            `transforms.train.picture_pairs`: for a model of both.
        out: a folder that does not exist yet, on this machine.
        config: whose encoder is the base, unless `model` is given.
        model, revision: the base: a catalogue name, a hub id or a folder. `static` is without a base: random vectors
            of the words of the training part, which become a file `words.vec` in the folder.
        vector: the vector of the configuration whose encoder is the base; by default the first.
        held_out: the share of the queries that is held out.
        settings: by default `DEFAULT`, or `OWN_WORDS` for `static`.
        even_if_not_better: writes the model whatever the figures are.
        dimensions: of the vectors of `static`.
        negatives_from: where `settings.hard_negatives` are mined: the rows of a configuration, or with `PAIRS` the
            texts of the file. By default `config`, and the file where `model` is given.
        progress: gets the steps; who passes it also shows it.

    Returns:
        A finding with a row for each held-out query: nDCG@10 before and after, the biggest loss first.

    Raises:
        ConfigurationError: for a wrong file or option, or a base that is not of sentence-transformers.
        MissingExtraError: if the extra `train` or `explore` is not installed.
        GateError: if the model is not better: the 95% interval of the difference includes 0. Nothing is written.
        StorageError: if the folder can't be written.
    """
    progress = progress or Progress(quiet=True)
    text_training.check_training()
    check_measures("vecbeam train")
    is_own = model == own_words.NAME
    settings = settings or (OWN_WORDS if is_own else DEFAULT)
    if negatives_from is not None and not settings.hard_negatives:
        raise ConfigurationError("--negatives-from: no negatives are mined", "name a number of --hard-negatives too")
    negatives = _mined_configuration(negatives_from, None if model else config)
    _check_settings(settings, dimensions)
    if is_own and settings.two_towers:
        raise ConfigurationError("--two-towers: --model static has one table of words", "leave one of the two out")
    place = Path(out)
    check_place(place)
    if is_of_pictures(str(pairs)):
        encoder, key = encoder_of(config, model, revision, vector)
        return train_pictures(
            str(pairs),
            place,
            encoder,
            key,
            held_out,
            settings,
            even_if_not_better=even_if_not_better,
            progress=progress,
        )
    file = read_pairs(str(pairs), settings.seed)
    parts = split(file.pairs, held_out, settings.seed, file.labels)
    source = mined_rows(negatives, vector) if negatives and settings.hard_negatives else None
    with tempfile.TemporaryDirectory(prefix="vecbeam-words-") as folder:
        if is_own:
            texts = [text for pair in parts.trained for text in pair if text]
            own_words.save_random_words(Path(folder) / "words", texts, dimensions, settings.seed)
        base = starting_model(config, str(Path(folder) / "words") if is_own else model, revision, vector)
        loaded = text_training.load(base.folder, base.model)
    facts = base.model.facts
    settings = settings._replace(two_towers=settings.two_towers or isinstance(base.model, RouterModel))
    if settings.two_towers:
        loaded = text_training.with_two_towers(loaded)
    candidates = _candidates(file.pairs, parts)
    progress.step("measure")
    before = text_training.scores(loaded, facts, parts.held_out, candidates)
    taught, mined = parts.trained, 0
    if settings.hard_negatives:
        progress.step("mine negatives")
        source = source or text_training.negatives_of(loaded, facts, candidates)
        hidden = [*(text for pair in parts.held_out for text in pair[:2]), *parts.unranked]
        taught, mined = with_negatives(taught, settings.hard_negatives, source, file.answers, hidden)
    figures = text_training.train(loaded, facts, taught, settings, file.labels, training_step(progress))
    trained = {**figures, "mined": mined}
    progress.step("measure again")
    after = text_training.scores(loaded, facts, parts.held_out, candidates)
    figures = {**figures_of(before, after, settings.seed), "trained_pairs": len(parts.trained), **trained}
    check_better(figures, before, after, even_if_not_better=even_if_not_better)
    named = own_words.NAME if is_own else base.config.model
    origin = {"model": named, "revision": base.config.revision, "weights_sha256": facts.weights}
    record = record_of(file, parts, origin, settings, held_out, figures, "MultipleNegativesRankingLoss")
    if source is not None:
        record["negatives"] = {"from": source.name, "count": mined}
    library = "" if is_own else "sentence-transformers"
    write_model(partial(own_words.write_words if is_own else _save, loaded), place, record, library=library)
    notes = [*file.notes]
    if parts.left_out:
        notes.append(f"{parts.left_out:,} pairs share a text with the held-out part: left out of the training")
    if parts.unranked:
        notes.append(
            f"{len(parts.unranked):,} texts of the labels that are held out are neither trained on nor ranked: "
            "these labels have so many texts that some were drawn"
        )
    if settings.hard_negatives and not mined:
        notes.append("no text is a hard negative: all are nearly as near to a query as its positive, or answer it")
    if is_own:
        notes.append(f"encoder.model is {place / own_words.FILE}")
    return Finding(
        f"Training on {len(parts.trained):,} pairs",
        {"pairs": str(pairs), "base": named, "out": str(place)},
        figures,
        table_of_queries(parts.held_out, before, after),
        notes,
    )


def train_items(
    histories: str | Path,
    out: str | Path,
    *,
    dimensions: int = DIMENSIONS,
    epochs: int = 20,
    least: int = 2,
    seed: int = 0,
    progress: Progress | None = None,
) -> Finding:
    """Trains vectors of items on histories, and writes them as a file of word vectors.

    Args:
        progress: gets the steps; who passes it also shows it.

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
    (progress or Progress(quiet=True)).step("train")
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


def _mined_configuration(given: Config | str | Path | None, config: Config | None) -> Config | None:
    """The configuration whose rows are mined; None for the file of pairs."""
    if given is None:
        return config
    return None if given == PAIRS else as_config(given if isinstance(given, Config) else str(given))


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


def _candidates(pairs: Sequence[Pair], parts: Split) -> list[str]:
    """The different texts that answer queries, or do not, in the order of the file."""
    found: dict[str, str] = {}
    unranked = set(map(same, parts.unranked))
    for pair in (*pairs, *parts.held_out):
        for text in pair[1:]:
            if text and same(text) not in unranked:
                found.setdefault(same(text), text)
    return list(found.values())


def _save(model: Any, folder: Path) -> None:
    model.save_pretrained(str(folder), create_model_card=False, safe_serialization=True)
