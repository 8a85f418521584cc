"""Media and texts in one space: a tower for each, which share nothing but the space of their vectors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.encoders.base import Encoded, Work
from transforms.encoders.media.media_encoder import BatchEncoder, MediaEncoder
from transforms.support.vectors import dense_array

_TEXTS = 64

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class TextTower:
    """The tower of texts.

    Attributes:
        limit: tokens that it takes; a text is cut there.
        count: numbers of tokens of some texts before they are cut, special tokens included.
        tokenize: some texts to the arrays that `run` takes, with one row per text.
        run: arrays to float32[n, at least dimensions].
    """

    limit: int
    count: Callable[[Sequence[str]], Sequence[int]]
    tokenize: Callable[[list[str]], Sequence[NDArray[Any]]]
    run: Callable[..., Floats]


class TwoTowerEncoder:
    """See the module. Several threads may use it at once.

    Args:
        media: the tower of images, recordings or films.
        texts: the tower of texts.
    """

    def __init__(self, media: BatchEncoder, texts: TextTower) -> None:
        self._media = media
        self._texts = texts
        self._tokenizing = threading.Lock()

    @property
    def images(self) -> MediaEncoder:
        """What embeds images."""
        assert isinstance(self._media, MediaEncoder), "no tower of images"
        return self._media

    def encode(self, inputs: pa.Table, *, query: bool = False, advance: Callable[[int], None] | None = None) -> Encoded:
        """See `Encoder.encode`. A table with the column `text` is of texts."""
        if "text" not in inputs.column_names:
            return self._media.encode(inputs, query=query, advance=advance)
        start = time.perf_counter()
        texts = inputs.column("text").to_pylist()
        with self._tokenizing:  # tokenizers of these libraries keep settings and a cache
            total = np.fromiter(self._texts.count(texts), np.int64, len(texts))
        taken = np.minimum(total, self._texts.limit)
        dimensions = self._media.dimensions
        vectors = np.empty((len(texts), dimensions), np.float32)
        # Texts of a similar length together, where a tower pads to the longest.
        order = np.argsort(-taken, kind="stable")
        for first in range(0, len(texts), _TEXTS):
            rows = order[first : first + _TEXTS]
            with self._tokenizing:
                arrays = self._texts.tokenize([texts[row] for row in rows])
            vectors[rows] = self._texts.run(*arrays)[:, :dimensions]
            if advance is not None:
                advance(int(taken[rows].sum()))
        if self._media.normalize:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return Encoded(dense_array(vectors), taken, total - taken, Work(0, time.perf_counter() - start))

    def runtime(self) -> dict[str, str]:
        """See `Encoder.runtime`."""
        return self._media.runtime()
