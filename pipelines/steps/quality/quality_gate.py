"""The part of the gate that measures answers: `verify.queries`, before anything is written into Milvus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa

from pipelines.run.session import Phase, Session
from pipelines.steps.quality.evaluation import Evaluation, check_items
from pipelines.steps.quality.ranked import EmbeddedQueries, embed_queries, rank_exactly
from pipelines.steps.search.queries.query_model import query_settings
from schemas.config import Config
from schemas.errors import CheckpointError, ConfigurationError, GateError
from schemas.identity import digest
from schemas.layout import Layout, VectorField, VectorKind
from schemas.run_report import Quality
from transforms import milvus
from transforms.checkpoint import Checkpoint, Snapshot, read_table, write_table
from transforms.encoders import resolve
from transforms.encoders.fitted.kept_fits import KeptFits
from transforms.encoders.models import corpus_root
from transforms.explore.live_rows import LiveRows
from transforms.load.specification import vector_column
from transforms.quality.bootstrap import intervals
from transforms.quality.judged_queries import JudgedQueries, LoggedQuery, read_judged
from transforms.quality.paired_test import Verdict, compare
from transforms.quality.retrieval_measures import check_measures
from transforms.support.storage import filesystem
from transforms.support.vectors import dense_array, matrix_of

KEYS = ("verify.queries", "verify.truth")
UNKNOWN = "not known"
"""The verdict where there is nothing to compare with."""


def check_gate(config: Config, layout: Layout) -> JudgedQueries | None:
    """The queries of the gate; None if there are none. Called before the corpus is read.

    Raises:
        ConfigurationError: if the files are wrong, or rows have no dense vector.
        MissingExtraError: if ir-measures is not installed.
    """
    verify = config.verify
    if verify.queries is None or verify.truth is None:
        return None
    check_measures(KEYS[0])
    _ranked_by(layout)
    return read_judged(verify.queries, verify.truth, KEYS)


def gate_words(config: Config, queries: int) -> str:
    """What the answers must pass, in words."""
    verify = config.verify
    limits = [] if verify.ndcg_at_10 is None else [f"nDCG@10 at least {verify.ndcg_at_10}"]
    if verify.max_loss is not None:
        limits.append(
            f"at most {verify.max_loss} less than what is served (too few queries to tell: {verify.on_too_few})"
        )
    return f"the answers to {queries:,} queries are measured first: {', '.join(limits)}"


def check_quality(
    session: Session,
    checkpoint: Checkpoint,
    snapshot: Snapshot,
    layout: Layout,
    served: milvus.CollectionState | None = None,
) -> None:
    """Measures the answers of a snapshot, and puts the figures into the report.

    The ranking is exact, over the vectors of the checkpoint: `recall_at_10` of the gate is about the index.

    Args:
        served: what is served, which `verify.max_loss` compares with; None compares with nothing.

    Raises:
        GateError: if the answers are not good enough.
    """
    judged = check_gate(session.config, layout)
    if judged is None:
        return
    verify = session.config.verify
    session.progress.step("verify")
    with Phase(session, "verify"):
        field = _ranked_by(layout)
        rows = LiveRows(replace(checkpoint, space_id=snapshot.space_id), snapshot)
        notes = [*judged.notes, *check_items(judged, rows.tables(["item_id"]), KEYS[1])]
        queries = _embedded(session.config, rows.checkpoint, layout, field, judged.queries)
        metric = vector_column(session.config, field).metric
        now = Evaluation(judged, rank_exactly(rows, field.name, queries, metric))
        [mean] = intervals(now.first[:, None])
        found = Quality(queries=len(judged.queries), ndcg_at_10=round(mean.value, 4), low=mean.low, high=mean.high)
        session.report.quality = found
        session.report.warnings += [f"{KEYS[0]}: {note}" for note in (*notes, *queries.notes)]
        if served is not None and verify.max_loss is not None:
            _compare(session, checkpoint, served, judged, queries, now, found)
    problems = []
    if verify.ndcg_at_10 is not None and mean.value < verify.ndcg_at_10:
        problems.append(f"nDCG@10 is {mean.value:.4f}, verify.ndcg_at_10 is {verify.ndcg_at_10}")
    if found.verdict == Verdict.WORSE or (found.verdict in _UNDECIDED and verify.on_too_few == "fail"):
        problems.append(_of_loss(found, verify.max_loss))
    elif found.verdict in _UNDECIDED:
        session.report.warnings.append(f"{_of_loss(found, verify.max_loss)}; verify.on_too_few is pass")
    if problems:
        raise GateError(
            f"the answers to {found.queries:,} queries are not good enough: {'; '.join(problems)}; Milvus was not "
            "changed",
            "vecbeam evaluate with the same queries and truth shows the worst queries",
        )


_UNDECIDED = (Verdict.TOO_FEW, UNKNOWN)


def _compare(
    session: Session,
    checkpoint: Checkpoint,
    served: milvus.CollectionState,
    judged: JudgedQueries,
    queries: EmbeddedQueries,
    now: Evaluation,
    found: Quality,
) -> None:
    """Fills in how the served collection answers the same queries."""
    try:
        before = _of_served(checkpoint, served, judged, queries, session.report.space)
    except CheckpointError as error:
        found.verdict, found.reason = UNKNOWN, error.message
        return
    compared = compare(before.first, now.first)
    found.served = round(float(before.first.mean()), 4)
    found.difference = round(compared.difference.value, 4)
    found.difference_low, found.difference_high = compared.difference.low, compared.difference.high
    found.won, found.lost = compared.won, compared.lost
    found.verdict = compared.verdict(session.config.verify.max_loss or 0.0)


def _of_served(
    checkpoint: Checkpoint,
    served: milvus.CollectionState,
    judged: JudgedQueries,
    queries: EmbeddedQueries,
    space_id: str,
) -> Evaluation:
    """The answers of the rows that the served collection holds, by the model that made them.

    Raises:
        CheckpointError: if the checkpoint does not have the rows, or not the vectors of the queries for that model.
    """
    identity = served.snapshot_id
    snapshot = checkpoint.find_snapshot(identity) if identity else None
    if snapshot is None:
        raise CheckpointError(f"the checkpoint does not have the snapshot that {served.name} holds")
    there = replace(checkpoint, space_id=snapshot.space_id)
    rows = LiveRows(there, snapshot)
    try:
        name = rows.vector_named()
    except ConfigurationError:
        raise CheckpointError(f"{served.name} has no dense vector") from None
    if snapshot.space_id != space_id:
        uri = _uri(there, name, judged.queries)
        if uri is None or not filesystem.exists(uri):
            raise CheckpointError(
                f"{served.name} is of another model, and the checkpoint does not have the vectors of these queries by "
                "it: run vecbeam verify with the configuration that built it and these queries"
            )
        queries = _read(uri)
    index = served.indexes.get(name)
    return Evaluation(judged, rank_exactly(rows, name, queries, index.metric if index else "COSINE"))


def _embedded(
    config: Config, checkpoint: Checkpoint, layout: Layout, field: VectorField, queries: Sequence[LoggedQuery]
) -> EmbeddedQueries:
    """The queries as vectors. Those of texts are kept in the checkpoint, for a later comparison with another model."""
    uri = _uri(checkpoint, field.name, queries)
    if uri is not None and filesystem.exists(uri):
        return _read(uri)
    kept = KeptFits(corpus_root(config), partial(tuple, [layout.space]), field.name)
    model = resolve(query_settings(config, field.name), kept)
    found = embed_queries(queries, model.load(), model.modalities)
    if uri is not None:
        columns = {"id": pa.array(found.ids, pa.string()), "vector": dense_array(found.vectors)}
        notes = pa.array([list(found.notes)] * len(found.ids), pa.list_(pa.string()))
        write_table(uri, pa.table(columns | {"notes": notes}))
    return found


def _read(uri: str) -> EmbeddedQueries:
    table = read_table(uri)
    vectors = np.asarray(matrix_of(table.column("vector").combine_chunks()), np.float32)
    return EmbeddedQueries(table.column("id").to_pylist(), vectors, table.column("notes")[0].as_py())


def _uri(checkpoint: Checkpoint, vector: str, queries: Sequence[LoggedQuery]) -> str | None:
    """Where the vectors of some texts are; None where a query is a file, whose content may change."""
    if any(one.modality.is_media for one in queries):
        return None
    name = digest([vector, [(one.id, one.content) for one in queries]])
    return filesystem.join(checkpoint.root, checkpoint.space_id, "queries", f"{name}.parquet")


def _ranked_by(layout: Layout) -> VectorField:
    """The vector that the gate ranks by: the first dense one.

    Raises:
        ConfigurationError: if there is none.
    """
    for one in layout.vectors:
        if one.kind is VectorKind.DENSE and one.in_parts:
            return one
    raise ConfigurationError(
        f"{KEYS[0]}: the rows have no dense vector to rank by", "remove it, or add an encoder of dense vectors"
    )


def _of_loss(found: Quality, max_loss: float | None) -> str:
    if found.verdict == UNKNOWN:
        return f"what is served can't be compared with: {found.reason}"
    interval = "" if found.difference_low is None else f" ({found.difference_low:.4f} to {found.difference_high:.4f})"
    few = f"; {found.verdict}" if found.verdict == Verdict.TOO_FEW else ""
    return (
        f"nDCG@10 changes by {found.difference:.4f}{interval} against {found.served:.4f} of what is served, "
        f"{found.won:,} queries won and {found.lost:,} lost, verify.max_loss is {max_loss}{few}"
    )
