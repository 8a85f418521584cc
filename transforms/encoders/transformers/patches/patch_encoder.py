"""Pictures, and texts as queries, to several vectors each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.encoders.base import Encoded, Work
from transforms.encoders.media.ahead import mapped
from transforms.encoders.media.content import RefusedError, contents
from transforms.encoders.media.image import opened_image
from transforms.support.vectors import multi_array

Floats = NDArray[np.float32]
Inputs = Mapping[str, NDArray[Any]]
"""Arrays that a model takes, by name, of one row each."""
MASK = "attention_mask"
"""The array that says which tokens have a vector, [1, tokens]."""


class Tower(NamedTuple):
    """What a model takes of one kind of input.

    Attributes:
        prepare: an image in RGB, or a text, to `Inputs`; raises ValueError for an image that the model does not take.
        run: arrays of several inputs, [n, ...] each, to float32[n, tokens, dimensions].
    """

    prepare: Callable[[Any], Inputs]
    run: Callable[[Inputs], Floats]


@dataclass(frozen=True)
class PatchEncoder:
    """A late interaction model of pictures, loaded. Several threads may use it at once.

    Inputs go through it with others of the same shapes, without padding: so each has the same vectors in any batch.

    Attributes:
        dimensions: of a vector.
        images: files of a corpus, and those that are searched for.
        queries: texts.
        batch: most inputs that go through the model at once.
        described: see `Encoder.runtime`.
    """

    dimensions: int
    images: Tower
    queries: Tower
    batch: int
    described: Mapping[str, str]

    def encode(self, inputs: pa.Table, *, query: bool = False, advance: Callable[[int], None] | None = None) -> Encoded:  # noqa: ARG002 (a text is a query, an image is not)
        """See `Encoder.encode`. A table with the column `text` is of queries, whose amounts are tokens."""
        is_text = "text" in inputs.column_names
        tower = self.queries if is_text else self.images
        # Those of refused rows don't count.
        vectors: list[Floats] = [np.ones((1, self.dimensions), np.float32)] * inputs.num_rows
        amount = np.zeros(inputs.num_rows, np.int64)
        refused: dict[int, tuple[str, str]] = {}
        busy = 0.0
        found = enumerate(self._texts(inputs) if is_text else self._pictures(inputs))
        while group := list(islice(found, self.batch)):
            start = time.perf_counter()
            refused |= {row: (one.error, one.reason) for row, one in group if isinstance(one, RefusedError)}
            taken = {row: one for row, one in group if not isinstance(one, RefusedError)}
            for rows in _alike(taken):
                together = {name: np.concatenate([taken[row][name] for row in rows]) for name in taken[rows[0]]}
                for row, made in zip(rows, tower.run(together), strict=True):
                    vectors[row] = made[taken[row][MASK][0].astype(bool)]
                    amount[row] = len(vectors[row]) if is_text else 1
            busy += time.perf_counter() - start
            if advance is not None:
                advance(int(amount[list(taken)].sum()))
        return Encoded(multi_array(vectors), amount, np.zeros_like(amount), Work(0, busy), refused)

    def runtime(self) -> dict[str, str]:
        """See `Encoder.runtime`."""
        return dict(self.described)

    def _texts(self, inputs: pa.Table) -> Iterator[Inputs | RefusedError]:
        return map(self.queries.prepare, inputs.column("text").to_pylist())

    def _pictures(self, inputs: pa.Table) -> Iterator[Inputs | RefusedError]:
        return mapped(self._prepared, contents(inputs), 2 * self.batch)

    def _prepared(self, content: tuple[str, bytes | None]) -> Inputs | RefusedError:
        try:
            return self.images.prepare(opened_image(*content))
        except RefusedError as error:
            return error
        except ValueError as error:
            return RefusedError("UnsupportedImage", f"The model does not take the image: {error}")


def _alike(inputs: Mapping[int, Inputs]) -> Iterator[Sequence[int]]:
    """The rows of inputs that have the same shapes."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for row, arrays in inputs.items():
        groups.setdefault(tuple(arrays[name].shape for name in sorted(arrays)), []).append(row)
    yield from groups.values()
