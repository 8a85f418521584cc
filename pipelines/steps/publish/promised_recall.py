"""Whether an index keeps a promised recall in Milvus, over all rows and under each filter, with a margin for chance.

Rows are the queries: those that a filter leaves, for a search with that filter. Few of them tell most indexes apart.
Only where chance could decide there are more, up to all rows of a filter. What is wanted is the recall of queries that
nobody has seen, so also all rows of a filter are a sample, and have a standard error. What queries that are not rows
find less is measured on a sample: `transforms.explore.unseen_queries`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.run.session import Session
from pipelines.steps.publish.index_candidates import shared_vectors
from schemas.milvus import CollectionSpec, VectorColumn, index_words
from schemas.run_report import MeasuredIndex
from transforms import milvus
from transforms.checkpoint import Checkpoint, Snapshot, iterate_parts
from transforms.explore.faiss_indexes import Positions
from transforms.explore.live_rows import LiveRows
from transforms.explore.unseen_queries import SplitRows, UnseenRecall, positions_of, split, unseen_recalls
from transforms.milvus.nearest import check_filter
from transforms.milvus.recall import RepeatedRecall
from transforms.milvus.rows.row_check import every_id
from transforms.support.fingerprints import fingerprints

FEW, MOST = 200, 4_000
"""Queries of a first measurement, and most of a second one; `verify.sample`, if that is more."""
PAIRS = 1_000_000_000
"""Most pairs of a query and a row that a second measurement compares: MOST queries up to 250,000 rows."""
CLEAR = 2.0
"""Standard errors from the promise at which few queries are enough. It is the largest error that recalls of queries can
have whose mean is the promise: most queries find all and some little, so few may show none of the latter."""
CERTAIN = 1.645
"""Standard errors above the promise with which many queries keep it: it is 95% certain that others do as well."""


class UnderFilter(NamedTuple):
    """Recall@10 of searches with a filter.

    Attributes:
        rows: what rows find.
        unseen: what that means for queries that are not rows.
        least, most: that of the latter is not less and not more, each with 95% certainty.
    """

    rows: float
    unseen: float
    least: float
    most: float


class RecallVerdict(NamedTuple):
    """What was measured of an index.

    Attributes:
        keeps: whether the recall of queries that are not rows is at least as promised under each filter.
        recalls: recall@10 of rows by filter; those after one that breaks the promise were not measured.
        unseen: what that means for queries that are not rows.
    """

    keeps: bool
    recalls: dict[str, float]
    unseen: dict[str, float]


class PromisedRecall:
    """The recall that a collection promises, held against its indexes.

    Args:
        spec: names the collection, its promise and its vectors.

    Raises:
        ConfigurationError: if Milvus does not understand one of the filters.
    """

    def __init__(
        self,
        session: Session,
        checkpoint: Checkpoint,
        snapshot: Snapshot,
        connection: milvus.Milvus,
        spec: CollectionSpec,
    ) -> None:
        self._session = session
        self._checkpoint = checkpoint
        self._snapshot = snapshot
        self._connection = connection
        promise = dict(spec.promise or {})
        self._promised: float = promise["recall_at_10"]
        self._filters = ["", *promise["filters"]]
        self._matching = {filter: self._ids(spec.name, filter) for filter in self._filters}
        self._repeated: dict[tuple[str, str, int], RepeatedRecall] = {}
        self._positions: dict[str, Positions] | None = None
        self._split: dict[str, SplitRows] = {}
        self._translations: dict[str, dict[str, list[UnseenRecall]]] = {}

    def measure(self, spec: CollectionSpec, *, thorough: bool = False) -> RecallVerdict:
        """Measures an index that is built and in memory, searched as its specification says.

        Args:
            thorough: asks many queries also where few would tell.
        """
        found: dict[str, UnderFilter] = {}
        keeps = True
        for filter in self._filters:
            found[filter] = self._under(spec, filter, thorough=thorough)
            keeps = found[filter].least >= self._promised
            if not keeps:
                # It is likely to break the promise again: it comes first the next time.
                self._filters = [filter, *(one for one in self._filters if one != filter)]
                break
        self._report(spec, found)
        measured = [filter for filter in self._matching if filter in found]
        return RecallVerdict(
            keeps,
            {filter: found[filter].rows for filter in measured},
            {filter: found[filter].unseen for filter in measured},
        )

    def held(self, spec: CollectionSpec) -> dict[str, UnderFilter]:
        """Measures all filters, by many queries."""
        found = {filter: self._under(spec, filter, thorough=True) for filter in self._matching}
        self._report(spec, found)
        return found

    def _report(self, spec: CollectionSpec, found: Mapping[str, UnderFilter]) -> None:
        column = next(one for _, one in shared_vectors(spec))
        self._session.report.measured_indexes += [
            MeasuredIndex(
                type=column.index_type,
                parameters=dict(column.build_parameters),
                search=dict(column.search_parameters),
                recall_at_10=round(one.rows, 4),
                unseen_at_10=round(one.unseen, 4),
                rows=self._rows(filter),
                filter=filter,
            )
            for filter, one in found.items()
        ]

    def _under(self, spec: CollectionSpec, filter: str, *, thorough: bool) -> UnderFilter:
        rows = self._rows(filter)
        translations = self._unseen(spec)[filter]

        def of_unseen(recall: float) -> float:
            return min(one.of(recall) for one in translations)

        few = max(FEW, self._session.config.verify.sample)
        many = max(few, min(MOST, PAIRS // max(rows, 1)))
        recall, error = self._recall(spec, filter, many if thorough else few)
        unclear = CLEAR * math.sqrt(max(self._promised * (1 - self._promised), 1 / few) / few)
        if not thorough and few < min(many, rows) and abs(of_unseen(recall) - self._promised) < unclear:
            recall, error = self._recall(spec, filter, many)
        least, most = recall - CERTAIN * error, min(recall + CERTAIN * error, 1.0)
        return UnderFilter(recall, of_unseen(recall), of_unseen(least), of_unseen(most))

    def _unseen(self, spec: CollectionSpec) -> dict[str, list[UnseenRecall]]:
        """How recalls of rows translate for an index, of each vector, by filter; measured once for an index."""
        column = next(one for _, one in shared_vectors(spec))
        index = index_words(column.index_type, "", column.index_parameters)
        if index not in self._translations:
            found = [self._translated(name, one) for name, one in shared_vectors(spec)]
            self._translations[index] = {filter: [one[filter] for one in found] for filter in self._matching}
        return self._translations[index]

    def _translated(self, vector: str, column: VectorColumn) -> dict[str, UnseenRecall]:
        if not column.search_parameters:
            return dict.fromkeys(self._matching, UnseenRecall())  # it reads every row
        rows = LiveRows(self._checkpoint, self._snapshot)
        if self._positions is None:
            self._positions = positions_of(rows, self._matching)
        if vector not in self._split:
            self._split[vector] = split(rows, vector, self._positions)
        given = self._split[vector]
        return unseen_recalls(given, column.metric, column.index_type, column.index_parameters, len(rows))

    def _recall(self, spec: CollectionSpec, filter: str, queries: int) -> tuple[float, float]:
        """The least recall@10 of the vectors and its standard error; 1 where no row matches."""
        rows = self._rows(filter)
        found = [(1.0, 0.0)]
        for name, column in shared_vectors(spec):
            key = (name, filter, queries)
            if key not in self._repeated:
                parts = partial(self._parts, name, self._matching[filter])
                self._repeated[key] = RepeatedRecall(parts, rows, queries, filter)
            measured = self._repeated[key].measure(self._connection, spec, column)
            found += [(measured.at_10, measured.error)] if measured is not None else []
        return min(found, key=lambda one: one[0] - CERTAIN * one[1])

    def _rows(self, filter: str) -> int:
        ids = self._matching[filter]
        return self._snapshot.total("rows") if ids is None else len(ids)

    def _ids(self, name: str, filter: str) -> NDArray[np.int64] | None:
        """Fingerprints of the ids of the rows that a filter leaves; None for all."""
        if not filter:
            return None
        check_filter(self._connection, name, filter)
        return np.concatenate(
            [np.zeros(0, np.int64), *(fingerprints(ids) for ids in every_id(self._connection, name, filter))]
        )

    def _parts(self, vector: str, ids: NDArray[np.int64] | None) -> Iterator[pa.Table]:
        for part in iterate_parts(self._checkpoint, self._snapshot.live_parts, ["id", vector]):
            if ids is None:
                yield part
            else:
                yield part.filter(pa.array(np.isin(fingerprints(part.column("id").to_pylist()), ids)))
