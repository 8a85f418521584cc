"""`vecbeam verify CONFIG`: the served collection against the checkpoint, row by row, and its recall."""

from __future__ import annotations

from dataclasses import replace

from pipelines.run.progress import Progress
from pipelines.run.session import Phase, running
from pipelines.steps.collection.held import held_snapshot
from pipelines.steps.collection.served import check_space, served_state, with_index
from pipelines.steps.collection.unpublished import unpublished
from pipelines.steps.corpus.source import open_checkpoint
from pipelines.steps.judgement.limits import check_rows_at_all, excess, remedy
from pipelines.steps.judgement.standing import Standing
from pipelines.steps.publish.collection_run import CollectionRun
from pipelines.steps.publish.promise_check import check_promise, check_promise_package
from pipelines.steps.publish.publication import Publication
from pipelines.steps.publish.update import Update
from pipelines.steps.quality.quality_gate import check_gate, check_quality
from pipelines.steps.snapshot.snapshot_report import report_unchanged
from schemas.config import Config
from schemas.errors import RejectsError
from schemas.run_report import Report
from transforms import milvus
from transforms.load.specification import collection_spec
from transforms.milvus.rows.row_check import ALL_COLUMNS, IDS_AND_HASHES


def verify(
    config: Config,
    progress: Progress | None = None,
    *,
    repair: bool = False,
    allow_deletes: bool = False,
    quick: bool = False,
) -> Report:
    """Compares what searchers see with the snapshot that it holds. Writes nothing but its report, unless it repairs;
    and the vectors of `verify.queries` into the checkpoint, once.

    Args:
        repair: upserts what is missing, stale or damaged and deletes what is unexpected, from the checkpoint.
        allow_deletes: lifts `corpus.max_deleted` for the rows that a repair deletes.
        quick: compares ids and content hashes alone, which misses rows whose vector, text or metadata changed
            under the same hash; and does not measure what `collection.index: auto` promises.

    Raises:
        CollectionError: if nothing is published.
        CheckpointError: if the checkpoint does not have the collection's snapshot.
        MissingExtraError: if `collection.index: auto` promises a recall and the extra `explore` is not installed.
        SpaceMismatchError: if the collection is of another space than the configuration's encoder.
        GateError: if rows are missing, unexpected, stale or damaged, recall is under `verify.recall_at_10` or what
            `collection.index: auto` promises, or a repair would delete more than allowed.
        RejectsError: if the repaired collection has more rejects or dropped tokens than allowed.
    """
    compared = IDS_AND_HASHES if quick else ALL_COLUMNS
    with running("verify", config, progress) as session:
        session.report.could_change = repair
        with Phase(session, "startup"):
            checkpoint, models = open_checkpoint(config)
            check_gate(config, models.layout)
            if not quick:
                check_promise_package(config)
        with milvus.connected(config.collection, create=False) as connection:
            served = served_state(connection, config)
            check_space(served, config, models.space)
            snapshot = held_snapshot(checkpoint, served)
            report_unchanged(session, snapshot)
            session.report.verify.published = True
            session.report.warnings += unpublished(config, checkpoint, snapshot)
            check_rows_at_all(snapshot, Standing(served.name))
            spec = replace(collection_spec(with_index(config, served), snapshot, models.layout), name=served.name)
            given = CollectionRun(session, checkpoint, snapshot, spec, connection)
            publication = Publication(given)
            if repair:
                with session.exclusive():
                    update = Update(
                        session, checkpoint, snapshot, models.layout, served, connection, allow_deletes=allow_deletes
                    )
                    check = update.repair(compared=compared)
            else:
                check = publication.inspection.check_rows(compared=compared, recall=True)
            publication.inspection.gate(check, recall=True)
            if not quick:
                check_promise(given)
            check_quality(session, checkpoint, snapshot, models.layout)
            if repair and (over := excess(snapshot, config)):
                raise RejectsError(f"{over}; the good rows are served as {config.name}", remedy(over))
    return session.report
