"""The tokens of a table as flat arrays, and how batches for a model are made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHAPE_STEP = 8
"""Padded lengths are multiples of this: CPU kernels keep a compiled primitive for each shape that they meet."""


@dataclass(frozen=True)
class TokenTable:
    """Token ids of texts, one text after another.

    Attributes:
        flat: int32[all tokens]
        lengths: int64[n], tokens of each text, special tokens included
        limit: most tokens of a text
        padding_id: token id of what fills up shorter rows
        prompt_tokens: tokens at the start of each text that pooling leaves out; 0 if it includes them
    """

    flat: NDArray[np.int32]
    lengths: NDArray[np.int64]
    limit: int
    padding_id: int = 0
    prompt_tokens: int = 0

    @classmethod
    def of(
        cls, ids: Sequence[Sequence[int] | NDArray[np.int32]], limit: int, padding_id: int = 0, prompt_tokens: int = 0
    ) -> TokenTable:
        """From the ids of each text."""
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        flat = np.concatenate([np.asarray(row, np.int32) for row in ids]) if len(ids) else np.zeros(0, np.int32)
        return cls(flat, lengths, limit, padding_id, prompt_tokens)

    def batches(self, budget: Callable[[], int]) -> Iterator[NDArray[np.int64]]:
        """Places of texts, in batches of near-equal lengths, longest first.

        A batch's padded size is at most the budget's tokens, or it is one text; the budget is read for each batch.
        """
        order = np.argsort(-self.lengths, kind="stable")
        start = 0
        while start < len(order):
            rows = max(1, budget() // max(1, self.padded_length(int(self.lengths[order[start]]))))
            yield order[start : start + rows]
            start += rows

    def padded_length(self, longest: int) -> int:
        """Tokens that each row of a batch takes: the longest's, rounded up, within the limit."""
        return max(longest, min(self.limit, -(-longest // SHAPE_STEP) * SHAPE_STEP))

    def padding(self, rows: NDArray[np.int64]) -> int:
        """Padding tokens of a batch."""
        lengths = self.lengths[rows]
        return self.padded_length(int(lengths.max())) * len(rows) - int(lengths.sum())

    def padded(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Input ids and attention mask of some texts, both int64[rows, padded length]."""
        lengths = self.lengths[rows]
        mask = np.arange(self.padded_length(int(lengths.max()))) < lengths[:, None]
        ids = np.full(mask.shape, self.padding_id, np.int64)
        ids[mask] = self.packed(rows)
        return ids, mask.astype(np.int64)

    def packed(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """Ids of some texts, one after another without padding: int32[their tokens]."""
        ends = np.cumsum(self.lengths)[rows]
        return self.flat[ranges(ends - self.lengths[rows], self.lengths[rows])]


def ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions of ranges one after another: starts [3, 0] and lengths [2, 3] give [3, 4, 0, 1, 2]."""
    before = np.cumsum(lengths) - lengths
    places: NDArray[np.int64] = np.arange(int(lengths.sum())) + np.repeat(starts - before, lengths)
    return places
