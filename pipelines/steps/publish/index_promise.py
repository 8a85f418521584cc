"""`collection.index: auto`: whether an index keeps what it promises, and which one is the cheapest that does.

The whole collection is measured in Milvus, with each filter, to find the narrowest search that keeps the promise; the
next index too, where no search does, or that one costs more than the next index may.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from pipelines.run.session import Phase, Session
from pipelines.steps.collection.served import open_for_search, with_chosen
from pipelines.steps.publish.index_candidates import candidate_words, with_candidate
from pipelines.steps.publish.promised_recall import PromisedRecall, RecallVerdict
from schemas.errors import GateError
from schemas.milvus import CollectionSpec, index_words
from schemas.milvus.collection_spec import PROPERTY_INDEX
from transforms import milvus
from transforms.checkpoint import Checkpoint, Snapshot
from transforms.explore.candidate import Candidate
from transforms.explore.search_width import CLOSE, NEARLY, narrowest

WORTH_A_BUILD = 1.5
"""Another index is built where the one that keeps the promise costs so many times its least cost."""
QUICK_ROWS = 1_000_000
"""Up to so many rows a build takes minutes: `NEARLY` is worth one."""
SETTLED_AFTER = 6
"""Most measurements at the end of a choice, by many queries each, and none with a narrower search than the last one.
Graphs of the server 2.3.5 find less with each of the first thousands of searches."""
SETTLED = 0.001


class Kept(NamedTuple):
    """A choice that keeps the promise on the whole collection.

    Attributes:
        candidate: with the search parameters that it needs there, and their cost.
        verdict: recall@10 by filter.
    """

    spec: CollectionSpec
    candidate: Candidate
    verdict: RecallVerdict


class _TooCostlyError(Exception):
    """A search that costs more than that of another index does not keep the promise yet."""


class _Widths:
    """Searches of one index that is built, each measured over the whole collection.

    Args:
        least: no search is tried that is narrower.
        most: cost of a search from which on the index is of no use.

    Attributes:
        last: what was measured last: the candidate with its search, and the recalls.
    """

    def __init__(
        self,
        promised: PromisedRecall,
        spec: CollectionSpec,
        candidate: Candidate,
        least: Mapping[str, int],
        most: float,
    ) -> None:
        self._promised = promised
        self._spec = spec
        self._candidate = candidate
        self._least = least
        self._most = most
        self._thorough = False
        self._verdicts: dict[tuple[tuple[str, int], ...], RecallVerdict] = {}
        self.last: tuple[Candidate, RecallVerdict] | None = None

    def narrowest(self) -> Kept | None:
        """The narrowest search that keeps the promise; None if none does.

        Raises:
            _TooCostlyError: if it would cost more than is of use.
        """
        return self._from(self._candidate.search)

    def settled(self, kept: Kept) -> Kept | None:
        """The same by many queries, again until it finds the same twice; None if no search keeps the promise.

        Raises:
            _TooCostlyError: if it would cost more than is of use.
        """
        self._thorough = True
        before: Mapping[str, float] = {}
        for _ in range(SETTLED_AFTER):
            self._least = kept.candidate.search
            again = self._from(self._least)
            if again is None or _is_same(before, again.verdict.unseen):
                return again
            kept, before = again, again.verdict.unseen
        return kept

    def _from(self, search: Mapping[str, int]) -> Kept | None:
        lists = self._candidate.parameters.get("nlist", 1)
        found = narrowest(self._candidate.type, search, lists, self._keeps)
        if found is None:
            return None
        candidate = self._candidate.searched(found)
        return Kept(with_candidate(self._spec, candidate), candidate, self._verdicts[tuple(found.items())])

    def _keeps(self, search: dict[str, int]) -> bool:
        if any(value < self._least.get(name, 0) for name, value in search.items()):
            return False
        candidate = self._candidate.searched(search)
        verdict = self._promised.measure(with_candidate(self._spec, candidate), thorough=self._thorough)
        self._verdicts[tuple(search.items())] = verdict
        self.last = candidate, verdict
        if not verdict.keeps and candidate.cost > self._most:
            raise _TooCostlyError
        return verdict.keeps


def _is_same(before: Mapping[str, float], now: Mapping[str, float]) -> bool:
    """Whether a measurement found what the one before it did, by filter."""
    return now.keys() == before.keys() and all(abs(now[filter] - before[filter]) < SETTLED for filter in now)


class IndexPromise:
    """Whether indexes of a collection keep what is promised, measured in Milvus over all rows."""

    def __init__(self, session: Session, checkpoint: Checkpoint, snapshot: Snapshot, connection: milvus.Milvus) -> None:
        self._session = session
        self._checkpoint = checkpoint
        self._snapshot = snapshot
        self._connection = connection
        self._recalls: PromisedRecall | None = None
        self._tried: list[str] = []

    def keep(
        self, spec: CollectionSpec, choices: Sequence[Candidate], build: Callable[[CollectionSpec], None]
    ) -> CollectionSpec:
        """The collection with the cheapest index that keeps the promise, which becomes a property of the collection.

        Filters and rows outside the sample need other search parameters than those of the sample. Another index is
        built where it may cost less with these. One that is built a second time is another index, so it is measured
        again.

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
            found = self._kept(
                chosen, choice, most=NEARLY * min((one.candidate.cost for one in kept), default=math.inf)
            )
            kept += [found] if found is not None else []
        if not kept or built is None:
            raise self._broken(spec)
        least = CLOSE * min(one.candidate.cost for one in kept)
        good = [one for one in kept if one.candidate.cost <= least]
        best = min(good, key=lambda one: (one.candidate.memory, one.candidate.cost))
        if (built.type, built.parameters) != (best.candidate.type, best.candidate.parameters):
            build(best.spec)
            again = self._kept(best.spec, best.candidate, least=best.candidate.search)
            if again is None:
                raise self._broken(spec)
            best = again
        self._write(best)
        return best.spec

    def _kept(
        self,
        spec: CollectionSpec,
        candidate: Candidate,
        least: Mapping[str, int] | None = None,
        most: float = math.inf,
    ) -> Kept | None:
        """An index that is built, with the narrowest search that keeps the promise; None if none does.

        Args:
            least: no search is tried that is narrower.
            most: cost of a search from which on the index is of no use.
        """
        self._session.progress.step("verify")
        with Phase(self._session, "verify"):
            open_for_search(self._connection, spec.name)
            widths = _Widths(self._promised(spec), spec, candidate, least or {}, most)
            try:
                kept = widths.narrowest()
                if kept is not None and candidate.search and not self._connection.is_lite:
                    kept = widths.settled(kept)
            except _TooCostlyError:
                return None
        if kept is None and widths.last is not None:
            widest, (_, _, unseen) = widths.last
            worst = min(unseen, key=lambda one: unseen[one])
            under = f" under {worst}" if worst else ""
            self._tried.append(
                f"{candidate_words(widest)} on the sample, {unseen[worst]:.4f}{under} for queries that are not rows"
            )
        return kept

    def _promised(self, spec: CollectionSpec) -> PromisedRecall:
        """The recalls of the collection; the rows that match its filters are listed once."""
        if self._recalls is None:
            self._recalls = PromisedRecall(self._session, self._checkpoint, self._snapshot, self._connection, spec)
        return self._recalls

    def _broken(self, spec: CollectionSpec) -> GateError:
        """The error where no choice keeps the promise."""
        promise = spec.promise or {}
        return GateError(
            f"{spec.name} did not pass: no index keeps recall@10 {promise['recall_at_10']} with 95% certainty: "
            f"{'; '.join(self._tried)}; "
            f"the alias {spec.alias} was not moved",
            "lower collection.index.recall_at_10, or name an index: collection.index: {type: FLAT} finds every row",
        )

    def _write(self, kept: Kept) -> None:
        spec, candidate, (_, recalls, unseen) = kept
        chosen = {
            "type": candidate.type,
            "parameters": dict(candidate.parameters),
            "search": dict(candidate.search),
            "promise": dict(spec.promise or {}),
            "recalls": {filter: round(recall, 4) for filter, recall in recalls.items()},
            "unseen": {filter: round(recall, 4) for filter, recall in unseen.items()},
        }
        milvus.set_properties(self._connection, spec.name, {PROPERTY_INDEX: json.dumps(chosen)})
        parameters = {**candidate.parameters, **candidate.search}
        said = index_words(candidate.type, next(iter(spec.vectors)).metric, parameters)
        measured = ", ".join(
            f"{recall:.4f}{f' under {filter}' if filter else ''} (unseen queries {unseen[filter]:.4f})"
            for filter, recall in recalls.items()
        )
        self._session.config = with_chosen(self._session.config, chosen)
        self._session.report.verify.index_chosen = f"{said}; recall@10 {measured}"
        self._session.progress.note(f"chose {said}; recall@10 {measured}")
