"""Texts on which another engine's vectors are compared with torch's, before it embeds anything."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from transforms.encoders.engines.tokens import TokenTable

LONGEST = 512


class Probe(NamedTuple):
    """A long text, one of half its length, and a short one, which has much padding next to the long one.

    Attributes:
        vectors: float32[3, dimensions], by torch in float32.
    """

    tokens: TokenTable
    vectors: NDArray[np.float32]

    @classmethod
    def of(cls, modules: Any, limit: int) -> Probe:
        """Embeds it.

        Args:
            modules: of `transforms.encoders.engines.torch.modules.load_modules`.
            limit: most tokens of a text.
        """
        import torch

        words = modules[0].auto_model.config.vocab_size
        longest = min(limit, LONGEST)
        lengths = (longest, max(1, longest // 2), min(3, longest))
        tokens = TokenTable.of([[(5 + at) % words for at in range(size)] for size in lengths], limit)
        ids, mask = tokens.padded(np.arange(3))
        features = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        with torch.inference_mode():
            return cls(tokens, modules(features)["sentence_embedding"].float().numpy())

    def least_cosine(self, found: NDArray[np.float32]) -> float:
        """Least cosine of another engine's vectors (float32[3, dimensions]) to these; NaN if one of theirs is NaN."""
        norms = np.linalg.norm(self.vectors, axis=1) * np.linalg.norm(found, axis=1)
        return float(((self.vectors * found).sum(axis=1) / norms).min())
