"""Trains a model of images and texts on pairs by transformers' own trainer, with the loss of the model's library.

The other images of a batch are what a text does not show. Images are decoded and prepared as for a run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import EncoderError
from transforms.encoders.base import Encoder, media_inputs, text_inputs
from transforms.encoders.engines.torch.torchvision_operators import make_importable
from transforms.quality.retrieval_measures import FIRST, MEASURES, measure
from transforms.support.extras import need
from transforms.support.vectors import unit_vectors
from transforms.train.contrastive_models import load
from transforms.train.step_counter import step_counter
from transforms.train.text_training import TrainingSettings
from transforms.train.training_pairs import Pair, same


def check_training() -> None:
    """Raises MissingExtraError unless the extra `train` is installed."""
    need("train", "vecbeam train with images", "torch", "transformers", "accelerate", "PIL")


def scores(encoder: Encoder, held_out: Sequence[Pair], images: Mapping[str, Path]) -> NDArray[np.float64]:
    """nDCG@10 of each held-out text, as float64[texts], in the order in which they come first.

    The ranking is exact, by the cosine, of all images; the images of a text are relevant with grade 1.
    """
    queries: dict[str, str] = {}
    truth: dict[str, dict[str, int]] = {}
    for pair in held_out:
        queries.setdefault(same(pair.query), pair.query)
        truth.setdefault(same(pair.query), {})[pair.positive] = 1
    names = list(images)
    asking = unit_vectors(encoder.encode(text_inputs(list(queries.values())), query=True).matrix)
    matrix = unit_vectors(encoder.encode(media_inputs(str(images[name]) for name in names)).matrix)
    order = np.argsort(-(asking @ matrix.T), axis=1, kind="stable")
    rankings = {query: [names[at] for at in row] for query, row in zip(queries, order, strict=True)}
    return measure(truth, rankings)[:, list(MEASURES).index(FIRST)]


def train(
    base: Path,
    out: Path,
    pairs: Sequence[Pair],
    images: Mapping[str, Path],
    settings: TrainingSettings,
    begun: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Trains the model of a folder, and writes it into another; the same pairs and settings give the same weights.

    Args:
        base: a folder of transformers or open_clip.
        images: paths by positives of the pairs.
        begun: is called with the number of steps before the first one; `step_counter` counts them.

    Returns:
        Figures: `steps`, and `loss` (of the whole training, the mean); and `loss_function`, its name.

    Raises:
        EncoderError: if the loss is not finite, or an image can't be decoded.
    """
    check_training()
    make_importable()
    from transformers import PrinterCallback, Trainer, TrainingArguments, set_seed

    set_seed(settings.seed)
    model = load(base)

    def batch(some: Sequence[Pair]) -> dict[str, Any]:
        return model.batch([pair.query for pair in some], [_opened(images[pair.positive]) for pair in some])

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=settings.batch,
            learning_rate=settings.learning_rate,
            warmup_steps=0.1,
            seed=settings.seed,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        trainer = Trainer(model=model.module, args=arguments, train_dataset=list(pairs), data_collator=batch)
        trainer.remove_callback(PrinterCallback)  # standard output is for the result of the command
        trainer.add_callback(step_counter(begun))
        done = trainer.train()
    if not np.isfinite(done.training_loss):
        raise EncoderError(f"the loss of the training is {done.training_loss}", "lower --learning-rate")
    model.module.eval()
    out.mkdir(parents=True, exist_ok=True)
    model.save(out)
    return {
        "steps": int(done.global_step),
        "loss": round(float(done.training_loss), 6),
        "loss_function": model.loss,
    }


def _opened(path: Path) -> Any:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise EncoderError(f"can't decode {path}: {error}", "leave its pairs out") from error
