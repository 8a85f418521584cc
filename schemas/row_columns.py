"""The columns of a row other than its vectors: which piece of which item it is, amounts and metadata."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from schemas.modality import ROW_MODALITY, Modality

ARROW_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
}


def identity_fields(modality: Modality) -> tuple[pa.Field, ...]:
    """The columns of a row before its vectors: which piece of which item it is.

    `start` and `end` are characters of a text, seconds of a recording or film, and 0 of an image. A row of a corpus of
    several modalities has its own, and both `text` and `uri`: the one that it does not have is empty. A row of a record
    with texts and media has both; its `start` and `end` are of the text.
    """
    is_mixed = modality is Modality.MIXED
    place = pa.float64() if is_mixed or modality.is_timed else pa.int64()
    content: tuple[str, ...] = ("uri",) if modality.is_media else ("text",)
    if modality.has_rows_of_several:
        content = ("text", "uri")
    if is_mixed:
        content = (ROW_MODALITY, *content)
    return (
        pa.field("id", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("chunk", pa.int64(), nullable=False),
        *(pa.field(name, pa.string(), nullable=False) for name in content),
        pa.field("start", place, nullable=False),
        pa.field("end", place, nullable=False),
        pa.field("content_hash", pa.string(), nullable=False),
    )


def amount_fields(modality: Modality) -> tuple[pa.Field, ...]:
    """The columns of a row that count what went through the encoder, and what was over its limit.

    Of a recording or film only what was dropped: the rest is `start` and `end`. Nothing of an image is counted.
    """
    tokens = tuple(pa.field(name, pa.int64(), nullable=False) for name in ("tokens", "tokens_dropped"))
    seconds = (pa.field("seconds_dropped", pa.float64(), nullable=False),)
    if modality.has_rows_of_several:
        return (*tokens, *seconds)
    return tokens if modality is Modality.TEXT else seconds if modality.is_timed else ()


HASHED = ("text",)
"""Columns of a row that `content_hash` stands for."""


def compared_columns(names: list[str], vectors: frozenset[str]) -> list[str]:
    """The columns of a part that tell whether two rows are the same: the rest determines the vectors.

    Args:
        vectors: names of the vectors.
    """
    return [name for name in names if name not in vectors and name not in HASHED]


def metadata_fields(metadata: Mapping[str, str]) -> list[pa.Field]:
    """Arrow fields of metadata columns, from name -> string, int, float or bool."""
    return [pa.field(name, ARROW_TYPES[kind]) for name, kind in metadata.items()]
