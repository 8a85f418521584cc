"""`vecbeam load CONFIG`: builds and publishes a collection from the current snapshot, without an encoder."""

from __future__ import annotations

from pipelines.run.progress import Progress
from pipelines.run.session import Phase, running
from pipelines.steps.collection.held import open_snapshot
from pipelines.steps.collection.served import look
from pipelines.steps.collection.server import check_server, check_vectors
from pipelines.steps.judgement.standing import standing
from pipelines.steps.publish.publication import publish
from pipelines.steps.quality.quality_gate import check_gate
from pipelines.steps.snapshot.snapshot_report import report_unchanged
from schemas.config import Config
from schemas.run_report import Report


def load(
    config: Config,
    progress: Progress | None = None,
    *,
    allow_deletes: bool = False,
    rebuild: bool = False,
    wait: bool = True,
) -> Report:
    """Loads, indexes, verifies and publishes what the checkpoint holds.

    Args:
        allow_deletes: lifts `corpus.max_deleted`, where the checkpoint holds fewer items than are served.
        rebuild: builds a new collection, whatever the served one holds, and moves the alias to it once it is verified.
            The previous one stays, for `vecbeam rollback`.
        wait: false to end once a job on other machines has started, or is found to run still.

    Raises:
        CheckpointError: if there is no snapshot.
        SpaceMismatchError: if the snapshots are of another space than the configuration's encoder.
    """
    with running("load", config, progress, wait=wait) as session:
        with Phase(session, "startup"):
            check_server(config.collection)
            checkpoint, snapshot, layout = open_snapshot(config)
            check_vectors(config, layout)
            check_gate(config, layout)
            stands = standing(config, look(config), checkpoint)
        with session.exclusive():
            report_unchanged(session, snapshot)
            publish(
                session,
                checkpoint,
                snapshot,
                layout,
                stands,
                allow_deletes=allow_deletes,
                rebuild=rebuild,
                corpus_was_read=False,
            )
    return session.report
