"""How much of chunks or rows goes through an encoder, whatever their modality: for books, progress and rates."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.layout import Layout
from schemas.modality import ROW_MODALITY, Modality
from schemas.row_columns import amount_fields

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
    """The amounts of chunks or rows, by the columns that they have.

    Tokens and seconds don't add up: of a corpus of several modalities, and of records with texts and media, rows are
    counted, and those of which something was dropped.
    """
    if {"tokens", "seconds_dropped"} <= {*table.column_names}:
        return Amounts(_ones(table), (dropped_of(table) > 0).astype(np.int64))
    if "tokens" in table.column_names:
        return Amounts(table.column("tokens").to_numpy(), table.column("tokens_dropped").to_numpy())
    if "seconds_dropped" in table.column_names:
        seconds = table.column("end").to_numpy() - table.column("start").to_numpy()
        return Amounts(_milliseconds(seconds), _milliseconds(table.column("seconds_dropped").to_numpy()))
    nothing = np.zeros(table.num_rows, np.int64)
    return Amounts(nothing, nothing)


def dropped_of(table: pa.Table) -> NDArray[np.int64]:
    """int64[n]: what was dropped of each chunk or row, in the unit of its own modality."""
    found = np.zeros(table.num_rows, np.int64)
    if "tokens_dropped" in table.column_names:
        found = found + table.column("tokens_dropped").to_numpy()
    if "seconds_dropped" in table.column_names:
        found = found + _milliseconds(table.column("seconds_dropped").to_numpy())
    return found


def weights_of(table: pa.Table) -> NDArray[np.int64]:
    """int64[n]: the share of each row in the work of an encoder, in the unit of `Encoded.amount`."""
    return amounts_of(table).taken if {"tokens", "seconds_dropped"} & {*table.column_names} else _ones(table)


def amount_columns(chunks: pa.Table, layout: Layout, amounts: Amounts) -> dict[str, pa.Array]:
    """The columns of rows that hold their amounts; see `schemas.row_columns.amount_fields`.

    Args:
        chunks: that the rows are made of.
        amounts: in the unit of each row's own modality; of records with texts and media, tokens.
    """
    if layout.modality is Modality.RECORD:
        return {
            "tokens": pa.array(amounts.taken, pa.int64()),
            "tokens_dropped": pa.array(amounts.dropped, pa.int64()),
            "seconds_dropped": chunks.column("seconds_dropped"),
        }
    is_mixed = layout.modality is Modality.MIXED
    own = chunks.column(ROW_MODALITY).to_pylist() if is_mixed else [layout.modality] * chunks.num_rows
    is_text = np.array([one == Modality.TEXT for one in own], bool)
    is_timed = np.array([Modality(one).is_timed for one in own], bool)
    columns = {
        "tokens": np.where(is_text, amounts.taken, 0),
        "tokens_dropped": np.where(is_text, amounts.dropped, 0),
        "seconds_dropped": np.where(is_timed, amounts.dropped / MILLISECONDS, 0.0),
    }
    return {field.name: pa.array(columns[field.name], field.type) for field in amount_fields(layout.modality)}


def _milliseconds(seconds: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.rint(seconds * MILLISECONDS).astype(np.int64)


def _ones(table: pa.Table) -> NDArray[np.int64]:
    return np.ones(table.num_rows, np.int64)
