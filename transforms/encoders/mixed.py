"""Inputs of several modalities to vectors of one space."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from schemas.layout import LOCATOR, TOKEN_IDS
from schemas.modality import ROW_MODALITY, Modality
from transforms.encoders.base import Encoded, Encoder, Work


class MixedEncoder:
    """Gives a model the rows of each modality by themselves, as it gets them from a corpus of one.

    Args:
        encoder: embeds all modalities.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def encode(self, inputs: pa.Table, *, query: bool = False, advance: Callable[[int], None] | None = None) -> Encoded:
        """See `Encoder.encode`; `amount` and `dropped` are in the unit of each row's modality."""
        if ROW_MODALITY not in inputs.column_names:
            return self._encoder.encode(inputs, query=query, advance=advance)
        modalities = np.array(inputs.column(ROW_MODALITY).to_pylist(), object)
        amount, dropped = np.zeros(inputs.num_rows, np.int64), np.zeros(inputs.num_rows, np.int64)
        pieces: list[pa.Array] = []
        order: list[int] = []
        refused: dict[int, tuple[str, str]] = {}
        busy = 0.0
        inner = None if advance is None else lambda _: advance(0)  # it is called often, and may stop the run
        for modality in sorted({*modalities.tolist()}) or [Modality.TEXT]:
            places = np.flatnonzero(modalities == modality)
            own = _of_one(inputs.take(pa.array(places)), Modality(modality))
            found = self._encoder.encode(own, query=query, advance=inner)
            pieces.append(found.vectors)
            order += places.tolist()
            amount[places], dropped[places] = found.amount, found.dropped
            refused |= {int(places[row]): reason for row, reason in found.refused.items()}
            busy += found.work.busy_seconds
            if advance is not None:  # rows are counted: see `transforms.support.amounts.amounts_of`
                advance(len(places))
        vectors = pa.concat_arrays(pieces).take(pa.array(np.argsort(order, kind="stable"), pa.int64()))
        return Encoded(vectors, amount, dropped, Work(0, busy), refused)

    def runtime(self) -> dict[str, str]:
        """See `Encoder.runtime`."""
        return self._encoder.runtime()


def _of_one(inputs: pa.Table, modality: Modality) -> pa.Table:
    """Rows of one modality without the columns of others: these tell an encoder what it gets."""
    others = ["uri", LOCATOR] if modality is Modality.TEXT else ["text", TOKEN_IDS]
    if not modality.is_timed:
        others += ["start", "end"]
    return inputs.drop_columns([name for name in (ROW_MODALITY, *others) if name in inputs.column_names])
