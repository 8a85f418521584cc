"""Indexes of a sample of rows, which faiss builds and searches in place of Milvus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transforms.explore.live_rows import Floats
from transforms.support.vectors import unit_vectors

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class SampleIndex:
    """A built index of some rows.

    Attributes:
        built: the index of faiss.
        search: name of its search parameter; "" if a search reads every row.
    """

    built: Any
    search: str

    def nearest(self, queries: Floats, k: int, width: int = 0, among: Positions | None = None) -> Positions:
        """Positions of the nearest rows of each query, int64[queries, k]; -1 where it found no more.

        Args:
            width: value of the search parameter.
            among: positions of the rows that a filter leaves; all, if None.
        """
        import faiss

        untyped: Any = faiss
        given: dict[str, Any] = {} if among is None else {"sel": untyped.IDSelectorBatch(among)}
        if self.search == "ef":
            parameters = untyped.SearchParametersHNSW(efSearch=width, **given)
        elif self.search == "nprobe":
            parameters = untyped.SearchParametersIVF(nprobe=width, **given)
        else:
            parameters = untyped.SearchParameters(**given)
        _, rows = self.built.search(queries, k, params=parameters)
        return np.asarray(rows, np.int64)


def comparable(matrix: Floats, metric: str) -> tuple[Floats, int]:
    """Vectors as faiss compares them, and faiss's number of the metric.

    Args:
        matrix: float32[n, dimensions].
        metric: COSINE, IP or L2.
    """
    import faiss

    vectors = unit_vectors(matrix) if metric == "COSINE" else matrix
    return np.ascontiguousarray(vectors, np.float32), faiss.METRIC_L2 if metric == "L2" else faiss.METRIC_INNER_PRODUCT


@contextmanager
def one_thread() -> Iterator[None]:
    """Lets faiss work on one thread: a graph that several threads build is another one each time."""
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def build(kind: str, parameters: Mapping[str, int], vectors: Floats, metric: int) -> SampleIndex:
    """Builds an index.

    Args:
        kind: FLAT, HNSW, IVF_FLAT or IVF_SQ8.
        parameters: of the build, as Milvus names them; `nlist` is at most the number of vectors.
        vectors: of `comparable`.
        metric: faiss's number of it.
    """
    import faiss

    dimensions = vectors.shape[1]
    index: Any = faiss.IndexFlat(dimensions, metric)
    if kind == "HNSW":
        index = faiss.IndexHNSWFlat(dimensions, parameters["M"], metric)
        index.hnsw.efConstruction = parameters["efConstruction"]
    elif kind == "IVF_SQ8":
        quantizer = faiss.ScalarQuantizer.QT_8bit
        index = faiss.IndexIVFScalarQuantizer(index, dimensions, parameters["nlist"], quantizer, metric)
    elif kind == "IVF_FLAT":
        index = faiss.IndexIVFFlat(index, dimensions, parameters["nlist"], metric)
    if kind.startswith("IVF"):
        index.cp.seed, index.cp.min_points_per_centroid = 0, 1  # as few points as there are, without a warning
        index.train(vectors)
    index.add(vectors)
    return SampleIndex(index, "ef" if kind == "HNSW" else "nprobe" if kind.startswith("IVF") else "")


def scores_of(vectors: Floats, queries: Floats, rows: Positions, metric: int) -> Floats:
    """Scores of some rows for each query, a larger one is nearer: float32[queries, rows]; no row (-1) is -inf.

    They are those of the rows, not of what an index keeps of them: IVF_SQ8 returns rounded ones.
    """
    import faiss

    near = vectors[rows]
    if metric == faiss.METRIC_L2:
        scores = -((near - queries[:, None, :]) ** 2).sum(axis=2)
    else:
        scores = (near * queries[:, None, :]).sum(axis=2)
    return np.asarray(np.where(rows < 0, -np.inf, scores), np.float32)
