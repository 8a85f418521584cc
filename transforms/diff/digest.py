"""Digests of items: which item it is, and whether it is still the same.

BLAKE2b, 128 bits: https://www.rfc-editor.org/rfc/rfc7693
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from functools import partial
from hashlib import blake2b
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from schemas.config import Config
from schemas.config.encoder import VECTOR
from schemas.item_inputs import facts
from schemas.languages import language_code
from schemas.modality import Modality
from transforms.checkpoint.items import live_items

DIGEST_BYTES = 16

DIGEST_SCHEMA = pa.schema(
    [
        pa.field("key", pa.binary(DIGEST_BYTES), nullable=False),
        pa.field("digest", pa.binary(DIGEST_BYTES), nullable=False),
        pa.field("content", pa.binary(DIGEST_BYTES), nullable=False),
        pa.field("side", pa.int8(), nullable=False),
        pa.field("file", pa.int32(), nullable=False),  # position in the listing; -1 where it is gone
        # The place of the item: (shard, ordinal, row of the batch), or (part, position in its items, 0).
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("ordinal", pa.int32(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("size", pa.int32(), nullable=False),  # bytes of its content; 0 for an item of the snapshot
        pa.field("place", pa.string(), nullable=False),  # in its file, for messages
    ]
)


class Side(enum.IntEnum):
    """The origin of a digest."""

    NEW = 0
    KEPT = 1  # of the snapshot, in a file that did not change
    CANDIDATE = 2  # of the snapshot, in a file that changed or is gone


_digest = partial(blake2b, digest_size=DIGEST_BYTES)


def chunking_of(config: Config) -> bytes:
    """What determines an item's rows in addition to the item: how it is chunked, and the types of its metadata."""
    # Keys later than version 0.1.0 count only where they are set, so that an upgrade changes no digest.
    later = {"scenes"} if config.chunk and not config.chunk.scenes else set()
    chunk = config.chunk.model_dump(exclude_none=True, exclude=later) if config.chunk else False
    limits = {name: encoder.max_tokens for name, encoder in config.vectors.items()}
    limit = limits[VECTOR] if list(limits) == [VECTOR] else limits
    settings: list[Any] = [chunk, limit, config.corpus.column_types]
    if config.corpus.modality is not Modality.TEXT:
        settings.append(str(config.corpus.modality))  # it determines the columns of rows
    if config.corpus.pages is not None:
        settings.append(config.corpus.pages.model_dump())
    if config.inputs:
        settings.append({"inputs": facts(config.inputs)})
    languages = {name: one.language for name, one in config.corpus.subtitle_columns.items() if one.language}
    if languages:
        settings.append({"languages": {name: language_code(one) for name, one in languages.items()}})
    return orjson.dumps(settings, option=orjson.OPT_SORT_KEYS)


def item_digests(items: pa.Table, chunking: bytes) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Digests of items.

    Args:
        items: table of `schemas.layout.item_schema`.
        chunking: from `chunking_of`.

    Returns:
        Of each item 16 bytes of its id, of everything that determines its rows, and of its content alone.
    """
    ids = items.column("item_id").to_pylist()
    contents = [_digest(text.encode()).digest() for text in items.column("@content").to_pylist()]
    names = items.column_names[items.column_names.index("@content") + 1 :]
    if names:
        columns = [items.column(name).to_pylist() for name in names]
        metadata = [orjson.dumps(row) for row in zip(*columns, strict=True)]
        whole = [
            _digest(b"\0".join((chunking, item_id.encode(), content, row))).digest()
            for item_id, content, row in zip(ids, contents, metadata, strict=True)
        ]
    else:
        whole = [
            _digest(b"\0".join((chunking, item_id.encode(), content))).digest()
            for item_id, content in zip(ids, contents, strict=True)
        ]
    return item_keys(ids), whole, contents


def item_keys(ids: list[str]) -> list[bytes]:
    """Digests of item ids."""
    return [_digest(item_id.encode()).digest() for item_id in ids]


def new_digests(
    items: pa.Table, place: tuple[int, int], files: Mapping[str, int], chunking: bytes, *, whole: bool = True
) -> pa.Table:
    """Digests of a batch of items as read.

    Args:
        place: shard and ordinal of the batch.
        files: position in the listing of each uri.
        whole: false if only ids count: then the other digests are those of the id.
    """
    if whole:
        keys, digests, contents = item_digests(items, chunking)
    else:
        keys = digests = contents = item_keys(items.column("item_id").to_pylist())
    uris = items.column("@uri").combine_chunks().dictionary_encode()
    positions = np.array([files[uri] for uri in uris.dictionary.to_pylist()], np.int32)
    rows = len(keys)
    return pa.table(
        {
            "key": pa.array(keys, pa.binary(DIGEST_BYTES)),
            "digest": pa.array(digests, pa.binary(DIGEST_BYTES)),
            "content": pa.array(contents, pa.binary(DIGEST_BYTES)),
            "side": np.full(rows, Side.NEW, np.int8),
            "file": positions[uris.indices.to_numpy()] if rows else np.empty(0, np.int32),
            "shard": np.full(rows, place[0], np.int32),
            "ordinal": np.full(rows, place[1], np.int32),
            "row": np.arange(rows, dtype=np.int32),
            "size": pc.binary_length(items.column("@content")),
            "place": items.column("@place"),
        },
        schema=DIGEST_SCHEMA,
    )


def old_digests(
    items: pa.Table, part: int, dead: np.ndarray[Any, np.dtype[np.int32]], files: Mapping[str, tuple[int, bool]]
) -> pa.Table:
    """Digests of the live items of a part.

    Args:
        items: table of `schemas.records.ITEM_SCHEMA`.
        part: its position in the snapshot.
        dead: rows of the part that are no longer the corpus.
        files: for each path in the listing its position, and whether the file is unchanged.
    """
    live = np.flatnonzero(live_items(items, dead))
    paths = items.column("path").combine_chunks().dictionary_encode()
    found = [files.get(path, (-1, False)) for path in paths.dictionary.to_pylist()]
    indices = paths.indices.to_numpy()[live]
    positions = np.array([position for position, _ in found], np.int32)[indices]
    kept = np.array([unchanged for _, unchanged in found], bool)[indices]
    taken = items.select(["key", "digest", "content"]).take(pa.array(live))
    rows = len(live)
    return pa.table(
        {
            **{name: taken.column(name) for name in taken.column_names},
            "side": np.where(kept, np.int8(Side.KEPT), np.int8(Side.CANDIDATE)).astype(np.int8),
            "file": positions,
            "shard": np.full(rows, part, np.int32),
            "ordinal": live.astype(np.int32),
            "row": np.zeros(rows, np.int32),
            "size": np.zeros(rows, np.int32),
            "place": pa.array([""] * rows, pa.string()),
        },
        schema=DIGEST_SCHEMA,
    )


def halves(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Digests as uint64[n, 2]."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if len(array) == 0:
        return np.empty((0, 2), np.uint64)
    start = array.offset * DIGEST_BYTES
    data = np.frombuffer(array.buffers()[1], np.uint8)[start : start + len(array) * DIGEST_BYTES]
    return data.view(np.uint64).reshape(-1, 2)


def is_sampled(digests: pa.ChunkedArray, sampling: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Whether each item is in the sample, bool[n]: by its digest, not by chance, so the same items in each run.

    Args:
        sampling: share of the items that go into the sample.
    """
    return halves(digests)[:, 1] < np.uint64(min(int(sampling * 2**64), 2**64 - 1))
