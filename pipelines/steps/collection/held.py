"""The snapshot that a collection holds, or that a load starts from."""

from __future__ import annotations

from pipelines.run.jobs.beam_options import prepare_filesystems
from pipelines.steps.corpus.source import open_checkpoint
from schemas.config import Config
from schemas.errors import CheckpointError, SpaceMismatchError
from schemas.layout import Layout
from transforms import milvus
from transforms.checkpoint import Checkpoint, Snapshot


def find_snapshot(config: Config, space_id: str, identity: str) -> tuple[Checkpoint, Snapshot]:
    """A snapshot that a collection refers to.

    Raises:
        CheckpointError: if it is no longer there.
    """
    prepare_filesystems(config)
    checkpoint = Checkpoint(config.checkpoint, config.name, space_id)
    snapshot = checkpoint.find_snapshot(identity)
    if snapshot is None:
        raise CheckpointError(
            f"{checkpoint.root} no longer holds the snapshot {identity}",
            "build that collection again: vecbeam reindex with the configuration that built it",
        )
    return checkpoint, snapshot


def held_snapshot(checkpoint: Checkpoint, state: milvus.CollectionState) -> Snapshot:
    """The snapshot that a collection holds; where an update of it was stopped on the way, the one that it goes to.

    Raises:
        CheckpointError: if the checkpoint does not have it.
    """
    identity = state.target_id or state.snapshot_id
    snapshot = checkpoint.find_snapshot(identity) if identity else None
    if snapshot is None:
        raise CheckpointError(
            f"{checkpoint.root} does not have the snapshot {identity or '(none)'} that {state.name} holds",
            "run vecbeam sync: it reads the corpus and compares the collection with it row by row",
        )
    return snapshot


def open_snapshot(config: Config) -> tuple[Checkpoint, Snapshot, Layout]:
    """The checkpoint of a configuration, its current snapshot, and its layout.

    Raises:
        CheckpointError: if there is no snapshot.
        SpaceMismatchError: if the snapshots are of another space than the configuration's encoder.
    """
    checkpoint, models = open_checkpoint(config)
    space, layout = models.space, models.layout
    snapshot = checkpoint.current_snapshot()
    if snapshot is not None:
        return checkpoint, snapshot, layout
    names = checkpoint.snapshots()
    if not names:
        raise CheckpointError(f"{checkpoint.root} holds no snapshot", "run vecbeam backfill first")
    newest = checkpoint.read_snapshot(names[-1])
    there = Checkpoint(config.checkpoint, config.name, newest.space_id).read_space()
    raise SpaceMismatchError(
        f"the current snapshot {newest.name} is of space {newest.space_id}, the configuration's encoder "
        f"{config.model_names} is of space {space.id}: {'; '.join(space.differences(there))}",
        "use the configuration that made it, or run vecbeam reindex with this one",
    )
