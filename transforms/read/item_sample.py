"""A sample of a corpus' texts that depends on its items alone, not on their order, and is held in memory."""

from __future__ import annotations

import hashlib
import heapq

import pyarrow as pa

MOST_BYTES = 256 << 20
"""Bytes of text, UTF-8, that a sample holds at most."""


class ItemSample:
    """The texts of the items whose ids have the smallest hashes, in that order: at most so many items and bytes.

    Args:
        size: most items.
        seed: gives other hashes.
        most_bytes: most bytes of text.
    """

    def __init__(self, size: int, seed: int, most_bytes: int = MOST_BYTES) -> None:
        self._size = size
        self._seed = str(seed).encode()
        self._most_bytes = most_bytes
        self._heap: list[tuple[int, str]] = []
        self._bytes = 0
        self._limit = 0
        """Negative hash of the first item that was left out: none after it counts, as the order could then matter."""

    def add(self, items: pa.Table) -> None:
        """Takes the items that belong to the sample, as far as is known.

        Args:
            items: with the columns item_id and @content.
        """
        for item_id, text in zip(
            items.column("item_id").to_pylist(), items.column("@content").to_pylist(), strict=True
        ):
            # The largest hash is on top of the heap; negative, so that 0 is before all.
            place = -1 - int.from_bytes(hashlib.blake2b(item_id.encode(), digest_size=8, key=self._seed).digest())
            if self._limit and place <= self._limit:
                continue
            heapq.heappush(self._heap, (place, text))
            self._bytes += len(text.encode())
            while len(self._heap) > self._size or (self._bytes > self._most_bytes and len(self._heap) > 1):
                self._limit, gone = heapq.heappop(self._heap)
                self._bytes -= len(gone.encode())

    @property
    def texts(self) -> list[str]:
        """The texts, in the order of the hashes."""
        return [text for _, text in sorted(self._heap, reverse=True)]
