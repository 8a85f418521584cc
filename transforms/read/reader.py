"""A shard to batches, whatever its format; and the first records of a file for `vecbeam init`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import orjson

from schemas.config import Corpus
from schemas.formats import holds_records
from transforms.read import decompression, stream
from transforms.read.batch import Batch, BatchBuilder
from transforms.read.formats import delimited, jsonl, parquet
from transforms.read.listing.files import SourceFile
from transforms.read.open_file import OpenFile, reader_of
from transforms.read.shard import Shard

CONTAINER_ERRORS = frozenset({"DamagedFile", "WrongSchema", "UnreadableFile", "TooLarge"})
"""Rejects that hide an unknown number of items: earlier items of the file must not count as deleted."""


def read_shard(
    shard: Shard,
    corpus: Corpus,
    *,
    batch_rows: int,
    batch_bytes: int = 8 << 20,
    block_bytes: int = stream.BLOCK_BYTES,
) -> Iterator[Batch]:
    """Reads a shard as batches, in flat memory; each is yielded as soon as it is full.

    A batch ends at `batch_rows` items, at `batch_rows` rejects, or at `batch_bytes` of content (UTF-8), so that its
    boundaries depend only on the corpus and the configuration. A shard without any record or reject has none.
    `block_bytes` is the size of one read; only time and memory depend on it.

    Raises:
        CorpusError: if the storage fails in the middle; what can't be parsed or opened is a reject.
        ConfigurationError: if a library of the extra `documents` is needed and not installed.
    """
    builder = BatchBuilder(shard.name, corpus, batch_rows, batch_bytes)
    for file in shard.files:
        yield from _read_file(file, shard, builder, block_bytes)
    yield from builder.rest()


def _read_file(file: SourceFile, shard: Shard, builder: BatchBuilder, block_bytes: int) -> Iterator[Batch]:
    modality = builder.corpus.modality_of(file.format)
    builder.open_file(file.shown, lambda: 0, modality)
    try:
        with stream.RawStream(file, block_bytes) as raw:
            builder.open_file(file.shown, lambda: raw.bytes_read, modality)
            yield from reader_of(file.format)(OpenFile(raw, file, shard.start, shard.end, shard.quoted), builder)
    except stream.FileRejectedError as error:
        item_id = None if holds_records(file.format) else file.name
        if builder.reject(item_id, error.place, error.error, error.reason):
            yield builder.take()


def first_records(file: SourceFile, limit: int, corpus: Corpus | None = None) -> list[dict[str, Any]]:
    """The first records of a JSONL, CSV or Parquet file as they are; fewer, or none, where it can't be read.

    Args:
        corpus: its encodings, delimiters and quotes apply; by default, the most common ones.
    """
    found: list[dict[str, Any]] = []
    try:
        with stream.RawStream(file) as raw:
            for record in _raw_records(raw, file, corpus or Corpus(paths=[file.uri])):
                found.append(record)
                if len(found) >= limit:
                    break
    except stream.FileRejectedError:
        pass  # only what came before can be used
    return found


def _raw_records(raw: stream.RawStream, file: SourceFile, corpus: Corpus) -> Iterator[dict[str, Any]]:
    if file.format == "jsonl":
        for _, line in jsonl.range_lines(raw, file, 0, 0, corpus.encoding)[1]:
            try:
                record = orjson.loads(line or b"")
            except orjson.JSONDecodeError:
                continue
            if isinstance(record, dict):
                yield record
    elif file.format == "csv":
        yield from delimited.raw_records(raw, file, corpus)
    elif file.format == "parquet":
        with decompression.seekable(raw, file) as source, parquet.damaged(raw):
            for batch in islice(parquet.open_file(source).iter_batches(64), 64):
                yield from batch.to_pylist()
