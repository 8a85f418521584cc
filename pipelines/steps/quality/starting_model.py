"""The model that a training starts from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.steps.search.queries.query_model import vector_named
from schemas.config import Config, EncoderConfig
from schemas.errors import ConfigurationError
from schemas.layout import VectorKind
from transforms.encoders.families import resolve
from transforms.encoders.model_source import ModelSource
from transforms.train.text_training import TrainableModel


@dataclass(frozen=True)
class StartingModel:
    """The model to start from: its configuration, folder and facts."""

    config: EncoderConfig
    folder: Path
    model: TrainableModel


def encoder_of(config: Config | None, model: str, revision: str | None, vector: str) -> tuple[EncoderConfig, str]:
    """The configuration of the base, and the option or key that names it."""
    if model:
        return EncoderConfig(model=model, revision=revision), f"--model {model}"
    if config is None:
        raise ConfigurationError("there is no base model", "name a configuration, or --model")
    encoder = config.vectors[vector_named(config, vector)]
    return encoder, f"encoder.model: {encoder.model}"


def starting_model(config: Config | None, model: str, revision: str | None, vector: str) -> StartingModel:
    """The base of a training of texts; arguments as those of `pipelines.train.train`.

    Raises:
        ConfigurationError: if there is none, or it is not of sentence-transformers.
        EncoderError: if its files can't be fetched.
    """
    encoder, key = encoder_of(config, model, revision, vector)
    found = resolve(encoder)
    # Models of sparse and of token vectors are subclasses, and need losses of their own.
    if not isinstance(found, TrainableModel) or found.kind is not VectorKind.DENSE:
        raise ConfigurationError(
            f"{key} is not a model of sentence-transformers with one dense vector per text",
            "train all-MiniLM-L6-v2, for example: --model NAME",
        )
    return StartingModel(encoder, ModelSource(encoder).folder(), found)
