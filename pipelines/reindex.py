"""`vecbeam reindex CONFIG`: builds a new collection, verifies it, and moves the alias to it.

What changed decides what it does; the served collection stays complete and served until the alias moves.
"""

from __future__ import annotations

from pipelines.run.progress import Progress
from pipelines.run.session import Phase, Session, running
from pipelines.steps.collection.served import find_served, look, misfits, with_index
from pipelines.steps.collection.server import check_server, check_vectors
from pipelines.steps.corpus.changes import lost_parts
from pipelines.steps.corpus.corpus_digests import settings_digest
from pipelines.steps.corpus.source import Source, open_checkpoint, prepare
from pipelines.steps.judgement.standing import Standing, standing
from pipelines.steps.publish.publication import publish
from pipelines.steps.quality.quality_gate import check_gate
from pipelines.steps.snapshot.corpus_fit import fitted_source
from pipelines.steps.snapshot.embedding import bring_up_to_date
from pipelines.steps.snapshot.snapshot_report import report_unchanged
from schemas.config import Config
from schemas.errors import ConfigurationError
from schemas.layout import Layout
from schemas.milvus import STATE_READY
from schemas.run_report import Report
from transforms import milvus
from transforms.checkpoint import Checkpoint, Snapshot
from transforms.checkpoint.embedded import precisions
from transforms.encoders.models import Models
from transforms.load.specification import collection_spec

INDEX = "the index or the collection alone: built from the checkpoint, the corpus is not looked at"
ROWS = "chunking or fields: the corpus is read, chunks with the same text keep their vectors"
MODEL = "the model: this space is new, all is embedded"
ANEW = "nothing that vecbeam detects: --full-refresh embeds everything again"
NOTHING = (
    "nothing, so there is nothing to do: what is served has the checkpoint's rows, and the fields and the index that "
    "are configured"
)
LOST = "parts of the checkpoint are gone: the corpus is read, what is lost is embedded again"


REFIT = "a model that is fitted on the corpus: fitted again, and all is embedded with it"


def reindex(
    config: Config,
    progress: Progress | None = None,
    *,
    allow_deletes: bool = False,
    full_refresh: bool = False,
    refit: bool = False,
    wait: bool = True,
) -> Report:
    """Builds the collection of the configuration next to the served one, and publishes it.

    Args:
        allow_deletes: lifts `corpus.max_deleted`.
        full_refresh: embeds everything even if the space is the same: for another precision.
        refit: fits the models again that are fitted on the corpus. Until the alias moves, `sync` and `search` use the
            earlier ones.
        wait: false to end once a job on other machines has started, or is found to run still.

    Raises:
        ConfigurationError: if it is to refit, and no model is fitted on the corpus.
        GateError: if rows or recall are not right; the alias stays where it was.
    """
    with running("reindex", config, progress, wait=wait) as session:
        with Phase(session, "startup"):
            session.progress.step("prepare")
            check_server(config.collection)
            checkpoint, models = open_checkpoint(config, refit=refit)
            if refit and not models.to_fit:
                raise ConfigurationError(
                    f"--refit: {config.model_names} is not fitted on the corpus",
                    "run vecbeam reindex without --refit; --full-refresh embeds everything again",
                )
            check_vectors(config, models.layout)
            check_gate(config, models.layout)
            stands = standing(config, look(config), checkpoint)
        session.report.space = models.space.id
        with session.exclusive():
            source = None
            if models.to_fit:
                source = fitted_source(session, prepare(config, refit=refit))
                checkpoint, models = source.checkpoint, source.models
            current = checkpoint.current_snapshot()
            reason = ANEW if full_refresh else decide(config, checkpoint, models, current)
            said = REFIT if refit and reason == MODEL else reason
            if reason == INDEX and current is not None and _is_served(config, current, models.layout):
                reason = NOTHING
                said = f"{NOTHING}; {_for_precision(config, checkpoint, current)}"
            session.progress.note(f"changed: {said}")
            session.report.reason = said
            snapshot = _snapshot(session, source, current, reason, stands, allow_deletes=allow_deletes)
            publish(
                session,
                checkpoint,
                snapshot,
                models.layout,
                stands,
                allow_deletes=allow_deletes,
                corpus_was_read=reason not in (INDEX, NOTHING),
            )
    return session.report


def decide(config: Config, checkpoint: Checkpoint, models: Models, current: Snapshot | None) -> str:
    """Returns the changes since the checkpoint's current snapshot, in words.

    Args:
        current: the newest snapshot of the configuration's space, if there is one.
    """
    if current is None:
        return MODEL
    if current.settings_digest != settings_digest(config, models):
        return ROWS
    return LOST if lost_parts(checkpoint, current) else INDEX


def _is_served(config: Config, current: Snapshot, layout: Layout) -> bool:
    """Whether the served collection is just what would be built."""
    with milvus.connected(config.collection) as connection:
        served = find_served(connection, config)
    if served is None or served.state != STATE_READY or served.target_id:
        return False
    same = (served.space_id, served.snapshot_id) == (layout.space.id, current.id)
    return same and not misfits(served, collection_spec(with_index(config, served), current, layout))


def _for_precision(config: Config, checkpoint: Checkpoint, current: Snapshot) -> str:
    """A hint for another precision, whose change alone changes nothing."""
    made = precisions(checkpoint.runtime(current.part_names[0])) if current.part_names else ""
    wanted = config.precisions
    if made and made != wanted:
        return f"the vectors were made in {made}, configured is {wanted}: --full-refresh embeds everything again in it"
    return "another precision of the encoder needs --full-refresh"


def _snapshot(
    session: Session,
    source: Source | None,
    current: Snapshot | None,
    reason: str,
    stands: Standing,
    *,
    allow_deletes: bool,
) -> Snapshot:
    if current is not None and reason in (INDEX, NOTHING):
        report_unchanged(session, current)
        return current
    source = source or prepare(session.config)
    return bring_up_to_date(session, source, stands, allow_deletes=allow_deletes, full_refresh=reason == ANEW)
