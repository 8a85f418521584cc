"""Brings a served collection in sync with a newer snapshot, in place: deletes, upserts, index, verify."""

from __future__ import annotations

from dataclasses import replace

from pipelines.run.session import Phase, Session
from pipelines.steps.collection.served import check_space, misfits, open_for_search, with_index
from pipelines.steps.judgement.limits import check_rows_at_all, excess, remedy
from pipelines.steps.judgement.standing import Standing
from pipelines.steps.judgement.vector_limits import check_vectors_of
from pipelines.steps.publish.collection_run import CollectionRun
from pipelines.steps.publish.inspection import Inspection
from pipelines.steps.publish.part_jobs import Writes
from pipelines.steps.publish.publication import Publication
from pipelines.steps.publish.update_step import UpdateStep
from pipelines.steps.quality.quality_gate import check_quality
from schemas.config import Config
from schemas.errors import CheckpointError, CollectionError, RejectsError
from schemas.layout import Layout
from schemas.milvus import PROPERTY_SNAPSHOT, PROPERTY_TARGET, CollectionSpec
from transforms import milvus
from transforms.checkpoint import Checkpoint, Snapshot
from transforms.load.specification import collection_spec
from transforms.load.upsert_parts import Ledger
from transforms.milvus.rows.row_check import ALL_COLUMNS
from transforms.support.storage import filesystem


def check_fits(
    state: milvus.CollectionState, config: Config, snapshot: Snapshot | None, layout: Layout
) -> CollectionSpec:
    """The served collection as a spec to write to.

    Args:
        snapshot: what it should hold; None if that is not known yet.

    Raises:
        SpaceMismatchError: if it holds another space.
        CollectionError: if it has other fields or another index than the configuration.
    """
    check_space(state, config, layout.space)
    spec = replace(collection_spec(with_index(config, state), snapshot, layout), name=state.name)
    if different := misfits(state, spec):
        raise CollectionError(
            f"{config.name} serves {state.name}, which differs from the configuration: {'; '.join(different)}",
            "build another collection with vecbeam reindex, or restore the configuration",
        )
    return spec


class Update:
    """A served collection on its way to a snapshot.

    Args:
        state: the collection as Milvus describes it.
        connection: to Milvus, open.
        allow_deletes: lifts `corpus.max_deleted` where rows are compared one by one.
    """

    def __init__(
        self,
        session: Session,
        checkpoint: Checkpoint,
        snapshot: Snapshot,
        layout: Layout,
        state: milvus.CollectionState,
        connection: milvus.Milvus,
        *,
        allow_deletes: bool = False,
    ) -> None:
        spec = check_fits(state, session.config, snapshot, layout)
        self._given = CollectionRun(session, checkpoint, snapshot, spec, connection)
        self._session = session
        self._snapshot = snapshot
        self._state = state
        self._layout = layout
        self._allow_deletes = allow_deletes
        self._publication = Publication(self._given)

    def run(self) -> None:
        """Does what is to be done, or nothing.

        Raises:
            RejectsError: if more was rejected than allowed; then the collection stays as it is.
            GateError: if the answers are not good enough, or the rows are not right afterwards.
        """
        session, state = self._session, self._state
        session.report.verify.published = True
        check_rows_at_all(self._snapshot, Standing(state.name))
        over = excess(self._snapshot, session.config)
        if state.snapshot_id == self._snapshot.id and not state.target_id:
            self._check_count()
        elif over:
            raise RejectsError(f"{over}; the collection {state.name} stays as it is", remedy(over, lossless=False))
        else:
            if not state.target_id:  # an update that has begun is completed
                stands = Standing(state.name, snapshot=state.snapshot_id or "")
                check_vectors_of(session, self._given.checkpoint, self._snapshot, stands)
            if state.target_id != self._snapshot.id:
                check_quality(session, self._given.checkpoint, self._snapshot, self._layout, state)
            self._bring()
        if not self._publication.inspection.check_sample().clean:
            self._publication.inspection.gate(self._publication.inspection.check_rows(), recall=False)
        if over:
            raise RejectsError(f"{over}; the good rows are served as {self._given.spec.alias}", remedy(over))

    def repair(self, *, compared: str = ALL_COLUMNS) -> milvus.RowCheck:
        """Brings the collection to the snapshot whatever it holds, by looking at every row.

        Args:
            compared: all columns, or ids and hashes.

        Returns:
            What the last comparison found, after the last write.

        Raises:
            GateError: if more rows would be deleted than allowed, or the rows are still not right.
        """
        known = self._state.snapshot_id == self._snapshot.id and not self._state.target_id
        check = self._publication.repair(everything=not known, allow_deletes=self._allow_deletes, compared=compared)
        if not known:
            self._settle(self._snapshot)
        return check

    def _check_count(self) -> None:
        """Checks a collection that should be in sync by its number of rows."""
        with Phase(self._session, "verify"):
            open_for_search(self._given.connection, self._given.spec.name)
            found = milvus.count(self._given.connection, self._given.spec.name)
        expected = self._given.rows
        self._session.report.verify.expected, self._session.report.verify.found = expected, found
        # A run that was killed after its last write leaves its notes behind.
        self._ledger(self._snapshot).close()
        if found != expected:
            self._publication.inspection.gate(self._publication.inspection.check_rows(), recall=False)

    def _bring(self) -> None:
        state = self._state
        try:
            if state.target_id and state.target_id != self._snapshot.id:
                # An earlier sync was stopped on its way to another snapshot: what it wrote must be known first.
                self._step(self._find(state.snapshot_id), self._find(state.target_id))
                self._step(self._find(state.target_id), self._snapshot)
            else:
                self._step(self._find(state.snapshot_id), self._snapshot)
        except CheckpointError as error:
            # Without the old rows it is not known what to delete, so the whole collection is compared with the
            # snapshot.
            self._session.progress.note(f"{error.message}: comparing {state.name} row by row")
            self.repair()

    def _find(self, identity: str | None) -> Snapshot:
        found = self._given.checkpoint.find_snapshot(identity) if identity else None
        if found is None:
            raise CheckpointError(f"the snapshot {identity} that {self._state.name} holds is no longer there")
        return found

    def _step(self, old: Snapshot, new: Snapshot) -> None:
        given = replace(self._given, snapshot=new)
        ledger = self._ledger(new)
        step = UpdateStep(given, old, ledger)
        writes = step.before_comparison()
        if writes is None:
            given.session.discard_left()  # a comparison of what the collection held before
        milvus.set_properties(given.connection, given.spec.name, {PROPERTY_TARGET: new.id})
        if step.has_work:
            if writes is None:
                step.run()
                self._publication.index()
            self._check(given, step, writes)
        filesystem.delete_folder(step.folder)
        self._settle(new)
        ledger.close()

    def _ledger(self, new: Snapshot) -> Ledger:
        return Ledger(self._given.checkpoint, self._given.spec.name, f"{self._state.load_id}-{new.id}")

    def _check(self, given: CollectionRun, step: UpdateStep, writes: Writes | None) -> None:
        """Verifies what was written, and the number of all rows; if that is not right, every row."""
        inspection = Inspection(given)
        check = inspection.check_written(step.positions, step.folder, writes=writes)
        verify, expected = self._session.report.verify, given.rows
        verify.expected, verify.found = expected, check.total
        if check.wrong or check.total != expected:
            inspection.gate(inspection.check_rows(), recall=False)

    def _settle(self, snapshot: Snapshot) -> None:
        properties = {PROPERTY_SNAPSHOT: snapshot.id, PROPERTY_TARGET: snapshot.id}
        milvus.set_properties(self._given.connection, self._given.spec.name, properties)
