"""One of several inputs of a chunk to vectors."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from schemas.item_inputs import ChunkInputs, Input, joined
from schemas.layout import INPUTS, LOCATOR
from transforms.encoders.base import Encoded, Encoder, text_inputs


class InputEncoder:
    """Gives a model its own input of each chunk, as it gets it from a corpus of this input alone.

    Args:
        encoder: embeds the input.
        own: which it is.
        counts_rows: whether `advance` gets numbers of rows, which is what is counted of records with texts and media.
    """

    def __init__(self, encoder: Encoder, own: Input, *, counts_rows: bool) -> None:
        self._encoder = encoder
        self._own = own
        self._counts_rows = counts_rows

    def encode(self, inputs: pa.Table, *, query: bool = False, advance: Callable[[int], None] | None = None) -> Encoded:
        """See `Encoder.encode`; `amount` and `dropped` are in the unit of the input."""
        if INPUTS not in inputs.column_names:
            return self._encoder.encode(inputs, query=query, advance=advance)
        if advance is None or not self._counts_rows:
            return self._encoder.encode(self._of_chunks(inputs), query=query, advance=advance)
        # The model calls it often, and it may stop the run.
        found = self._encoder.encode(self._of_chunks(inputs), query=query, advance=lambda _: advance(0))
        advance(inputs.num_rows)
        return found

    def runtime(self) -> dict[str, str]:
        """See `Encoder.runtime`."""
        return self._encoder.runtime()

    def _of_chunks(self, inputs: pa.Table) -> pa.Table:
        read = list(map(ChunkInputs.from_text, inputs.column(INPUTS).to_pylist()))
        if self._own.is_text:
            return text_inputs(joined(one.texts[name] for name in self._own.fields) for one in read)
        names = ["id", "item_id", "@uri", LOCATOR]
        if not self._own.modality.is_timed:
            return inputs.select(names)
        media = inputs.select([*names, "seconds_dropped"])
        times = {"start": [one.start for one in read], "end": [one.end for one in read]}
        for name, values in times.items():
            media = media.append_column(name, pa.array(values, pa.float64()))
        return media
