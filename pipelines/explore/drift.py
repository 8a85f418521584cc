"""`vecbeam explore drift`: whether new rows are unlike the earlier ones, or another model sees other neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.steps.collection.current_rows import current_rows
from pipelines.steps.collection.earlier_rows import rows_as_of
from pipelines.steps.collection.held import open_snapshot
from pipelines.steps.results.finding import Finding, basis_of
from pipelines.steps.results.joined_table import joined_table
from schemas.config import Config
from schemas.errors import ConfigurationError
from transforms.explore.items_of import items_of
from transforms.explore.live_rows import MOST_ROWS, Floats, LiveRows, Sample
from transforms.explore.neighbour_overlap import neighbour_overlap
from transforms.explore.neighbour_search import EXACT_ROWS
from transforms.explore.rows_since import rows_since
from transforms.explore.two_samples import FEWEST, Separation, discrepancy, mean_distance, separation

LEVEL = 0.01
K = 10


def drift(
    config: Config,
    *,
    since: str = "",
    against: Config | None = None,
    level: float = LEVEL,
    k: int = K,
    vector: str = "",
    sample: int = MOST_ROWS,
    seed: int = 0,
    served: bool = False,
) -> Finding:
    """Drift of the corpus since a date or snapshot, or of the model against another configuration.

    Of the corpus: the items that have rows which are new or changed since then are compared with the items as of then.
    Of the model: both configurations embed the same items; of each item, the nearest ones in both spaces are compared.

    Args:
        since: see `rows_as_of`.
        against: another configuration, over the same items.
        level: of the permutation test: as often at most it finds a drift where there is none.
        k: neighbours of an item, with `against`.
        vector: which dense vector, by default the first one.
        sample: most rows of each side, drawn by `seed`.
        served: looks at the snapshot that the served collection holds.

    Returns:
        A finding. With `since`: the new items, the most unlike the earlier ones first; figures are the distance of the
        means, the squared maximum mean discrepancy and its p-value, the AUC of a classifier with its 95% interval, and
        whether the corpus drifted (p-value at most `level`). With `against`: the items, those with the fewest common
        neighbours first; figures are the mean overlap with its 95% interval, and the overlap of chance.

    Raises:
        ConfigurationError: both or neither of since and against, a level or k out of range, no such snapshot, or
            configurations with too few common items, or over one snapshot.
        CheckpointError: if there is no snapshot, or it has no row.
        SpaceMismatchError: if both have one checkpoint, without a snapshot of the space of one of them.
    """
    if bool(since) == (against is not None):
        raise ConfigurationError(
            "drift is measured with --since or with --against" + (", not with both" if since else ""),
            "write --since 2026-11-01, --since SNAPSHOT, or --against other.yaml",
        )
    if not 0 < level < 1:
        raise ConfigurationError(f"--level: {level} is not between 0 and 1", f"for example --level {LEVEL}")
    if k < 1:
        raise ConfigurationError(f"-k: {k} is not a number of neighbours", f"for example -k {K}")
    if against is not None:
        return _of_model(config, against, k, vector, sample, seed, served=served)
    return _of_corpus(config, since, level, vector, sample, seed, served=served)


def _of_corpus(
    config: Config, since: str, level: float, vector: str, sample: int, seed: int, *, served: bool
) -> Finding:
    rows = current_rows(config, served=served)
    name = rows.vector_named(vector)
    earlier = rows_as_of(config, rows, since)
    among = rows_since(rows, earlier)
    seen = rows.sample(name, most=sample, seed=seed, among=among)
    basis = basis_of(rows, seen, name) | {"earlier_snapshot": earlier.snapshot.id}
    figures: dict[str, Any] = {"new_rows": len(among)}
    title = f"Drift of {len(among):,} new rows since the snapshot {earlier.snapshot.name}"
    nothing = pa.table({"score": pa.array([], pa.float64())})
    if not len(among):
        return Finding(title, basis, figures | {"drifted": False}, nothing, ["no row is new or changed since then"])
    new = items_of(seen)
    before = items_of(earlier.sample(name, most=sample, seed=seed))
    figures |= {"items": len(new), "earlier_items": len(before)}
    if min(len(new), len(before)) < FEWEST:
        note = f"fewer than {FEWEST} items on a side: too few to tell"
        return Finding(title, basis, figures | {"drifted": None}, nothing, [note])
    first, second = before.normalised, new.normalised
    mmd, apart = discrepancy(first, second, seed), separation(first, second, seed)
    figures |= {
        "drifted": mmd.p_value <= level,
        "p_value": round(mmd.p_value, 4),
        "mmd_squared": round(mmd.squared, 6),
        "auc": round(apart.auc, 4),
        "auc_interval": [round(apart.low, 4), round(apart.high, 4)],
        "mean_distance": round(mean_distance(first, second), 4),
    }
    order = np.argsort(-apart.scores, kind="stable")
    table = joined_table(pa.table({"score": apart.scores[order]}), new.taken(apart.positions[order]).rows)
    notes = ["score is how probable it is that the item is a new one, by a model that has not seen it"]
    return Finding(title, basis, figures, table, notes, plots=lambda: _histogram(apart))


def _of_model(config: Config, against: Config, k: int, vector: str, sample: int, seed: int, *, served: bool) -> Finding:
    rows, others = _spaces(config, against, served=served)
    name = rows.vector_named(vector)
    other = others.vector_named(vector if vector in against.vectors else "")
    # Of many, the same items have to be drawn on both sides: so the drawing is of items, after reading.
    first, second = _common(
        items_of(rows.sample(name, most=sample, seed=seed)),
        items_of(others.sample(other, most=sample, seed=seed)),
        seed,
    )
    if len(first) < k + 2:
        raise ConfigurationError(
            f"--against: {config.name} and {against.name} have {len(first)} items in common, and {k} neighbours need "
            f"{k + 2} or more",
            "name a configuration over the same corpus, or lower -k",
        )
    overlap, near, near_other = neighbour_overlap(first.normalised, second.normalised, k, seed)
    ids = first.rows.column("item_id")
    order = np.argsort(overlap, kind="stable")
    mean = float(overlap.mean())
    error = 1.96 * float(overlap.std()) / len(overlap) ** 0.5
    figures: dict[str, Any] = {
        "k": k,
        "items": len(first),
        "overlap": round(mean, 4),
        "overlap_interval": [round(max(0.0, mean - error), 4), round(min(1.0, mean + error), 4)],
        "by_chance": round(k / (len(first) - 1), 4),
        "same_space": rows.snapshot.space_id == others.snapshot.space_id,
    }
    named = ids.to_pylist()
    facts = pa.table(
        {
            "overlap": overlap[order].astype(np.float64),
            "neighbours": [[named[at] for at in near[row]] for row in order],
            "other_neighbours": [[named[at] for at in near_other[row]] for row in order],
        }
    )
    basis = basis_of(rows, None, name)
    basis |= {"other": against.name, "other_snapshot": others.snapshot.id, "other_space": others.snapshot.space_id}
    title = f"Neighbours of {len(first):,} items in two spaces"
    table = joined_table(facts, first.rows.take(pa.array(order)))
    return Finding(title, basis, figures, table, plots=lambda: _shares(overlap, k))


def _spaces(config: Config, against: Config, *, served: bool) -> tuple[LiveRows, LiveRows]:
    """The rows of two configurations. Of one checkpoint, they are the newest ones of the space of each."""
    rows, others = current_rows(config, served=served), current_rows(against, served=served)
    if not _is_same(rows, others) or config.vectors == against.vectors:
        return rows, others
    if not served:
        rows, others = (LiveRows(*open_snapshot(one)[:2]) for one in (config, against))
    if _is_same(rows, others):
        raise ConfigurationError(
            f"--against: both configurations look at the snapshot {rows.snapshot.name}, which would be compared with "
            "itself",
            "leave --served out"
            if served
            else f"give {against.name} a checkpoint of its own, and run vecbeam backfill",
        )
    return rows, others


def _is_same(rows: LiveRows, others: LiveRows) -> bool:
    return (rows.checkpoint.root, rows.snapshot.name) == (others.checkpoint.root, others.snapshot.name)


def _common(first: Sample, second: Sample, seed: int) -> tuple[Sample, Sample]:
    """The items that both have, in one order; at most `EXACT_ROWS`, drawn by the seed."""
    places = {one: at for at, one in enumerate(second.rows.column("item_id").to_pylist())}
    pairs = [(at, places[one]) for at, one in enumerate(first.rows.column("item_id").to_pylist()) if one in places]
    if len(pairs) > EXACT_ROWS:
        chosen = np.sort(np.random.default_rng(seed).choice(len(pairs), EXACT_ROWS, replace=False))
        pairs = [pairs[at] for at in chosen.tolist()]
    at, other = (np.asarray([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    return first.taken(at), second.taken(other)


def _histogram(apart: Separation) -> list[tuple[str, Any]]:
    import plotly.graph_objects as go

    counts, borders = np.histogram(apart.scores, bins=20, range=(0, 1))
    figure = go.Figure(go.Bar(x=(borders[1:] + borders[:-1]) / 2, y=counts, marker_color="#0b5cad"))
    figure.update_layout(xaxis_title="how probable it is that the item is a new one", yaxis_title="new items", bargap=0)
    return [("New items by how unlike the earlier ones they are", figure)]


def _shares(overlap: Floats, k: int) -> list[tuple[str, Any]]:
    import plotly.graph_objects as go

    counts = np.bincount(np.rint(overlap * k).astype(int), minlength=k + 1)
    figure = go.Figure(go.Bar(x=list(range(k + 1)), y=counts, marker_color="#0b5cad"))
    figure.update_layout(xaxis_title=f"common neighbours of {k}", yaxis_title="items")
    return [("Items by their common neighbours", figure)]
