"""`vecbeam rollback CONFIG`: moves the alias back to the previous collection, if that passes a quick check.

A second rollback undoes the first: the collection that the alias left becomes the previous one.
"""

from __future__ import annotations

from dataclasses import replace

from pipelines.run.progress import Progress
from pipelines.run.session import Phase, Session, running
from pipelines.steps.collection.held import find_snapshot
from pipelines.steps.collection.rollback_target import rollback_target
from pipelines.steps.collection.served import open_for_search, served_layout, with_index
from schemas.config import Config
from schemas.errors import GateError
from schemas.run_report import Report
from transforms import milvus
from transforms.load.specification import collection_spec
from transforms.milvus.alias import link
from transforms.milvus.rows.row_check import SAMPLED

LOOKED_AT_PARTS = 2


def rollback(config: Config, progress: Progress | None = None, *, to: str | None = None) -> Report:
    """Moves the alias to the previous collection, or to a named one.

    Raises:
        CollectionError: if there is none, it is gone, or vecbeam did not make it for this alias.
        GateError: if it does not hold what its snapshot says; the alias stays.
    """
    with (
        running("rollback", config, progress) as session,
        session.exclusive(),
        milvus.connected(config.collection, create=False) as connection,
    ):
        with Phase(session, "startup"):
            served = milvus.served(connection, config.name)
            state = rollback_target(connection, config, to)
        report = session.report
        if served == state.name:
            session.progress.note(f"{config.name} already points to {state.name}: nothing to do")
        report.collection, report.space, report.snapshot = state.name, state.space_id or "", state.snapshot_id or ""
        _look(session, connection, state)
        # Before the alias moves: a rollback that is stopped in between goes to the same collection again.
        link(connection, state.name, served)
        if milvus.publish(connection, config.name, state.name):
            session.moved(served, state.name)
            session.progress.note(f"the alias {config.name} moved from {served or 'nothing'} to {state.name}")
        report.verify.published = True
    return session.report


def _look(session: Session, connection: milvus.Milvus, state: milvus.CollectionState) -> None:
    """Checks the number of rows, and the rows of the first and the last part.

    Metadata is left out: the collection may be of another configuration, whose defaults are not known here.
    """
    config = session.config
    with Phase(session, "verify"):
        checkpoint, snapshot = find_snapshot(config, state.space_id or "", state.snapshot_id or "")
        open_for_search(connection, state.name)
        parts = snapshot.live_parts
        some = [parts[0], *parts[-1:]][:LOOKED_AT_PARTS] if len(parts) > 1 else parts
        layout = served_layout(state)
        rows = (checkpoint.read_live(part, layout.rows.names) for part in some)
        spec = replace(collection_spec(with_index(config, state), snapshot, layout), metadata=())
        check = milvus.verify_rows(connection, state.name, rows, listed=0, spec=spec)
    expected = snapshot.total("rows")
    verify = session.report.verify
    verify.expected, verify.found = expected, check.total
    verify.missing, verify.stale, verify.damaged = check.missing_count, check.stale_count, check.damaged_count
    verify.columns, verify.compared = dict(check.columns), SAMPLED
    if check.total != expected or check.wrong:
        problems = "; ".join(check.problems()) or "all are right"
        raise GateError(
            f"{state.name} holds {check.total} rows, its snapshot {expected}; of those looked at {problems}; "
            f"the alias {config.name} was not moved",
            "name another collection with --to, or build that one again with the configuration that built it: "
            "vecbeam load --rebuild where that made the current snapshot, else vecbeam reindex",
        )
