"""`vecbeam evaluate CONFIG`: how good the answers are, by queries whose answers are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.steps.quality.configurations import check_same_corpus, queries_of, table_of
from pipelines.steps.quality.configured_rows import AMONG_OTHERS, open_rows
from pipelines.steps.quality.evaluation import Evaluation, check_items
from pipelines.steps.quality.ranked import rank_served
from pipelines.steps.results.finding import Finding, basis_of
from pipelines.steps.search.queries.query_model import vector_named
from pipelines.steps.search.searcher import Searcher
from schemas.config import Config
from schemas.errors import ConfigurationError
from transforms.explore.live_rows import LiveRows
from transforms.quality.judged_queries import QUERIES, TRUTH, read_judged
from transforms.quality.known_items import KEY, KnownItems, from_sentences, from_titles
from transforms.quality.retrieval_measures import FIRST, check_measures


def evaluate(
    config: Config,
    *,
    queries: str | Path = "",
    truth: str | Path = "",
    known_items: int = 0,
    title: str = "",
    vector: str | Sequence[str] = (),
    served: bool = False,
    seed: int = 0,
) -> Finding:
    """nDCG@10, recall@10, recall@100 and MRR of the newest snapshot, or of what is served.

    The ranking is one of items: the best row of an item counts. Queries are embedded by the configuration's encoder.

    Args:
        queries, truth: files; see `transforms.quality.judged_queries`. By default those of the gate, `verify.queries`.
        known_items: makes so many queries of the corpus instead.
        title: the column that known-item queries come from; sentences of texts without it.
        vector: by default the first dense one. With `served` of any kind, and several are fused by rank.
        served: ranks by the served index, and in addition exactly, where the vector is dense.
        seed: by which known items and the bootstrap are drawn.

    Returns:
        A finding with one row for each query, the worst first: its measures, how many items are relevant, and the ranks
        of those among the first 100.

    Raises:
        ConfigurationError: for wrong files or options, or a vector that is not dense without `served`.
        CheckpointError: if there is no snapshot of the configuration's space, it has no row, or a vector is not finite.
        CollectionError: with `served`, if nothing is served.
    """
    queries, truth = files_of(config, str(queries), str(truth), known_items)
    check_options(queries, truth, known_items, title)
    check_measures("vecbeam evaluate")
    names = [vector] if isinstance(vector, str) else list(vector)
    names = [name for name in names if name]
    for name in names:
        vector_named(config, name)
    opened = open_rows(config, names, served=served)
    rows, name = opened.rows, opened.name
    made = _queries(rows, queries, truth, known_items, title, seed)
    judged = made.judged
    notes = list(judged.notes)
    notes += check_items(judged, rows.tables(["item_id"]), f"{TRUTH} {truth}" if truth else KEY, served=served)
    exact = None
    if opened.model is not None:
        exact = Evaluation(judged, opened.ranked(judged.queries, made.held_out), seed)
    basis = basis_of(rows, vector=", ".join(names) or name)
    if served:
        if made.held_out:
            notes.append("the served rows have the sentences that are queries: only the exact figures are without them")
        searcher = Searcher(config)
        try:
            shown = Evaluation(judged, rank_served(searcher, judged.queries, names), seed)
        finally:
            searcher.close()
    else:
        assert exact is not None
        shown = exact
    figures: dict[str, Any] = {"ranking": "the served index" if served else "exact", "queries": len(judged.queries)}
    figures |= shown.means()
    if served and exact is not None:
        figures["exact"] = {name: one["value"] for name, one in exact.means().items()}
    if len(judged.queries) == 1:
        notes.append("one query tells nothing about others: there is no interval")
    notes += shown.ranked.notes
    slices = shown.slices()
    return Finding(
        f"Evaluation with {len(judged.queries):,} queries",
        basis,
        figures,
        shown.queries(),
        notes,
        plots=lambda: _plots(shown.queries()),
        tables={} if slices is None else {"slices": slices},
    )


def evaluate_each(
    configurations: Mapping[str, Config],
    *,
    queries: str | Path = "",
    truth: str | Path = "",
    known_items: int = 0,
    title: str = "",
    vector: str | Sequence[str] = (),
    served: bool = False,
    seed: int = 0,
) -> Finding:
    """Several configurations of one corpus with the same queries, ranked exactly.

    Args:
        configurations: by name, at least two. The first one is what the others are compared with.

    Returns:
        A finding whose table `configurations` has a row for each of them, and whose rows are the queries.

    Raises:
        ConfigurationError: in addition to what `evaluate` raises, if the configurations hold different items.
    """
    check_measures("vecbeam evaluate")
    if len(configurations) < 2:
        raise ConfigurationError("-c: one configuration can't be compared", "name another with -c")
    queries, truth = files_of(next(iter(configurations.values())), str(queries), str(truth), known_items)
    check_options(queries, truth, known_items, title)
    if served:
        raise ConfigurationError("--served: several configurations are ranked exactly", "leave it out, or name one")
    if known_items and not title:
        raise ConfigurationError(f"{KEY}: sentences are of one configuration's chunks", "name a column with --title")
    names = [one for one in ([vector] if isinstance(vector, str) else vector) if one]
    opened = {name: open_rows(config, names, remedy=AMONG_OTHERS) for name, config in configurations.items()}
    check_same_corpus(opened)
    first = next(iter(opened.values())).rows
    judged = _queries(first, queries, truth, known_items, title, seed).judged
    notes = [*judged.notes, *check_items(judged, first.tables(["item_id"]), f"{TRUTH} {truth}" if truth else KEY)]
    evaluations = []
    for name, one in opened.items():
        evaluations.append(Evaluation(judged, one.ranked(judged.queries), seed))
        notes += [f"{name}: {note}" for note in evaluations[-1].ranked.notes]
    notes.append(
        "differences of nDCG@10 are to the first configuration; memory is estimated from the index's parameters"
    )
    return Finding(
        f"{len(opened)} configurations with {len(judged.queries):,} queries",
        {name: one.rows.snapshot.id for name, one in opened.items()},
        {"queries": len(judged.queries)},
        queries_of(list(opened), evaluations),
        notes,
        tables={"configurations": table_of(opened, evaluations, seed)},
    )


def files_of(config: Config, queries: str, truth: str, known_items: int) -> tuple[str, str]:
    """The files of queries and truth: those given, or if none are, those of the configuration's gate."""
    if queries or truth or known_items or config.verify.queries is None or config.verify.truth is None:
        return queries, truth
    return config.verify.queries, config.verify.truth


def check_options(queries: str, truth: str, known_items: int, title: str) -> None:
    """Raises ConfigurationError unless the options name queries with their truth, or known items."""
    if known_items < 0:
        raise ConfigurationError(f"{KEY}: {known_items} is not a number of queries", f"for example {KEY} 200")
    if title and not known_items:
        raise ConfigurationError("--title names a column for known-item queries", f"add {KEY} 200, for example")
    if known_items and (queries or truth):
        raise ConfigurationError(f"{KEY} makes queries, and {QUERIES} or {TRUTH} names some", "name one of the two")
    if known_items:
        return
    if not queries or not truth:
        missing = " and ".join(key for key, given in ((QUERIES, queries), (TRUTH, truth)) if not given)
        raise ConfigurationError(
            f"{missing}: not given",
            f"name both files, or set verify.queries and verify.truth; or {KEY} 200, which makes queries of the corpus",
        )


def _queries(rows: LiveRows, queries: str, truth: str, known_items: int, title: str, seed: int) -> KnownItems:
    if not known_items:
        return KnownItems(read_judged(queries, truth), [])
    return from_titles(rows, title, known_items, seed) if title else from_sentences(rows, known_items, seed)


def _plots(queries: pa.Table) -> list[tuple[str, Any]]:
    import plotly.graph_objects as go

    figure = go.Figure(go.Histogram(x=queries.column(FIRST).to_pylist(), xbins={"start": 0, "end": 1.05, "size": 0.05}))
    figure.update_layout(xaxis_title="nDCG@10 of a query", yaxis_title="queries", template="plotly_white")
    return [("Queries by nDCG@10", figure)]
