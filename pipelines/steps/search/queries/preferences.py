"""Queries that rows of the collection make: a row, or what someone liked and disliked.

A recommendation is the mean of the unit vectors of what is liked, minus that of what is disliked: Rocchio's relevance
feedback without a first query (J. J. Rocchio, "Relevance feedback in information retrieval", in The SMART Retrieval
System, 1971; Manning, Raghavan and Schütze, Introduction to Information Retrieval, section 9.1.1), with weights of 1.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pipelines.steps.collection.items_served import IDS_AT_ONCE
from pipelines.steps.search.queries.query import LikeQuery, PreferenceQuery, Query, RowsQuery
from schemas.errors import ConfigurationError
from transforms import milvus

log = logging.getLogger("vecbeam")
_NAMED = 5
"""Ids that a message names."""


class ServedRow(NamedTuple):
    """A row of the collection."""

    id: str
    item_id: str


def with_rows(queries: Sequence[Query], connection: milvus.Milvus, name: str, alias: str) -> list[Query]:
    """Queries, of which those that name rows or items have the rows of the collection.

    Args:
        name: of the collection.
        alias: its name in messages.

    Raises:
        ConfigurationError: if the collection has no row and no item of an id.
        CollectionError: if Milvus does not answer.
    """
    ids = [one for query in queries for one in _ids(query)]
    if not ids:
        return list(queries)
    rows = rows_of(ids, connection, name)
    return [_resolved(query, rows, alias) for query in queries]


def rows_of(ids: Sequence[str], connection: milvus.Milvus, name: str) -> dict[str, list[ServedRow]]:
    """The row of each id, or else the rows of the item of that id; ids of neither are left out."""
    by_row: dict[str, list[ServedRow]] = {}
    by_item: dict[str, list[ServedRow]] = {}
    wanted = list(dict.fromkeys(ids))
    for start in range(0, len(wanted), IDS_AT_ONCE):
        some = ",".join(map(milvus.quoted, wanted[start : start + IDS_AT_ONCE]))
        found = milvus.query(connection, name, f"id in [{some}] or item_id in [{some}]", ["id", "item_id"])
        for row in sorted(ServedRow(one["id"], one["item_id"]) for one in found):
            by_row[row.id] = [row]
            rows = by_item.setdefault(row.item_id, [])
            if row not in rows:
                rows.append(row)
    both = by_item | by_row
    return {one: both[one] for one in wanted if one in both}


def _ids(query: Query) -> list[str]:
    if isinstance(query, LikeQuery):
        return [query.row_id]
    if isinstance(query, PreferenceQuery):
        return [*query.like, *query.not_like, *(one.id for one in query.history)]
    return []


def _resolved(query: Query, rows: Mapping[str, Sequence[ServedRow]], alias: str) -> Query:
    if isinstance(query, LikeQuery):
        query = PreferenceQuery((query.row_id,))
    if not isinstance(query, PreferenceQuery):
        return query
    for option, given in (("--like", query.like), ("--not-like", query.not_like)):
        if unknown := [one for one in given if one not in rows]:
            raise ConfigurationError(
                f"{option}: {alias} has no row {_listed(unknown)}, and no item with that id",
                "name the `id` or the `item_id` of a hit, for example docs/a.md#0 or docs/a.md",
            )
    known = [one for one in query.history if one.id in rows]
    if unknown := [one.id for one in query.history if one.id not in rows]:
        log.warning("%d of %d entries of the history are not in %s: %s", len(unknown), len(query.history), alias,
                    _listed(unknown))  # fmt: skip
    weights = [(one, 1.0) for one in query.like] + [(one, -1.0) for one in query.not_like]
    weights += [(one.id, one.weight) for one in known]
    if not any(weight > 0 for _, weight in weights):
        raise ConfigurationError(
            f"nothing of what is liked is in {alias}" if query.history else "nothing is liked",
            "name rows or items of the collection that are liked, with --like or --history",
        )
    totals = {sign: sum(abs(weight) for _, weight in weights if weight * sign > 0) for sign in (1, -1)}
    shares: dict[str, float] = {}
    for one, weight in weights:
        if weight:
            share = weight / totals[1 if weight > 0 else -1] / len(rows[one])
            for row in rows[one]:
                shares[row.id] = shares.get(row.id, 0.0) + share
    named = [row for one in (*query.like, *query.not_like) for row in rows[one]]
    seen = {row.item_id for one, _ in weights for row in rows[one]} if query.hide_seen else set()
    return RowsQuery(tuple(shares.items()), frozenset(row.id for row in named), frozenset(seen), str(query))


def _listed(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return ", ".join(map(repr, ids[:_NAMED])) + more
