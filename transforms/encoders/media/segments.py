"""The seconds of a file that each row of an encoder's inputs refers to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from transforms.encoders.media.content import contents

MILLISECONDS = 1000


class Segment(NamedTuple):
    """Some seconds of a recording or film.

    Attributes:
        address: of its bytes; see `schemas.locator`.
        data: its bytes if they are in memory already.
        start, end: seconds; to the end of the file for None.
        dropped: by the chunker, in milliseconds.
    """

    address: str
    data: bytes | None
    start: float
    end: float | None
    dropped: int


def segments(inputs: pa.Table) -> Iterator[Segment]:
    """The segment of each row: the whole file where the table has no times, as that of a query."""
    rows = inputs.num_rows
    if "end" in inputs.column_names:
        starts, ends = inputs.column("start").to_pylist(), inputs.column("end").to_pylist()
        over = np.rint(inputs.column("seconds_dropped").to_numpy() * MILLISECONDS).astype(int).tolist()
    else:
        starts, ends, over = [0.0] * rows, [None] * rows, [0] * rows
    for (address, data), start, end, dropped in zip(contents(inputs), starts, ends, over, strict=True):
        yield Segment(address, data, start, end, dropped)
