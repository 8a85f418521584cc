"""The limits of a run's vectors: near duplicates, outliers and drift, measured before anything is served."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipelines.run.session import Phase, Session
from pipelines.steps.collection.vector_checks import limits_of
from pipelines.steps.judgement.standing import Standing
from schemas.errors import CheckpointError, GateError, VecbeamError
from schemas.run_report import VectorFindings
from transforms.checkpoint import Checkpoint, Snapshot
from transforms.explore.items_of import items_of
from transforms.explore.live_rows import MOST_ROWS, LiveRows, Sample
from transforms.explore.near_duplicates import near_duplicates
from transforms.explore.outlier_scores import of_all
from transforms.explore.rows_since import rows_since
from transforms.explore.two_samples import FEWEST, separation

K = 10
OUTLIER_SCORE = 3.5
NAMED = 3


def check_draft_vectors(session: Session, checkpoint: Checkpoint, draft: Snapshot, standing: Standing) -> None:
    """`check_vectors_of` for a draft: a refused one is kept next to the snapshots, so that its parts are found."""
    try:
        check_vectors_of(session, checkpoint, draft, standing)
    except VecbeamError as error:
        checkpoint.write_refused(draft, error.message)
        raise


def check_vectors_of(session: Session, checkpoint: Checkpoint, snapshot: Snapshot, standing: Standing) -> None:
    """Measures the vectors of a snapshot that is to be served, once in a run, and puts the figures into the report.

    More than `MOST_ROWS` rows are sampled, by the seed 0: then near duplicates whose pair is not drawn are missed. A
    drift is one where the 95% interval of the classifier's AUC is above `verify.max_drift`.

    Args:
        standing: what is served; the drift is that of the rows which its snapshot does not have.

    Raises:
        GateError: if a limit is passed.
        MissingExtraError: if the extra `explore` is not installed.
    """
    limits = session.config.verify
    if not limits_of(limits) or session.report.vectors is not None:
        return
    session.progress.step("compare vectors")
    with Phase(session, "verify"):
        rows = LiveRows(replace(checkpoint, space_id=snapshot.space_id), snapshot)
        found = session.report.vectors = VectorFindings(rows=len(rows))
        problems: list[str] = []
        if limits.max_duplicates is not None or limits.max_outliers is not None:
            seen = rows.sample(rows.vector_named(), most=MOST_ROWS)
            found.rows_seen = len(seen)
            problems += _of_duplicates(session, seen) + _of_outliers(session, seen)
        if limits.max_drift is not None:
            problems += _of_drift(session, rows, standing)
    if problems:
        raise GateError(
            f"{'; '.join(problems)}; {standing}",
            "change the corpus, or raise the limit, and run the same command again: what is embedded is kept",
        )


def _of_duplicates(session: Session, seen: Sample) -> list[str]:
    limits, found = session.config.verify, session.report.vectors
    if limits.max_duplicates is None or found is None:
        return []
    groups = near_duplicates(seen.normalised, limits.duplicates_above)
    in_group = np.flatnonzero(groups.labels >= 0)
    share = (len(in_group) - groups.count) / len(seen)
    found.duplicates = round(share, 6)
    if share <= limits.max_duplicates:
        return []
    largest = in_group[groups.labels[in_group] == np.bincount(groups.labels[in_group]).argmax()]
    return [
        f"{share:.2%} of the rows are near duplicates of others (cosine of {limits.duplicates_above} or more), "
        f"verify.max_duplicates allows {limits.max_duplicates:.2%}; the largest group has {_named(seen, largest)}"
    ]


def _of_outliers(session: Session, seen: Sample) -> list[str]:
    limits, found = session.config.verify, session.report.vectors
    if limits.max_outliers is None or found is None:
        return []
    measured = of_all(seen.normalised, K)
    far = np.flatnonzero(measured.judged & (measured.scores >= OUTLIER_SCORE))
    share = len(far) / len(seen)
    found.outliers = round(share, 6)
    if share <= limits.max_outliers:
        return []
    farthest = far[np.argsort(-measured.scores[far], kind="stable")]
    return [
        f"{share:.2%} of the rows are outliers, verify.max_outliers allows {limits.max_outliers:.2%}; the farthest are "
        f"{_named(seen, farthest)}"
    ]


def _of_drift(session: Session, rows: LiveRows, standing: Standing) -> list[str]:
    limits, found = session.config.verify, session.report.vectors
    if limits.max_drift is None or found is None:
        return []
    earlier, found.reason = _served_rows(rows, standing)
    if earlier is None:
        return []
    name = rows.vector_named()
    among = rows_since(rows, earlier)
    if not len(among):
        found.reason = "no row is new or changed"
        return []
    new = items_of(rows.sample(name, most=MOST_ROWS, among=among))
    before = items_of(earlier.sample(name, most=MOST_ROWS))
    found.new_items = len(new)
    if min(len(new), len(before)) < FEWEST:
        found.reason = f"fewer than {FEWEST} items on a side: too few to tell"
        return []
    apart = separation(before.normalised, new.normalised)
    found.drift, found.drift_low, found.drift_high = (round(one, 4) for one in (apart.auc, apart.low, apart.high))
    if apart.low <= limits.max_drift:
        return []
    unlike = apart.positions[np.argsort(-apart.scores, kind="stable")]
    return [
        f"a classifier tells the {len(new):,} new items from those that are served with an AUC of {apart.auc:.3f} "
        f"({apart.low:.3f} to {apart.high:.3f}), verify.max_drift allows {limits.max_drift}; the most unlike are "
        f"{_named(new, unlike, 'item_id')}"
    ]


def _served_rows(rows: LiveRows, standing: Standing) -> tuple[LiveRows | None, str]:
    """The rows that are served, or why they can't be compared with."""
    if not standing.collection:
        return None, "nothing is served yet"
    try:
        served = rows.checkpoint.find_snapshot(standing.snapshot) if standing.snapshot else None
    except CheckpointError:  # damaged
        served = None
    if served is None:
        return None, "the checkpoint does not have the snapshot that is served"
    if served.space_id != rows.snapshot.space_id:
        return None, "what is served is of another space"
    return LiveRows(rows.checkpoint, served), ""


def _named(seen: Sample, positions: np.ndarray, column: str = "id") -> str:
    ids = seen.rows.column(column)
    return ", ".join(str(ids[at].as_py()) for at in positions[:NAMED].tolist())
