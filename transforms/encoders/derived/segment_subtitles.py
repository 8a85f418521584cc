"""Segments of films by any dense model of texts: the vector of a segment is that of the subtitles shown in it.

Its space is that of the model, with the language of the subtitles: a text finds the segments in which it is said.
Every row needs a vector, so a segment without subtitles has that of `PAUSE`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import pyarrow as pa

from schemas.config import Config
from schemas.config.encoder import SubtitlesEncoderConfig
from schemas.errors import ConfigurationError
from schemas.layout import Space, VectorKind
from schemas.modality import Modality
from transforms.chunk.base import Chunker
from transforms.chunk.seconds import SecondsChunker
from transforms.encoders.base import Encoded, Encoder, Model, Work, text_inputs
from transforms.encoders.derived.derived_model import FilmPartModel
from transforms.encoders.derived.frames import refuse_frames
from transforms.encoders.fitted.fitted_model import FittedModel
from transforms.encoders.media.film.film import MAX_SECONDS
from transforms.encoders.media.film.film_model import SHORTEST
from transforms.encoders.media.film.subtitled_chunks import with_subtitles
from transforms.support.amounts import amounts_of

PAUSE = "..."
"""What is embedded where nothing is said: every model, and every server, has a vector for it."""


@dataclass(frozen=True)
class SubtitlesModel(FilmPartModel):
    """A model of texts that embeds the subtitles of films.

    Attributes:
        column: of the rows, which has the subtitles.
        language: of them; "" for what players show.
    """

    column: str
    language: str

    modalities: ClassVar = frozenset({Modality.TEXT, Modality.VIDEO})
    queries_alone: ClassVar = frozenset({Modality.TEXT})
    """See `transforms.encoders.base.corpus_modalities`."""
    max_seconds: ClassVar = float(MAX_SECONDS)
    shortest: ClassVar = SHORTEST
    packages: ClassVar = ("av",)

    @property
    def config(self) -> SubtitlesEncoderConfig:
        config = self.inner.config
        assert isinstance(config, SubtitlesEncoderConfig)
        return config

    @cached_property
    def space(self) -> Space:
        of = {"language": self.language or "as players show", "without": PAUSE}
        return Space({**self.inner.space.facts, "subtitles": of})

    def chunker(self, config: Config, modality: Modality) -> Chunker:
        return with_subtitles(SecondsChunker(config, self, modality), config, modality)

    def load(self, sample: Sequence[str] = ()) -> Encoder:
        return SubtitlesEncoder(self.inner.load(sample), self.column)


class SubtitlesEncoder:
    """See the module.

    Args:
        texts: embeds texts.
        column: see `SubtitlesModel`.
    """

    def __init__(self, texts: Encoder, column: str) -> None:
        self._texts = texts
        self._column = column

    def encode(self, inputs: pa.Table, *, query: bool = False, advance: Callable[[int], None] | None = None) -> Encoded:
        """See `Encoder.encode`. Queries are texts.

        Of a segment, the amount is its length; what is dropped of it is the share of its tokens over the model's limit.
        """
        if self._column not in inputs.column_names:
            return self._texts.encode(inputs, query=query, advance=advance)
        said = [text if text and not text.isspace() else PAUSE for text in inputs.column(self._column).to_pylist()]
        # The model calls it often, in tokens, and it may stop the run.
        told = None if advance is None else lambda _: advance(0)
        found = self._texts.encode(text_inputs(said), query=query, advance=told)
        taken, dropped = amounts_of(inputs)
        if advance is not None:
            advance(int(taken.sum()))
        share = found.dropped / np.maximum(found.amount + found.dropped, 1)
        dropped = dropped + np.rint(taken * share).astype(np.int64)
        return found._replace(amount=taken, dropped=dropped, work=Work(0, found.work.busy_seconds))

    def runtime(self) -> dict[str, str]:
        """See `Encoder.runtime`."""
        return self._texts.runtime()


def of_subtitles(model: Model, config: SubtitlesEncoderConfig) -> SubtitlesModel:
    """The same model for the subtitles of films.

    Raises:
        ConfigurationError: if it does not give a text one dense vector, is fitted on the corpus, or has settings of
            other inputs.
    """
    if Modality.TEXT not in model.modalities or model.kind is not VectorKind.DENSE or isinstance(model, FittedModel):
        raise ConfigurationError(
            f"encoder.input: [{config.column}] has subtitles, and {config.model} does not embed texts as one dense "
            "vector each, or is fitted on the corpus",
            "name a dense model of texts, for example all-MiniLM-L6-v2, or remove input",
        )
    if config.precision == "int8":
        raise ConfigurationError(
            f"encoder.precision: int8 determines its ranges from texts of rows, and [{config.column}] has subtitles",
            "set precision: bfloat16 or float32",
        )
    refuse_frames(config)
    return SubtitlesModel(model, config.column, config.language)
