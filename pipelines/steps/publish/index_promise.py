"""`collection.index: auto`: whether an index keeps what it promises, and which one is the cheapest that does.

The whole collection is measured in Milvus, with each filter, with wider and wider search parameters, and with the next
index where these do not help, or cost much more than the next one may.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.run.session import Phase, Session
from pipelines.steps.collection.served import open_for_search, with_chosen
from pipelines.steps.publish.index_candidates import candidate_words, shared_vectors, with_candidate
from schemas.errors import GateError
from schemas.milvus import CollectionSpec, index_words
from schemas.milvus.collection_spec import PROPERTY_INDEX
from schemas.run_report import MeasuredIndex
from transforms import milvus
from transforms.checkpoint import Checkpoint, Snapshot, iterate_parts
from transforms.explore.candidate import Candidate
from transforms.explore.index_sweep import NEARLY, wider
from transforms.milvus.nearest import check_filter
from transforms.milvus.rows.row_check import every_id
from transforms.support.fingerprints import fingerprints

CONFIRMING = 1
"""Seed of the queries that confirm a recall; those of the first measurement have 0."""
WORTH_A_BUILD = 1.5
"""Another index is built where the one that keeps the promise costs so many times its least cost."""
QUICK_ROWS = 1_000_000
"""Up to so many rows a build takes minutes: `NEARLY` is worth one."""


class Kept(NamedTuple):
    """A choice that keeps the promise on the whole collection.

    Attributes:
        candidate: with the search parameters that it needs there, and their cost.
        recalls: recall@10 by filter.
    """

    spec: CollectionSpec
    candidate: Candidate
    recalls: Mapping[str, float]


class IndexPromise:
    """Whether indexes of a collection keep what is promised, measured in Milvus over all rows."""

    def __init__(self, session: Session, checkpoint: Checkpoint, snapshot: Snapshot, connection: milvus.Milvus) -> None:
        self._session = session
        self._checkpoint = checkpoint
        self._snapshot = snapshot
        self._connection = connection
        self._tried: list[str] = []

    def keep(
        self, spec: CollectionSpec, choices: Sequence[Candidate], build: Callable[[CollectionSpec], None]
    ) -> CollectionSpec:
        """The collection with the cheapest index that keeps the promise, which becomes a property of the collection.

        Filters and rows outside the sample may need wider search parameters than those of the sample. Another index is
        built where it may cost much less than these.

        Args:
            choices: the best first.
            build: builds the index of a collection.

        Raises:
            GateError: if none keeps it.
        """
        kept: list[Kept] = []
        built: Candidate | None = None
        worth = NEARLY if self._snapshot.total("rows") <= QUICK_ROWS else WORTH_A_BUILD
        for choice in choices:
            if any(one.candidate.cost <= worth * choice.cost for one in kept):
                continue
            chosen = with_candidate(spec, choice)
            build(chosen)
            built = choice
            found = self._kept(chosen, choice)
            kept += [found] if found is not None else []
        if not kept or built is None:
            raise self._broken(spec)
        least = NEARLY * min(one.candidate.cost for one in kept)
        good = [one for one in kept if one.candidate.cost <= least]
        best = min(good, key=lambda one: (one.candidate.memory, one.candidate.cost))
        if (built.type, built.parameters) != (best.candidate.type, best.candidate.parameters):
            build(best.spec)
        self._write(best)
        return best.spec

    def _kept(self, spec: CollectionSpec, candidate: Candidate) -> Kept | None:
        """An index that is built, with the search parameters that keep the promise; None if no wider ones do."""
        promise = dict(spec.promise or {})
        self._session.progress.step("verify")
        with Phase(self._session, "verify"):
            open_for_search(self._connection, spec.name)
            matching = {filter: self._matching(spec.name, filter) for filter in ["", *promise["filters"]]}
            recalls: dict[str, float] = {}
            for search in wider(candidate.type, candidate.search, candidate.parameters.get("nlist", 1)):
                spec = with_candidate(spec, replace(candidate, search=search))
                recalls = self._recalls(spec, matching, promise["recall_at_10"])
                self._session.report.measured_indexes += [
                    MeasuredIndex(
                        type=candidate.type,
                        parameters=dict(candidate.parameters),
                        search=dict(search),
                        recall_at_10=round(recall, 4),
                        rows=self._snapshot.total("rows") if (ids := matching[filter]) is None else len(ids),
                        filter=filter,
                    )
                    for filter, recall in recalls.items()
                ]
                if min(recalls.values()) >= promise["recall_at_10"]:
                    return Kept(spec, candidate.searched(search), recalls)
        worst = min(recalls, key=lambda one: recalls[one])
        under = f" under {worst}" if worst else ""
        self._tried.append(
            f"{candidate_words(replace(candidate, search=search))} on the sample, {recalls[worst]:.4f}{under}"
        )
        return None

    def _broken(self, spec: CollectionSpec) -> GateError:
        """The error where no choice keeps the promise."""
        promise = spec.promise or {}
        return GateError(
            f"{spec.name} did not pass: no index keeps recall@10 {promise['recall_at_10']}: {'; '.join(self._tried)}; "
            f"the alias {spec.alias} was not moved",
            "lower collection.index.recall_at_10, or name an index: collection.index: {type: FLAT} finds every row",
        )

    def _write(self, kept: Kept) -> None:
        spec, candidate, recalls = kept
        chosen = {
            "type": candidate.type,
            "parameters": dict(candidate.parameters),
            "search": dict(candidate.search),
            "promise": dict(spec.promise or {}),
            "recalls": {filter: round(recall, 4) for filter, recall in recalls.items()},
        }
        milvus.set_properties(self._connection, spec.name, {PROPERTY_INDEX: json.dumps(chosen)})
        parameters = {**candidate.parameters, **candidate.search}
        said = index_words(candidate.type, next(iter(spec.vectors)).metric, parameters)
        measured = ", ".join(
            f"{recall:.4f}{f' under {filter}' if filter else ''}" for filter, recall in recalls.items()
        )
        self._session.config = with_chosen(self._session.config, chosen)
        self._session.report.verify.index_chosen = f"{said}; recall@10 {measured}"
        self._session.progress.note(f"chose {said}; recall@10 {measured}")

    def _recalls(
        self, spec: CollectionSpec, matching: Mapping[str, NDArray[np.int64] | None], least: float
    ) -> dict[str, float]:
        """Recall@10 by filter; where all keep the promise, the lower one of two measurements.

        Of many parameters that are tried with the same queries, some pass by chance; other queries confirm them.
        """
        found = {filter: self._recall(spec, filter, ids, 0) for filter, ids in matching.items()}
        if min(found.values()) < least:
            return found
        return {
            filter: min(recall, self._recall(spec, filter, matching[filter], CONFIRMING))
            for filter, recall in found.items()
        }

    def _recall(self, spec: CollectionSpec, filter: str, ids: NDArray[np.int64] | None, seed: int) -> float:
        """The least recall@10 of the vectors; 1 where no row matches."""
        total = self._snapshot.total("rows") if ids is None else len(ids)
        found = [1.0]
        for name, column in shared_vectors(spec):
            measured = milvus.measure_recall(
                self._connection,
                spec,
                partial(self._parts, name, ids),
                total,
                self._session.config.verify.sample,
                seed,
                column,
                filter=filter,
            )
            found += [measured.at_10] if measured is not None else []
        return min(found)

    def _matching(self, name: str, filter: str) -> NDArray[np.int64] | None:
        """Fingerprints of the ids of the rows that a filter leaves; None for all.

        Raises:
            ConfigurationError: if Milvus does not understand the filter.
        """
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
