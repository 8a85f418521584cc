"""Rows of numbers as vectors: columns of different units become comparable, and the length of a row is kept.

Each column is scaled by its median and its quartiles, as scikit-learn's `RobustScaler` does, so that the outliers
themselves do not widen the scale. A constant coordinate is appended before a row gets length 1: the cosine distance of
two rows then grows with their Euclidean distance, also where they have one direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.errors import ConfigurationError
from transforms.explore.live_rows import Floats
from transforms.support.vectors import unit_vectors

Doubles = NDArray[np.float64]
CONSTANT = 3.0
"""The appended coordinate, in usual lengths of a row: up to it, distances are nearly Euclidean."""
SMALLEST_SHARE = 1e-6
"""Of its value: by less, a constant does not differ."""
QUARTILES = 1.349
"""The distance of the quartiles of a normal distribution, in standard deviations."""


def numbers_of(rows: pa.Table, names: Sequence[str], key: str) -> Doubles:
    """Some columns as float64[n, columns]; NaN for what is null.

    Args:
        key: the option that names the columns, for messages.

    Raises:
        ConfigurationError: if a column has no numbers.
    """
    for name in names:
        kind = rows.schema.field(name).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            raise ConfigurationError(
                f"{key}: the column {name!r} has no numbers, it is of type {kind}",
                "name columns of the types int, float or bool",
            )
    return np.stack([pc.cast(rows.column(name), pa.float64()).to_numpy() for name in names], axis=1)


@dataclass(frozen=True)
class NumberScale:
    """How columns are scaled.

    Attributes:
        middles, spreads: float64[columns].
    """

    middles: Doubles
    spreads: Doubles

    @classmethod
    def of(cls, numbers: Doubles) -> NumberScale:
        """The scale of some rows, float64[n, columns], finite.

        A column with equal quartiles has its standard deviation. Of one that is constant, any other value is far.
        """
        low, middles, high = np.percentile(numbers, [25, 50, 75], axis=0)
        spreads = (high - low) / QUARTILES
        spreads = np.where(spreads > 0, spreads, numbers.std(axis=0))
        return cls(middles, np.where(spreads > 0, spreads, SMALLEST_SHARE * np.maximum(1, np.abs(middles))))

    def vectors(self, numbers: Doubles) -> Floats:
        """Rows as float32[n, columns + 1] of length 1."""
        scaled = (numbers - self.middles) / self.spreads
        constant = np.full((len(scaled), 1), CONSTANT * np.sqrt(scaled.shape[1]))
        return unit_vectors(np.concatenate([scaled, constant], axis=1).astype(np.float32))
