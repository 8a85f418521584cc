"""Which index keeps a recall at the least cost: measured with faiss on a sample of rows, without Milvus.

Each type is built with some build parameters, and searched with wider and wider search parameters until its recall is
reached. The cost of a candidate is what one search reads: the bytes of all vectors that are compared with the query,
and of the links of a graph. It is counted and not timed, so that the same rows give the same choice on each machine.

For more rows than the sample has, costs are scaled: lists by their number, graphs by the logarithm of the rows (Malkov
and Yashunin, https://arxiv.org/abs/1603.09320). A recall does not scale so well: whoever uses the choice measures it on
the whole collection, and finds the narrowest parameters that reach it there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from schemas.milvus.indexes import index_bytes
from transforms.explore.candidate import Candidate, joined
from transforms.explore.faiss_indexes import SampleIndex, build, comparable, one_thread, scores_of
from transforms.explore.live_rows import Floats
from transforms.explore.search_width import NEARLY
from transforms.support.extras import need

SAMPLE_ROWS = 20_000
"""Rows of which the candidates are built."""
QUERIES = 200
TOP = 10
HNSW_LINKS = (8, 16, 32)
EF_CONSTRUCTION = 200
LIST_SHARES = (1, 4)
"""IVF indexes have the lists that faiss advises, divided by each of these."""
LADDER = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Values of `ef`, and of `nprobe` from the first of them on that is not more than the lists."""
PROBES = (1, 2, 3, 4, 6, 8, 12, *LADDER[1:])
WIDEST = 4
"""Costs are counted up to so many times the search parameter that keeps the recall on the sample."""


def sweep(
    samples: Sequence[tuple[Floats, str]],
    rows: int,
    types: Sequence[str],
    recall: float,
    memory: float = math.inf,
    seed: int = 0,
) -> list[Candidate]:
    """Candidates, the best first: those that keep the recall within the memory, by cost; then the others.

    Args:
        samples: for each vector of a row a matrix float32[n, dimensions] of the sampled rows, and its metric: COSINE,
            IP or L2. An index keeps the recall if it does so for each of them.
        rows: of the whole collection.
        types: index types that the server has.
        recall: least recall@10, from 0 to 1.
        memory: most bytes of the indexes of all vectors.
        seed: draws the queries, which are rows of the sample.

    Raises:
        MissingExtraError: if faiss is not installed.
    """
    need("explore", "collection.index: auto", "faiss")
    with one_thread():
        measured = [_of_one(matrix, metric, rows, types, recall, seed) for matrix, metric in samples]
    found = [joined(same, recall, memory) for same in zip(*measured, strict=True)]
    good = [one for one in found if one.keeps]
    least = min((one.cost for one in good), default=0) * NEARLY
    good.sort(key=lambda one: (one.cost > least, one.memory if one.cost <= least else one.cost))
    return [*good, *sorted((one for one in found if not one.keeps), key=lambda one: -one.recall)]


def _of_one(matrix: Floats, metric: str, rows: int, types: Sequence[str], recall: float, seed: int) -> list[Candidate]:
    vectors, kind = comparable(matrix, metric)
    chosen = np.random.default_rng(seed).choice(len(vectors), min(QUERIES, len(vectors)), replace=False)
    queries = vectors[np.sort(chosen)]
    k = min(TOP, len(vectors))
    nearest = build("FLAT", {}, vectors, kind).nearest(queries, k)
    tenth = scores_of(vectors, queries, nearest, kind).min(axis=1)
    bench = _Bench(vectors, queries, tenth, kind, k, rows, recall)
    return [one for name in types if name in _CANDIDATES for one in _CANDIDATES[name](bench)]


@dataclass(frozen=True)
class _Bench:
    """The sample, and what the last of the nearest neighbours of each query scores."""

    vectors: Floats
    queries: Floats
    tenth: Floats
    kind: int
    k: int
    rows: int
    recall: float

    @property
    def dimensions(self) -> int:
        return int(self.vectors.shape[1])

    def found(self, index: SampleIndex, width: int) -> float:
        """Recall of a search, where equal scores are as good, and a query's own row counts: it tells where to begin."""
        rows = index.nearest(self.queries, self.k, width)
        scores = scores_of(self.vectors, self.queries, rows, self.kind)
        tenth = self.tenth[:, None]
        return float((scores >= tenth - 1e-6 * np.maximum(1, np.abs(tenth))).mean())

    def memory(self, name: str, parameters: dict[str, int]) -> int:
        return index_bytes(name, parameters, self.rows, self.dimensions)


def _flat(bench: _Bench) -> Iterator[Candidate]:
    size = bench.memory("FLAT", {})
    yield Candidate("FLAT", {}, {}, 1.0, size, size)


def _hnsw(bench: _Bench) -> Iterator[Candidate]:
    import faiss

    globals_of_faiss: Any = faiss.cvar
    scale = max(1.0, math.log(max(bench.rows, 2)) / math.log(max(len(bench.vectors), 2)))
    for links in HNSW_LINKS:
        parameters = {"M": links, "efConstruction": EF_CONSTRUCTION}
        index = build("HNSW", parameters, bench.vectors, bench.kind)
        steps = []
        for ef in LADDER:
            globals_of_faiss.hnsw_stats.reset()
            recall = bench.found(index, ef)
            compared = globals_of_faiss.hnsw_stats.ndis / len(bench.queries) * scale
            steps.append((ef, recall, round(compared * (4 * bench.dimensions + 4 * links))))
            if _is_wide(steps, bench.recall):
                break
        yield _narrowest(bench, "HNSW", parameters, "ef", steps)


def _ivf(name: str) -> Any:
    def of_shares(bench: _Bench) -> Iterator[Candidate]:
        for share in LIST_SHARES:
            yield from of_lists(bench, max(1, _lists(bench.rows) // share), max(1, _lists(len(bench.vectors)) // share))

    def of_lists(bench: _Bench, lists: int, of_sample: int) -> Iterator[Candidate]:
        import faiss

        globals_of_faiss: Any = faiss.cvar
        there = len(bench.vectors)
        tried = min(of_sample, there)
        index = build(name, {"nlist": tried}, bench.vectors, bench.kind)
        parameters = {"nlist": lists}
        width = (1 if name == "IVF_SQ8" else 4) * bench.dimensions
        steps = []
        for probes in [*(step for step in PROBES if step < tried), tried]:
            globals_of_faiss.indexIVF_stats.reset()
            recall = bench.found(index, probes)
            share = globals_of_faiss.indexIVF_stats.ndis / len(bench.queries) / there
            cost = round(share * bench.rows * width + lists * 4 * bench.dimensions)
            steps.append((min(lists, math.ceil(probes * lists / tried)), recall, cost))
            if _is_wide(steps, bench.recall):
                break
        yield _narrowest(bench, name, parameters, "nprobe", steps)

    return of_shares


def _is_wide(steps: Sequence[tuple[int, float, int]], recall: float) -> bool:
    """Whether the last of some searches is wide enough for the costs of all that may be needed."""
    keep = next((value for value, found, _ in steps if found >= recall), None)
    return keep is not None and steps[-1][0] >= WIDEST * keep


def _narrowest(
    bench: _Bench, name: str, parameters: dict[str, int], search: str, steps: Sequence[tuple[int, float, int]]
) -> Candidate:
    """The candidate with the narrowest search that keeps the recall, or the widest one.

    Args:
        steps: value of the search parameter, recall and cost, from narrow to wide.
    """
    value, recall, cost = next((step for step in steps if step[1] >= bench.recall), steps[-1])
    return Candidate(
        name,
        parameters,
        {search: value},
        recall,
        cost,
        bench.memory(name, parameters),
        curve=tuple((tried, found) for tried, found, _ in steps if tried <= value),
        costs=tuple((tried, read) for tried, _, read in steps),
    )


def _lists(rows: int) -> int:
    """Lists of an IVF index: 4 times the square root of the rows, as faiss advises, a power of two."""
    return int(min(65536, max(1, 2 ** round(math.log2(max(1.0, 4 * math.sqrt(rows)))))))


_CANDIDATES: dict[str, Any] = {"FLAT": _flat, "HNSW": _hnsw, "IVF_FLAT": _ivf("IVF_FLAT"), "IVF_SQ8": _ivf("IVF_SQ8")}
