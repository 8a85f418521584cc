"""Which rows that Milvus found are hits: none that is left out, and one for each item if that is wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from transforms.milvus import Hit

_WIDER = 4
T = TypeVar("T")


class LeftOut(NamedTuple):
    """Rows that are not hits, by their texts, their ids and the ids of their items."""

    texts: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()
    items: frozenset[str] = frozenset()

    def has(self, hit: Hit) -> bool:
        """Whether a row is one of them."""
        if hit.id in self.ids or (bool(self.items) and hit.fields.get("item_id") in self.items):
            return True
        return bool(self.texts) and comparable(hit.fields.get("text")) in self.texts


def without(
    left_out: Sequence[LeftOut],
    k: int,
    most: int,
    search: Callable[[int], list[list[Hit]]],
    *,
    by_item: bool = False,
) -> list[list[Hit]]:
    """The `k` best hits of each query that are not left out.

    It searches wider until there are `k`, or no more rows, or `most` rows were searched.

    Args:
        left_out: of each query.
        most: rows of one search.
        search: gives so many hits of each query, with their texts and the ids of their items.
        by_item: the best row of each item alone is a hit.
    """
    wanted = min(most, k + max((sum(map(len, one)) for one in left_out), default=0))
    while True:
        found = search(wanted)
        kept = [[hit for hit in hits if not own.has(hit)] for hits, own in zip(found, left_out, strict=True)]
        if by_item:
            kept = [first_of_items(hits, lambda hit: hit.fields["item_id"]) for hits in kept]
        # Many rows may have the text of a word of the question, or be of one item.
        if wanted == most or all(len(own) >= k or len(hits) < wanted for own, hits in zip(kept, found, strict=True)):
            return [own[:k] for own in kept]
        wanted = min(most, wanted * _WIDER)


def first_of_items(hits: Iterable[T], item: Callable[[T], Any]) -> list[T]:
    """The first hit of each item, in their order.

    >>> first_of_items(["a#1", "b#0", "a#0"], lambda hit: hit[0])
    ['a#1', 'b#0']
    """
    found: dict[Any, T] = {}
    for hit in hits:
        found.setdefault(item(hit), hit)
    return list(found.values())


def comparable(text: Any) -> str:
    """A text as texts are compared: without case, and without spaces around it."""
    return str(text or "").strip().casefold()
