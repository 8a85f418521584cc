"""Which sampled fields become columns to filter by, and under which names; why the others do not."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

from pipelines.steps.proposal.sampled_field import SampledField, csv_kind
from schemas.config import RESERVED_COLUMNS, suggested_column
from schemas.milvus import LITE, SERVER, is_later_keyword, refusal
from transforms.read.head import FileSample, is_plain
from transforms.read.item import partitions_of

CATEGORY_BYTES = 200
"""A string column with longer values is not a category to filter by."""
COLUMNS = 50
"""Milvus takes 64 fields, of which each row has ten of its own."""


def metadata_columns(
    columns: Mapping[str, SampledField],
    kinds: Mapping[str, Any],
    samples: Sequence[FileSample],
    *,
    used: Container[str],
) -> tuple[dict[str, Any], dict[str, str]]:
    """The key `corpus.metadata` for the sampled fields, and why fields have no column there.

    Args:
        columns: what the samples have in each field.
        kinds: Arrow types of fields whose files have a schema.
        used: the fields of id and content, which have a place in each row already.
    """
    metadata: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for name, column in columns.items():
        if name in used:
            continue
        if why := _why_no_column(column):
            left_out[name] = why
        elif len(metadata) == COLUMNS:
            left_out[name] = f"{COLUMNS} columns are proposed at most, as Milvus accepts 64 fields"
        else:
            add_column(metadata, name, str(column.type))
    for name in dict.fromkeys(name for sample in samples for name in sample.twice):
        left_out[name] = "two columns have this name"
    for name, kind in kinds.items():
        if name not in left_out and not is_plain(kind):
            left_out[name] = f"{_article(str(kind))}: a column is a string, number or truth value"
    return metadata, left_out


def add_column(metadata: dict[str, Any], name: str, kind: str, **more: Any) -> str:
    """Adds a column for a field, under another name where its own can't be one; returns the column's name."""
    column = name
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,254}", name) or name in RESERVED_COLUMNS or _is_refused(name):
        column = suggested_column(name)
    while column in metadata or column in RESERVED_COLUMNS or _is_refused(column):
        column += "_"
    if column != name and "partition" not in more:
        more = {"from": name, **more}
    metadata[column] = {**more, "type": kind} if more else kind
    return column


def _is_refused(name: str) -> bool:
    return is_later_keyword(name) or any(refusal(name, server) for server in (LITE, SERVER))


def _why_no_column(column: SampledField) -> str:
    if not column.values:
        return "null in each of the first records"
    if column.type is None:
        if len(column.kinds) > 1:
            return f"values of several types: {', '.join(sorted(column.kinds))}"
        return f"{next(iter(column.kinds))}: a column is a string, number or truth value"
    if column.type == "string":
        longest = max(len(value.encode("utf-8", "replace")) for value in column.texts)
        if any("\0" in value for value in column.texts):
            return "it has NUL characters"
        if longest > CATEGORY_BYTES:
            return f"texts of up to {longest} bytes; a string column accepts 4096, or its max_bytes"
    return ""


def _article(kind: str) -> str:
    return f"a {kind.split('<')[0]}" if kind.startswith(("list", "large_list", "map", "fixed_size_list")) else kind


def partition_columns(uris: Sequence[str], taken: Mapping[str, Any]) -> dict[str, Any]:
    """Columns for the hive partitions of the files' paths, except for those whose name a field has."""
    values: dict[str, list[str]] = {}
    for uri in uris:
        for key, value in partitions_of(uri).items():
            values.setdefault(key, [])
            if value is not None:
                values[key].append(value)
    columns = dict(taken)
    for key, found in values.items():
        if key not in columns and found:
            kind = csv_kind(found)
            add_column(columns, key, "string" if kind == "date" else kind, partition=key)
    return columns


def shown_kinds(metadata: Mapping[str, Any]) -> Iterator[str]:
    """Metadata columns in words: "year: int", "score_: float from score"."""
    for name, column in metadata.items():
        if isinstance(column, str):
            yield f"{name}: {column}"
        elif "partition" in column:
            yield f"{name}: {column['type']} from folders {column['partition']}=..."
        else:
            yield f"{name}: {column['type']} from {column['from']}"
