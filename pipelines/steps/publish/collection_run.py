"""What all steps that load, compare or repair one collection are given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipelines.run.jobs import beam_job
from pipelines.run.session import Session
from schemas.config import Config
from schemas.milvus import CollectionSpec
from transforms import milvus
from transforms.checkpoint import Checkpoint, Snapshot


@dataclass(frozen=True)
class CollectionRun:
    """A collection that a run works on, and the snapshot that it is to hold.

    Attributes:
        session: of the run.
        checkpoint: with the parts of the snapshot.
        spec: the collection, by its name in Milvus.
        connection: to Milvus, open.
    """

    session: Session
    checkpoint: Checkpoint
    snapshot: Snapshot
    spec: CollectionSpec
    connection: milvus.Milvus

    @property
    def config(self) -> Config:
        return self.session.config

    @property
    def rows(self) -> int:
        """How many rows the collection is to have."""
        return self.snapshot.total("rows")

    def reads_here(self, parts: Iterable[str] | None = None) -> bool:
        """Whether a step that reads some parts of the snapshot, or all, runs in this process."""
        reads = self.snapshot.total("bytes") if parts is None else self.snapshot.bytes_of(parts)
        return beam_job.runs_here(self.config, reads)
