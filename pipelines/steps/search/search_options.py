"""The options of a search, in addition to its queries and the number of hits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from schemas.errors import ConfigurationError

ROW, ITEM = "row", "item"


class SearchKeywords(TypedDict, total=False):
    """The keyword arguments of `Index.search` and `pipelines.search.search`; see `SearchOptions`."""

    vector: str | Sequence[str]
    plus: str | Sequence[str]
    minus: str | Sequence[str]
    rerank: str
    candidates: int | None
    importance: bool
    by: str
    answer: bool
    fuzzy: bool


@dataclass(frozen=True)
class SearchOptions:
    """The options of a search.

    Attributes:
        filter_expression: Milvus expression over the columns, e.g. 'author == "ting-yili"'; "" for all rows.
        vector: which vector of the rows is searched, if they have several; for "" the first one, or the first that
            describes what the queries are, texts or media. Of several names each is searched, and their hits are fused
            by rank: see `rank_fusion`.
        plus, minus: texts whose vectors are added to each query's, and subtracted: `search("king", minus=["man"],
            plus=["woman"])`. All are scaled to length 1 first. Rows whose text is the query or one of these are left
            out; see `Arithmetic`.
        rerank: a vector of tokens, by which the rows found are ranked again; see `reranking`. Its name in `vector`
            means the same.
        candidates: rows that the search finds for it, 100 by default, at least `k`.
        importance: gives each row `importance`, from 0 to 100: of pairs of the corpus's rows (a sample), how many
            percent are less similar than the query and this row.
        by: `row`, or `item`: hits are the best rows of `k` items, one of each.
        answer: gives each row `answer`, the sentence of its text that is nearest to the query; see `answers`.
        fuzzy: also finds rows with words that are similar to those of the query; see `fuzzy_search`.

    Raises:
        ConfigurationError: if `by` is neither.
    """

    filter_expression: str = ""
    vector: str | Sequence[str] = ""
    plus: str | Sequence[str] = ()
    minus: str | Sequence[str] = ()
    rerank: str = ""
    candidates: int | None = None
    importance: bool = False
    by: str = ROW
    answer: bool = False
    fuzzy: bool = False

    def __post_init__(self) -> None:
        if self.by not in (ROW, ITEM):
            raise ConfigurationError(f"by is {self.by!r}", f"name {ROW} or {ITEM}")

    @property
    def by_item(self) -> bool:
        """Whether one row of each item is a hit."""
        return self.by == ITEM
