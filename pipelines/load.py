"""`vecbeam load CONFIG`: the current snapshot of the checkpoint to a published collection, without an encoder."""

from __future__ import annotations

from pipelines import beam_runner
from pipelines.corpus import open_checkpoint
from pipelines.embedding import report_unchanged
from pipelines.limits import standing
from pipelines.progress import Progress
from pipelines.publishing import publish
from pipelines.serving import look
from pipelines.session import Phase, running
from schemas.config import Config
from schemas.errors import CheckpointError, SpaceMismatchError
from schemas.identity import Space
from schemas.report import Report
from transforms import collection as milvus
from transforms.checkpoint import Checkpoint, Snapshot


def load(
    config: Config, progress: Progress | None = None, *, allow_deletes: bool = False, rebuild: bool = False
) -> Report:
    """Loads, indexes, verifies and publishes what the checkpoint holds.

    Args:
        allow_deletes: lifts `corpus.max_deleted`, where the checkpoint holds fewer items than are served.
        rebuild: makes another collection beside the one that is served, whatever that holds, and moves the alias to it
            once it is verified. The one before stays, for `vecbeam rollback`.

    Raises:
        CheckpointError: where there is no snapshot.
        SpaceMismatchError: where the snapshots are of another space than the configuration's encoder.
    """
    with running("load", config, progress) as session:
        with Phase(session, "startup"):
            checkpoint, snapshot, space = open_snapshot(config)
            stands = standing(config, look(config), checkpoint)
        with session.exclusive():
            report_unchanged(session, snapshot)
            publish(
                session,
                checkpoint,
                snapshot,
                space,
                stands,
                allow_deletes=allow_deletes,
                rebuild=rebuild,
                corpus_was_read=False,
            )
    return session.report


def find_snapshot(config: Config, space_id: str, identity: str) -> tuple[Checkpoint, Snapshot]:
    """A snapshot that a collection refers to.

    Raises:
        CheckpointError: where it is no longer there.
    """
    beam_runner.prepare_filesystems(config)
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
        CheckpointError: where the checkpoint does not have it.
    """
    identity = state.target_id or state.snapshot_id
    snapshot = checkpoint.find_snapshot(identity) if identity else None
    if snapshot is None:
        raise CheckpointError(
            f"{checkpoint.root} does not have the snapshot {identity or '(none)'} that {state.name} holds",
            "run vecbeam sync: it reads the corpus and compares the collection with it row by row",
        )
    return snapshot


def open_snapshot(config: Config) -> tuple[Checkpoint, Snapshot, Space]:
    """The checkpoint of a configuration, its current snapshot, and its space.

    Raises:
        CheckpointError: where there is no snapshot.
        SpaceMismatchError: where the snapshots are of another space than the configuration's encoder.
    """
    checkpoint, model = open_checkpoint(config)
    space = model.space
    snapshot = checkpoint.current_snapshot()
    if snapshot is not None:
        return checkpoint, snapshot, space
    names = checkpoint.snapshots()
    if not names:
        raise CheckpointError(f"{checkpoint.root} holds no snapshot", "run vecbeam backfill first")
    newest = checkpoint.read_snapshot(names[-1])
    there = Checkpoint(config.checkpoint, config.name, newest.space_id).read_space()
    raise SpaceMismatchError(
        f"the current snapshot {newest.name} is of space {newest.space_id}, the configuration's encoder "
        f"{config.encoder.model} is of space {space.id}: {'; '.join(space.differences(there))}",
        "use the configuration that made it, or run vecbeam reindex with this one",
    )
