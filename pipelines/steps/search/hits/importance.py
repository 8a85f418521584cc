"""How near a hit is, in percent: the place of its similarity among the similarities of the corpus's own rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.steps.search.hits.rank_fusion import METRIC as RRF
from pipelines.steps.search.hits.reranking import METRIC as MAXSIM
from schemas.errors import CollectionError, ConfigurationError
from schemas.milvus.collection_spec import PROPERTY_SIMILARITIES

NAME = "importance"
"""The key of a hit."""


def similarities_of(properties: dict[str, str], vector: str) -> tuple[float, ...]:
    """The percentiles of similarity that a collection has for a vector, from low to high; empty if it has none.

    Larger is nearer. `transforms.milvus.recall` measures them when a collection is published.
    """
    known: dict[str, list[float]] = json.loads(properties.get(PROPERTY_SIMILARITIES) or "{}")
    return tuple(known.get(vector, ()))


def with_importance(
    hits: Sequence[dict[str, Any]], metric: str, similarities: Sequence[float], columns: Sequence[str]
) -> list[dict[str, Any]]:
    """Hits with `importance`, from 0 to 100: of pairs of the corpus's rows, how many percent are less similar.

    Args:
        metric: of the scores.
        columns: the metadata columns.

    Raises:
        ConfigurationError: if several vectors were searched, or a metadata column has this name.
        CollectionError: if the collection does not know the similarities of its rows.

    >>> with_importance([{"score": 0.5}, {"score": 0.9}], "COSINE", [0.0, 0.4, 0.6], [])
    [{'score': 0.5, 'importance': 75.0}, {'score': 0.9, 'importance': 100.0}]
    """
    if NAME in columns:
        raise ConfigurationError(
            f"corpus.metadata has a column {NAME}, and so would each hit",
            f"rename the column, for example {NAME}_: {{from: {NAME}, type: string}}",
        )
    if metric in (RRF, MAXSIM):
        raise ConfigurationError(
            f"the importance of a hit is that of one vector's similarity, and these hits are ranked by {metric}",
            "name one vector, and no rerank",
        )
    if not similarities:
        raise CollectionError(
            "the collection does not say how similar its rows are: it has a single row, or was published by an earlier "
            "version or for a vector that Milvus computes",
            "search without importance, or run vecbeam load --rebuild, which measures it",
        )
    places = np.linspace(0, 100, len(similarities))
    sign = -1.0 if metric == "L2" else 1.0
    return [{**hit, NAME: round(float(np.interp(sign * hit["score"], similarities, places)), 1)} for hit in hits]
