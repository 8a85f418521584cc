"""Training of a model of images and texts on pairs of both."""

from __future__ import annotations

import tempfile
from functools import partial
from importlib.metadata import version
from pathlib import Path
from shutil import copytree

from pipelines.run.progress import Progress
from pipelines.steps.quality.trained_model import (
    check_better,
    figures_of,
    record_of,
    table_of_queries,
    training_step,
    write_model,
)
from pipelines.steps.results.finding import Finding
from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError
from transforms.encoders.families import resolve
from transforms.encoders.open_clip import OpenCLIPModel
from transforms.encoders.transformers.image_text import ImageTextModel
from transforms.train import picture_training
from transforms.train.picture_pairs import read_picture_pairs
from transforms.train.text_training import TrainingSettings
from transforms.train.training_pairs import split


def train_pictures(
    pairs: str,
    place: Path,
    encoder: EncoderConfig,
    key: str,
    held_out: float,
    settings: TrainingSettings,
    *,
    even_if_not_better: bool,
    progress: Progress,
) -> Finding:
    """Trains a model of images and texts, and writes it as a folder if it is better on the texts that were held out.

    Args:
        pairs: JSON lines; see `transforms.train.picture_pairs`.
        encoder: of the base; `key` is what names it.

    Raises:
        ConfigurationError: for a wrong file or option, or a base that is neither CLIP or SigLIP of transformers, nor of
            open_clip.
        EncoderError: if an image can't be decoded.
        GateError: if the model is not better: the 95% interval of the difference includes 0. Nothing is written.
        StorageError: if the folder can't be written.
    """
    picture_training.check_training()
    if settings.hard_negatives:
        raise ConfigurationError(
            "--hard-negatives is for pairs of texts", "leave it out: the other images of a step are the negatives"
        )
    if settings.two_towers:
        raise ConfigurationError("--two-towers is for pairs of texts", "leave it out: images have a tower of their own")
    # In float32 by torch: to convert models for other engines takes longer than to compute these vectors.
    encoder = encoder.model_copy(update={"engine": "torch", "precision": "float32"})
    base = resolve(encoder)
    if not isinstance(base, (ImageTextModel, OpenCLIPModel)):
        raise ConfigurationError(
            f"{key} is not a model of images and texts that transformers or open_clip trains",
            "name a folder of CLIP or SigLIP as save_pretrained writes it, or of open_clip: --model FOLDER",
        )
    read = read_picture_pairs(pairs)
    parts = split(read.file.pairs, held_out, settings.seed)
    progress.step("measure")
    before = picture_training.scores(base.load(), parts.held_out, read.images)
    with tempfile.TemporaryDirectory(prefix="vecbeam-pictures-") as folder:
        made = Path(folder) / "model"
        trained = picture_training.train(
            base.folder, made, parts.trained, read.images, settings, training_step(progress)
        )
        loss = trained.pop("loss_function")
        after_model = resolve(encoder.model_copy(update={"model": str(made), "revision": None}))
        progress.step("measure again")
        after = picture_training.scores(after_model.load(), parts.held_out, read.images)
        figures = {**figures_of(before, after, settings.seed), "trained_pairs": len(parts.trained), **trained}
        check_better(figures, before, after, even_if_not_better=even_if_not_better)
        origin = {"model": encoder.model, "revision": encoder.revision, "weights_sha256": base.facts["weights"]}
        record = record_of(read.file, parts, origin, settings, held_out, figures, loss)
        library = "open_clip" if isinstance(base, OpenCLIPModel) else "transformers"
        if library == "open_clip":
            record["versions"]["open_clip_torch"] = version("open_clip_torch")
        write_model(partial(_copy, made), place, record, library=library)
    notes = [*read.file.notes]
    if parts.left_out:
        notes.append(
            f"{parts.left_out:,} pairs share a text or an image with the held-out part: left out of the training"
        )
    return Finding(
        f"Training on {len(parts.trained):,} pairs of texts and images",
        {"pairs": pairs, "base": encoder.model, "out": str(place)},
        figures,
        table_of_queries(parts.held_out, before, after),
        notes,
    )


def _copy(made: Path, folder: Path) -> None:
    copytree(made, folder, dirs_exist_ok=True)
