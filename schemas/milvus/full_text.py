"""BM25 by Milvus's own function: the words of the column `text` as a sparse vector that Milvus makes and keeps.

Robertson and Zaragoza, The Probabilistic Relevance Framework, 2009. https://milvus.io/docs/full-text-search.md
"""

from __future__ import annotations

BM25_METRIC = "BM25"
BM25_PARAMETERS = {"bm25_k1": 1.2, "bm25_b": 0.75}
"""Servers' defaults, always set: Milvus Lite has others (k1 1.5), and the same corpus should give the same scores."""
DEFAULT_ANALYZER = "standard"
TEXT_COLUMN = "text"
"""The column whose words count."""


def analyzer_parameters(analyzer: str) -> dict[str, str]:
    """`analyzer_params` of the column of the text.

    >>> analyzer_parameters("english")
    {'type': 'english'}
    """
    return {"type": analyzer}
