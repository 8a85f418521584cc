"""The small picture of a row that the checkpoint keeps, so that the page decodes no original."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from pipelines.web.site import Site
from schemas.errors import CheckpointError, CollectionError, StorageError
from transforms.checkpoint import Checkpoint
from transforms.checkpoint.thumbnails import read_thumbnail, thumbnail_names, thumbnails_uri
from transforms.support.storage.parquet_file import read_table

MOST_ROWS = 20_000_000
"""Rows whose places are kept in memory, 16 bytes each; of later ones the originals are shown."""


@dataclass(frozen=True)
class _Places:
    """Where pictures are: digests of the ids of the rows, sorted, with the part of each and its row."""

    checkpoint: Checkpoint
    names: list[str]
    digests: NDArray[np.uint64]
    parts: NDArray[np.int32]
    rows: NDArray[np.int32]


def thumbnail_of(site: Site, row_id: str) -> bytes | None:
    """The picture of a row, a WebP file; None where the checkpoint has none."""
    if not site.config.thumbnails:
        return None
    try:
        places = site.once("thumbnails", lambda: _places(site))
        wanted = np.uint64(_digest(row_id))
        at = int(np.searchsorted(places.digests, wanted))
        if at == len(places.digests) or places.digests[at] != wanted:
            return None
        return read_thumbnail(places.checkpoint, places.names[places.parts[at]], int(places.rows[at]))
    except (
        CheckpointError,
        CollectionError,
        StorageError,
        OSError,
    ):  # `gc` removed it: the original is shown
        return None


def _places(site: Site) -> _Places:
    served = site.rows()
    checkpoint, snapshot = served.checkpoint, served.snapshot
    there = thumbnail_names(checkpoint)
    kept = [part for part in snapshot.live_parts if part.name in there]
    digests, parts, rows = [np.zeros(0, np.uint64)], [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    count = 0
    for number, part in enumerate(kept):
        ids = read_table(thumbnails_uri(checkpoint, part.name), ["id"]).column("id").to_pylist()
        live = np.setdiff1d(np.arange(len(ids), dtype=np.int32), part.dead)
        count += len(live)
        if count > MOST_ROWS:
            break
        digests.append(np.array([_digest(ids[row]) for row in live], np.uint64))
        parts.append(np.full(len(live), number, np.int32))
        rows.append(live)
    whole = np.concatenate(digests)
    order = np.argsort(whole)
    return _Places(
        checkpoint,
        [part.name for part in kept],
        whole[order],
        np.concatenate(parts)[order],
        np.concatenate(rows)[order],
    )


def _digest(row_id: str) -> int:
    return int.from_bytes(blake2b(row_id.encode(), digest_size=8).digest(), "little")
