"""How much of chunks or rows goes through an encoder, whatever their modality: for books, progress and rates."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.layout import Layout
from schemas.modality import Modality

MILLISECONDS = 1000


class Amounts(NamedTuple):
    """int64[n] each, of rows: tokens of texts, milliseconds of recordings and films, nothing of images.

    Attributes:
        taken: what goes through the encoder.
        dropped: what is over its limit.
    """

    taken: NDArray[np.int64]
    dropped: NDArray[np.int64]


def amounts_of(table: pa.Table) -> Amounts:
    """The amounts of chunks or rows, by the columns that they have."""
    if "tokens" in table.column_names:
        return Amounts(table.column("tokens").to_numpy(), table.column("tokens_dropped").to_numpy())
    if "seconds_dropped" in table.column_names:
        seconds = table.column("end").to_numpy() - table.column("start").to_numpy()
        return Amounts(_milliseconds(seconds), _milliseconds(table.column("seconds_dropped").to_numpy()))
    nothing = np.zeros(table.num_rows, np.int64)
    return Amounts(nothing, nothing)


def weights_of(table: pa.Table) -> NDArray[np.int64]:
    """int64[n]: the share of each row in the work of an encoder, in the unit of `Encoded.amount`."""
    return amounts_of(table).taken if {"tokens", "seconds_dropped"} & {*table.column_names} else _ones(table)


def amount_columns(layout: Layout, amounts: Amounts) -> dict[str, pa.Array]:
    """The columns of a row that hold its amounts; see `schemas.layout.amount_fields`."""
    if layout.modality is Modality.TEXT:
        return {"tokens": pa.array(amounts.taken), "tokens_dropped": pa.array(amounts.dropped)}
    if layout.modality is Modality.IMAGE:
        return {}
    return {"seconds_dropped": pa.array(amounts.dropped / MILLISECONDS)}


def _milliseconds(seconds: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.rint(seconds * MILLISECONDS).astype(np.int64)


def _ones(table: pa.Table) -> NDArray[np.int64]:
    return np.ones(table.num_rows, np.int64)
