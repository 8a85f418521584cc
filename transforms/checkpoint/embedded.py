"""The results of the encoder, apart from what runs it: Beam's inference alone takes a second to import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pyarrow as pa


class EmbeddedBatch(NamedTuple):
    """A batch with its vectors.

    Attributes:
        rows: table of the layout's rows, see `schemas.layout.Layout.rows`.
        rejects: table of `schemas.records.REJECT_SCHEMA`.
        tokens_padded: padding tokens that went through the model.
        runtime: engine, device, precision and versions.
    """

    rows: pa.Table
    rejects: pa.Table
    tokens_padded: int
    runtime: Mapping[str, str]


class EmbeddedTable(NamedTuple):
    """The result of embedding a table.

    Attributes:
        chunks: the table of chunks, with `@source_row`.
        batch: what was embedded of it: the rows without a source.
    """

    chunks: pa.Table
    batch: EmbeddedBatch


def precisions(runtime: Mapping[str, str]) -> str:
    """The precision of each vector in a runtime, in words."""
    return ", ".join(value for key, value in runtime.items() if key.rpartition(".")[2] == "precision")
