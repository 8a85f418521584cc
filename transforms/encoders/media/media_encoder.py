"""Media to vectors: opened, decoded and prepared on all cores ahead of the model, then put through it in batches."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.encoders.base import Encoded, Work
from transforms.encoders.media.ahead import mapped
from transforms.encoders.media.content import RefusedError, contents
from transforms.encoders.media.image import opened_image
from transforms.support.vectors import dense_array

if TYPE_CHECKING:
    from PIL.Image import Image

Floats = NDArray[np.float32]


class Prepared(NamedTuple):
    """One input of a model.

    Attributes:
        array: of the shape that the model takes, float32, or uint8 where the model scales the numbers itself.
        amount, dropped: see `Encoded`.
        frames: of the array that are not padding, for a model of sound.
    """

    array: NDArray[Any]
    amount: int = 1
    dropped: int = 0
    frames: int = 0


class BatchEncoder(ABC):
    """A model of media, loaded. Several threads may use it at once.

    Attributes:
        dimensions: of a vector.
        normalize: whether vectors get length 1.
        batch: most inputs that go through the model at once.
        described: see `Encoder.runtime`.
    """

    dimensions: int
    normalize: bool
    batch: int
    described: Mapping[str, str]

    @abstractmethod
    def _prepared_rows(self, inputs: pa.Table) -> Iterator[Prepared | RefusedError]:
        """Each row as an input of the model, or why there is none."""

    @abstractmethod
    def _vectors(self, group: list[Prepared]) -> Floats:
        """float32[n, at least dimensions] of a batch."""

    def encode(self, inputs: pa.Table, *, query: bool = False, advance: Callable[[int], None] | None = None) -> Encoded:  # noqa: ARG002 (the protocol's)
        """See `Encoder.encode`."""
        rows = inputs.num_rows
        vectors = np.ones((rows, self.dimensions), np.float32)
        amount, dropped = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        refused: dict[int, tuple[str, str]] = {}
        busy = 0.0
        for places, group in self._batches(inputs, refused):
            start = time.perf_counter()
            vectors[places] = self._vectors(group)[:, : self.dimensions]
            busy += time.perf_counter() - start
            amount[places], dropped[places] = [one.amount for one in group], [one.dropped for one in group]
            if advance is not None:
                advance(int(amount[places].sum()))
        if self.normalize:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return Encoded(dense_array(vectors), amount, dropped, Work(0, busy), refused)

    def runtime(self) -> dict[str, str]:
        """See `Encoder.runtime`."""
        return dict(self.described)

    def _batches(
        self, inputs: pa.Table, refused: dict[int, tuple[str, str]]
    ) -> Iterator[tuple[list[int], list[Prepared]]]:
        places: list[int] = []
        group: list[Prepared] = []
        for row, found in enumerate(self._prepared_rows(inputs)):
            if isinstance(found, RefusedError):
                refused[row] = (found.error, found.reason)
                continue
            places.append(row)
            group.append(found)
            if len(group) == self.batch:
                yield places, group
                places, group = [], []
        if group:
            yield places, group


@dataclass(frozen=True)
class MediaEncoder(BatchEncoder):
    """A model of images, whose inputs have one shape.

    Attributes:
        prepare: an image in RGB to an input of the model; raises RefusedError.
        run: a batch of inputs, [n, ...], to vectors, float32[n, at least dimensions].
        scaled_side: see `transforms.encoders.media.image.decode`.
    """

    dimensions: int
    normalize: bool
    prepare: Callable[[Image], Prepared]
    run: Callable[[NDArray[Any]], Floats]
    batch: int
    described: Mapping[str, str]
    scaled_side: int = 0

    @property
    def images(self) -> MediaEncoder:
        """What embeds images in an encoder that may embed texts as well: here itself."""
        return self

    def _vectors(self, group: list[Prepared]) -> Floats:
        return self.run(np.stack([one.array for one in group]))

    def _prepared_rows(self, inputs: pa.Table) -> Iterator[Prepared | RefusedError]:
        return mapped(self._prepared, contents(inputs), 2 * self.batch)

    def _prepared(self, content: tuple[str, bytes | None]) -> Prepared | RefusedError:
        address, data = content
        try:
            return self.prepare(opened_image(address, data, self.scaled_side))
        except RefusedError as error:
            return error
