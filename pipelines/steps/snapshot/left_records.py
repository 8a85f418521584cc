"""The records of a job that a run which is gone has started, for the run that continues after it."""

from __future__ import annotations

import pyarrow as pa

from pipelines.run.session import Session
from pipelines.steps.corpus.changes import Changes
from transforms.embed.record import read_records
from transforms.support.storage import filesystem


def left_records(session: Session, changes: Changes) -> tuple[pa.Table, pa.Table] | None:
    """What `read_records` gives, if a job has embedded these changes to their end; None if none has."""
    left = session.left
    if left is None or not changes.of:
        return None
    folder = left.folder("embed", changes.of, "records")
    if not folder or not any(filesystem.list_files(folder, f"{name}/*.parquet") for name in ("parts", "files")):
        return None
    session.forget_left()  # before they are deleted: a run after a crash starts another job, which finds the parts
    records = read_records(folder)
    for name in ("chunks", "work"):
        filesystem.delete_folder(left.folders[name])
    filesystem.delete_folder(changes.source.checkpoint.attempts_folder)
    return records
