"""Films by any model of images: the vector of a segment is the mean of the vectors of its sampled frames.

Each frame's vector is as the model gives it for an image, of length 1 unless `normalize` is off. What else the model
embeds stays in the same space: an image, and with a model of both a text, finds the segments that are like it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError, EncoderError
from schemas.layout import Space, VectorKind
from schemas.modality import Modality
from transforms.encoders.base import Encoded, Encoder, Model, Work, media_inputs
from transforms.encoders.derived.derived_model import FilmPartModel
from transforms.encoders.media.content import RefusedError, contents, opened
from transforms.encoders.media.film.film_encoder import FilmEncoder
from transforms.encoders.media.film.film_model import SHORTEST, probe_film
from transforms.encoders.media.film.sampling import Sampling
from transforms.encoders.media.media_encoder import MediaEncoder
from transforms.support.film_container import container_of

if TYPE_CHECKING:
    from PIL.Image import Image

Floats = NDArray[np.float32]

FRAMES = 8
"""Of a segment, unless the configuration says how many."""
MOST_FRAMES = 256
"""Of a segment, where the configuration says how many each second."""


@dataclass(frozen=True)
class FramesModel(FilmPartModel):
    """A model of images that embeds films.

    Attributes:
        sampling: which frames of a segment it gets.
    """

    sampling: Sampling

    @cached_property
    def space(self) -> Space:
        film = {**self.sampling.facts, "pooling": "mean of the frames' vectors"}
        return Space({**self.inner.space.facts, "film": film})

    @property
    def probe(self) -> pa.Table:
        return media_inputs([probe_film()])

    @property
    def max_seconds(self) -> float:
        return self.sampling.longest

    @property
    def shortest(self) -> float:
        return min(SHORTEST, self.max_seconds)

    def load(self, sample: Sequence[str] = ()) -> FramesEncoder:
        self.check_runnable()
        return FramesEncoder(self.inner.load(sample), self.sampling)


class FramesEncoder:
    """See the module. Several threads may use it at once.

    Args:
        inner: embeds images, and maybe texts. What embeds images in it is loaded when the first film needs it.
    """

    def __init__(self, inner: Encoder, sampling: Sampling) -> None:
        self._inner = inner
        self._sampling = sampling

    def encode(self, inputs: pa.Table, *, query: bool = False, advance: Callable[[int], None] | None = None) -> Encoded:
        """See `Encoder.encode`. Rows of films have times; queries are films, or what the model of images embeds."""
        if "text" in inputs.column_names:
            return self._inner.encode(inputs, query=query, advance=advance)
        is_row = "item_id" in inputs.column_names
        films = ["end" in inputs.column_names] if is_row else list(map(_is_film, contents(inputs)))
        if all(films):
            return self._films.encode(inputs, query=query, advance=advance)
        if any(films):
            return _joined([self.encode(inputs.slice(row, 1), query=query) for row in range(inputs.num_rows)])
        found = self._inner.encode(inputs, query=query, advance=advance)
        return found._replace(refused={row: _neither(*reason) for row, reason in found.refused.items()})

    def runtime(self) -> dict[str, str]:
        """See `Encoder.runtime`."""
        return self._inner.runtime()

    @cached_property
    def _films(self) -> FilmEncoder:
        images: MediaEncoder | None = getattr(self._inner, "images", None)
        if images is None:
            raise EncoderError(
                f"{type(self._inner).__name__} embeds images, but has no property images, by which frames are embedded",
                "use a model of films, or add the property to the encoder: see MediaEncoder.images",
            )

        def prepare(frames: Iterator[Image]) -> Floats:
            return np.stack([images.prepare(frame).array for frame in frames])

        return FilmEncoder(
            images.dimensions,
            images.normalize,
            max(1, images.batch // self._sampling.frames),
            images.described,
            self._sampling,
            prepare,
            lambda segments: mean_of_frames(images, segments),
        )


def mean_of_frames(images: MediaEncoder, segments: Sequence[Floats]) -> Floats:
    """float32[n, dimensions]: the mean of the vectors of each segment's frames.

    Args:
        segments: float32[frames, ...] each.
    """
    every = np.concatenate(segments)
    pieces = [images.run(every[start : start + images.batch]) for start in range(0, len(every), images.batch)]
    vectors = np.concatenate(pieces)[:, : images.dimensions]
    if images.normalize:
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    borders = np.cumsum([len(frames) for frames in segments])[:-1]
    found: Floats = np.stack([own.mean(axis=0) for own in np.split(vectors, borders)])
    return found


def of_films(model: Model, config: EncoderConfig) -> Model:
    """The same model for a corpus of films: one that gives an image one vector embeds frames; others stay as they are.

    Raises:
        ConfigurationError: if frames are configured for a model that takes a number of its own.
    """
    if Modality.VIDEO in model.modalities:
        refuse_frames(config)
        return model
    is_of_frames = Modality.IMAGE in model.modalities and model.kind is VectorKind.DENSE
    return FramesModel(model, sampling_of(config)) if is_of_frames else model


def sampling_of(config: EncoderConfig) -> Sampling:
    """Which frames a configuration samples."""
    if config.frames_per_second is not None:
        return Sampling(config.frames or MOST_FRAMES, config.frames_per_second)
    return Sampling(config.frames or FRAMES)


def refuse_frames(config: EncoderConfig) -> None:
    """Refuses numbers of frames for a model that has its own.

    Raises:
        ConfigurationError: names the key.
    """
    keys: list[tuple[str, Any]] = [("frames", config.frames), ("frames_per_second", config.frames_per_second)]
    for key, value in keys:
        if value is not None:
            raise ConfigurationError(
                f"encoder.{key}: {value:g} is for models of images, and {config.model} is not one",
                f"remove encoder.{key}",
            )


def _neither(error: str, reason: str) -> tuple[str, str]:
    return ("NotFilm", "The file is neither a film nor an image") if error == "NotAnImage" else (error, reason)


def _is_film(content: tuple[str, bytes | None]) -> bool:
    """Whether a file is a film by its first bytes."""
    try:
        with opened(*content) as stream:
            return container_of(stream.read(64)) is not None
    except RefusedError:
        return False  # as the model of images will find again


def _joined(pieces: Sequence[Encoded]) -> Encoded:
    """Inputs that were embedded one by one."""
    refused = {row: piece.refused[0] for row, piece in enumerate(pieces) if piece.refused}
    amount, dropped = (np.concatenate([getattr(piece, name) for piece in pieces]) for name in ("amount", "dropped"))
    busy = sum(piece.work.busy_seconds for piece in pieces)
    return Encoded(pa.concat_arrays([piece.vectors for piece in pieces]), amount, dropped, Work(0, busy), refused)
