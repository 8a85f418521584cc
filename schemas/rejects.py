"""Rejects: items that could not be embedded, with the reason. The dead letter, as Arrow tables and Parquet files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pyarrow as pa

from schemas.records import REJECT_SCHEMA

REASON_LENGTH = 300
"""Longest reason in characters."""


class Reject(NamedTuple):
    """One row of `schemas.records.REJECT_SCHEMA`."""

    id: str | None
    uri: str
    place: str
    step: str
    error: str
    reason: str


def rejects_table(rejects: Iterable[Reject]) -> pa.Table:
    """Rejects as a table; reasons are shortened to 300 characters."""
    rows = [reject._replace(reason=shortened(reject.reason, REASON_LENGTH)) for reject in rejects]
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(REJECT_SCHEMA)
    return pa.table(
        {name: pa.array(column, pa.string()) for name, column in zip(REJECT_SCHEMA.names, columns, strict=True)},
        schema=REJECT_SCHEMA,
    )


def shortened(text: str, length: int) -> str:
    """A text of at most `length` characters, with an ellipsis where it was cut."""
    return text if len(text) <= length else text[: length - 1] + "…"
