"""Rejects of a snapshot by name: the first ones, for reports and messages."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import CheckpointError
from schemas.run_report import Rejected
from transforms.checkpoint import Checkpoint

log = logging.getLogger("vecbeam")

MOST_NAMED = 100
"""Rejects that a report names."""


def named_rejects(checkpoint: Checkpoint, files: pa.Table, most: int = MOST_NAMED) -> list[Rejected]:
    """The first rejects of a corpus, in its order.

    Args:
        files: of a snapshot, table of `schemas.records.FILE_SCHEMA`.
    """
    some = files.select(["path", "rejects"]).filter(pc.greater(pc.list_value_length(files.column("rejects")), 0))
    return list(islice(_named(checkpoint, some.slice(0, most)), most))


def _named(checkpoint: Checkpoint, files: pa.Table) -> Iterator[Rejected]:
    read: tuple[str, list[dict[str, Any]]] = ("", [])
    for row in files.to_pylist():
        for name in row["rejects"]:
            if read[0] != name:
                read = name, _read(checkpoint, name)
            for reject in read[1]:
                # A file of rejects is of one batch, and that may hold several files of the corpus.
                if _same_file(reject["uri"], row["path"]):
                    yield Rejected(
                        file=reject["uri"],
                        place=reject["place"],
                        id=reject["id"],
                        error=reject["error"],
                        reason=reject["reason"],
                    )


def _same_file(uri: str, path: str) -> bool:
    return uri == path or uri.endswith("/" + path.lstrip("/"))


def _read(checkpoint: Checkpoint, name: str) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = checkpoint.read_rejects(name).to_pylist()
        return rows
    except CheckpointError as error:
        log.info("can't name rejects: %s", error)
        return []
