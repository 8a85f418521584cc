"""Where the rows of a snapshot are: by id, to read a few of them with columns that only the parts have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.checkpoint.folder import Checkpoint
from transforms.checkpoint.snapshot import Snapshot
from transforms.support.fingerprints import fingerprints
from transforms.support.storage.parquet_file import read_rows


class RowPlaces:
    """The places of the live rows of a snapshot: 16 bytes of memory per row.

    It reads the ids of all parts, once.

    Raises:
        CheckpointError: if a part is missing or damaged.
        StorageError: if the store fails.
    """

    def __init__(self, checkpoint: Checkpoint, snapshot: Snapshot) -> None:
        self._checkpoint = checkpoint
        self._names = snapshot.part_names
        prints: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        places: list[NDArray[np.int32]] = [np.zeros((0, 2), np.int32)]
        for position, part in enumerate(snapshot.live_parts):
            ids = checkpoint.read_part(part.name, ["id"]).column("id").to_pylist()
            live = np.setdiff1d(np.arange(len(ids), dtype=np.int32), part.dead, assume_unique=True)
            prints.append(fingerprints(ids)[live])
            places.append(np.stack([np.full(len(live), position, np.int32), live], axis=1))
        whole = np.concatenate(prints)
        order = np.argsort(whole, kind="stable")
        self._prints, self._places = whole[order], np.concatenate(places)[order]

    def read(self, ids: Sequence[str], columns: Sequence[str]) -> dict[str, pa.Table]:
        """Rows by their ids, as tables of one row; ids that the snapshot does not have are left out.

        Args:
            columns: in addition to `id`.
        """
        own = fingerprints(ids)
        starts, ends = (np.searchsorted(self._prints, own, side=side) for side in ("left", "right"))
        by_part: dict[int, list[int]] = {}
        for start, end in zip(starts, ends, strict=True):
            for part, row in self._places[start:end].tolist():
                by_part.setdefault(part, []).append(row)
        wanted, found = set(ids), {}
        for part, rows in sorted(by_part.items()):
            uri = self._checkpoint.part_uri(self._names[part])
            table = read_rows(uri, sorted(set(rows)), ["id", *columns])
            for at, row_id in enumerate(table.column("id").to_pylist()):
                if row_id in wanted:
                    found[row_id] = table.slice(at, 1)
        return found
