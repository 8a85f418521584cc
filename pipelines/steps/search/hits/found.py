"""The result of a search."""

from __future__ import annotations

from typing import Any, NamedTuple

from pipelines.steps.search.hits.importance import with_importance
from schemas.config import Config
from schemas.modality import ROW_MODALITY
from schemas.row_columns import identity_fields


def columns(config: Config) -> tuple[str, ...]:
    """Columns of a hit that each collection of the corpus' modality has; the metadata columns come after them."""
    given = ("id", "item_id", "chunk", ROW_MODALITY, "text", "uri", "start", "end")
    has = {one.name for one in identity_fields(config.corpus.modality)}
    return tuple(name for name in given if name in has)


class Found(NamedTuple):
    """The result of a search.

    Attributes:
        metric: what `score` measures: COSINE, IP, BM25, RRF (of several vectors) or MaxSim (of tokens), where larger is
            nearer, or L2, where smaller is nearer.
        hits: of each query, best first; one dict per row, see `search`.
        similarities: see `similarities_of`.
    """

    metric: str
    hits: list[list[dict[str, Any]]]
    similarities: tuple[float, ...] = ()

    def with_importance(self, config: Config) -> Found:
        """The same hits, each with its `importance`; raises what `with_importance` raises."""
        names = list(config.corpus.metadata)
        return self._replace(hits=[with_importance(hits, self.metric, self.similarities, names) for hits in self.hits])
