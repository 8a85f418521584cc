"""Texts as vectors that can be compared with the rows of a snapshot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipelines.steps.search.queries.query_encoder import QueryEncoder
from pipelines.steps.search.queries.query_model import query_model
from pipelines.steps.search.queries.word_arithmetic import Arithmetic
from schemas.config import Config
from schemas.errors import SpaceMismatchError
from transforms.encoders import Model
from transforms.encoders.models import Models
from transforms.explore.live_rows import Floats, LiveRows


def text_vectors(config: Config, rows: LiveRows, vector: str, texts: Sequence[str]) -> Floats:
    """The vectors of texts, float32[n, dimensions], embedded as queries by the configuration's encoder.

    Args:
        rows: that they will be compared with.
        vector: the name of a dense vector.

    Raises:
        ConfigurationError: if the encoder does not embed texts.
        SpaceMismatchError: if the rows are of another space than the encoder; the model is not loaded then.
        EncoderError: if the model can't be found or loaded.
    """
    encoder = QueryEncoder.of(config, models_of(config, rows), vector)
    return np.asarray(encoder.embed(list(texts), Arithmetic(), lambda _: None), np.float32)


def models_of(config: Config, rows: LiveRows) -> dict[str, Model]:
    """The models that embed queries for some rows, by the names of their vectors; none is loaded.

    Raises:
        SpaceMismatchError: if the rows are of another space than the configuration's encoder.
    """
    models = {name: query_model(config, name) for name in config.vectors}
    space = Models(models, config.corpus.column_types, config.corpus.modality).layout.space
    if space.id != rows.snapshot.space_id:
        there = rows.checkpoint.read_space()
        raise SpaceMismatchError(
            f"the snapshot {rows.snapshot.name} is of space {rows.snapshot.space_id}, the configuration's encoder "
            f"{config.model_names} is of space {space.id}: {'; '.join(space.differences(there))}",
            "use the configuration that made it, or run vecbeam reindex with this one",
        )
    return models
