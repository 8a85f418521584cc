"""What a run leaves: rows of its parts and of the served collection, and files of its checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from schemas.config import Config
from transforms import milvus

Row = dict[str, Any]


def rows_in_parts(config: Config, key: str = "id") -> dict[str, Row]:
    """The rows of all parts, by a column of theirs; where several have one value, that of the newest part."""
    parts = sorted(Path(config.checkpoint).rglob("parts/*.parquet"), key=lambda part: part.stat().st_mtime_ns)
    return {row[key]: row for part in parts for row in pq.read_table(part).to_pylist()}


def served_rows(config: Config, columns: Sequence[str] = ("*",)) -> dict[str, Row]:
    """The rows behind the alias, by their ids; fails if two have one."""
    with milvus.connected(config.collection) as connection:
        connection.client.load_collection(milvus.served(connection, config.name))
        rows = connection.client.query(
            config.name, filter='id != ""', limit=16384, output_fields=[*columns], consistency_level="Strong"
        )
    found = {row["id"]: dict(row) for row in rows}
    assert len(found) == len(rows)
    return found


def served_texts(config: Config) -> dict[str, str]:
    """The texts of the rows behind the alias, by item; fails if an item has several rows."""
    rows = served_rows(config, ("id", "item_id", "text"))
    found = {row["item_id"]: row["text"] for row in rows.values()}
    assert len(found) == len(rows)
    return found


def checkpoint_files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Modification times and contents of the files of a folder's checkpoint, without those of its runs."""
    return {
        str(file.relative_to(folder)): (file.stat().st_mtime_ns, file.read_bytes())
        for file in (folder / "checkpoint").rglob("*")
        if file.is_file() and "runs" not in file.parts
    }


def least_cosine(found: list[list[float]], wanted: np.ndarray[Any, Any]) -> float:
    """The least cosine of vectors with those that they should be, each with the one in its place."""
    vectors = np.array(found)
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(wanted, axis=1)
    return float(((vectors * wanted).sum(axis=1) / norms).min())
