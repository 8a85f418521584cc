"""Metadata columns that hold nothing: found in the parts of a snapshot, and named with what was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from schemas.config import Config, Corpus, suggested_column
from schemas.formats import has_fields
from schemas.milvus import is_later_keyword
from transforms.checkpoint import Checkpoint, Snapshot
from transforms.read.head import field_names, sample
from transforms.read.item import MISSING, lookup, partitions_of
from transforms.read.listing.files import SourceFile

PARTS_AT_ONCE = 16
SAMPLED_FILES = 5
SAMPLED_RECORDS = 200
FILES = 1000
"""Files whose paths are searched for partitions."""


def null_columns(checkpoint: Checkpoint, snapshot: Snapshot, columns: list[str]) -> list[str]:
    """Those of the columns that are null in every row of a snapshot.

    Reads footers of parts, and no more of them than it takes to find a value of each column.
    """
    left = list(columns)
    names = iter(snapshot.part_names)
    with ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
        at_once = 1  # mostly the first part has a value of each
        while left and (some := list(islice(names, at_once))):
            for nulls in pool.map(checkpoint.null_columns, some):
                left = [name for name in left if name in nulls]
            at_once = PARTS_AT_ONCE
    return left


def unfilterable(config: Config) -> list[str]:
    """A sentence for each metadata column that some releases of the server could not filter by."""
    if config.collection.is_lite:
        return []
    return [
        f"corpus.metadata.{name}: some releases of Milvus from 2.6 on take {name} for a word of their filters, and "
        f"could not filter by it; rename it with {suggested_column(name)}: {{from: {name}, ...}}"
        for name in config.corpus.metadata
        if is_later_keyword(name)
    ]


def foreseen(corpus: Corpus, files: Sequence[SourceFile]) -> list[str]:
    """A sentence for each metadata column that is null in all of the first records of the first files."""
    wanted = (file for file in files if has_fields(file.format))
    looked_at = list(islice(wanted, SAMPLED_FILES))
    paths = [partitions_of(file.uri) for file in files[:FILES]]
    left = []
    records = [record for file in looked_at for record in sample(file, SAMPLED_RECORDS).records]
    for name, field in corpus.metadata.items():
        source = corpus.source_of(name)
        if source is None:
            filled = any(path.get(str(field.partition)) is not None for path in paths)
        else:
            filled = not records or any(lookup(record, source) not in (None, "", MISSING) for record in records)
        if not filled:
            left.append(name)
    return list(explained(left, corpus, files, f"would be null, by the first {len(records)} records"))


def explained(columns: list[str], corpus: Corpus, files: Sequence[SourceFile], how: str = "") -> Iterator[str]:
    """A sentence for each column that is null throughout: which field or folder is missing, and which exist.

    Args:
        files: of the corpus.
        how: what is known about them; by default that they are null in every row.
    """
    if not columns:
        return
    partitions = sorted({key for file in files[:FILES] for key in partitions_of(file.uri)})
    fields = field_names(files)
    for name in columns:
        source, field = corpus.source_of(name), corpus.metadata[name]
        said = f"corpus.metadata.{name} {how or 'is null in every row'}:"
        if source is None:
            key = str(field.partition)
            yield f"{said} no file has a folder {key}=... in its path{_near(key, partitions, 'folders')}"
        elif source in partitions and source not in fields:
            yield (
                f"{said} no record has a field {source!r}, but paths have folders {source}=...; "
                f"write {name}: {{partition: {source}, type: {field.type}}}"
            )
        elif source in fields:
            yield f"{said} the field {source!r} has no value"
        else:
            yield f"{said} no record has a field {source!r}{_near(source, fields, 'records')}"


def _near(name: str, known: list[str], things: str) -> str:
    lower = {field.lower(): field for field in known}
    close = [lower[match] for match in difflib.get_close_matches(name.lower(), lower, 3)]
    if close:
        return f"; did you mean {' or '.join(map(repr, close))}?"
    return f"; the {things} have {', '.join(known[:20])}" if known else ""
