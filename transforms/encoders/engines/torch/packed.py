"""Padding-free forward passes: all texts of a batch as one long row, with attention kept inside each text.

The transformer runs once over the existing tokens. On CUDA attention is torch's variable-length flash attention
(Dao, FlashAttention-2, 2023); elsewhere attention runs text by text, which is slow: for tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transforms.encoders.engines.tokens import ranges
from transforms.encoders.engines.torch.fused import fuse

Put = Callable[[NDArray[Any]], Any]
ATTENTION = "vecbeam_packed"
POSITIONS_AFTER_PADDING = frozenset({"roberta", "xlm-roberta", "camembert", "xlm-roberta-xl"})
"""Model types whose first position is the one after the padding token's id."""


def register() -> None:
    """Registers the attention with transformers, by name."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(ATTENTION, _attention)
    AttentionMaskInterface.register(ATTENTION, _no_mask)


def _no_mask(*_: Any, **__: Any) -> None:
    return None


def _attention(
    module: Any,  # noqa: ARG001 (transformers' signature)
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,  # noqa: ARG001
    scaling: float | None = None,
    text_lengths: Any = None,
    text_offsets: Any = None,
    longest: int = 0,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Any, None]:
    """Attention of [1, heads, tokens, head size] states; `text_offsets` int32[texts + 1] on the states' device.

    `text_lengths` is int64[texts], a numpy array, and `longest` their largest.

    A sliding window of n lets tokens see n - 1 to either side, as transformers counts it for flash attention.
    """
    import torch

    reach = -1 if sliding_window is None else sliding_window - 1
    grouped = key.shape[1] != query.shape[1]
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16):
        from torch.nn.attention.varlen import varlen_attn

        states = [tensor[0].transpose(0, 1) for tensor in (query, key, value)]
        offsets = (text_offsets, text_offsets, longest, longest)
        out = varlen_attn(*states, *offsets, scale=scaling, window_size=(reach, reach), enable_gqa=grouped)
        return out[None], None
    outs = []
    for piece in zip(*(tensor.split(text_lengths.tolist(), dim=2) for tensor in (query, key, value)), strict=True):
        places = torch.arange(piece[0].shape[2], device=query.device)
        near = None if reach < 0 else (places[:, None] - places).abs() <= reach
        attend = torch.nn.functional.scaled_dot_product_attention
        outs.append(attend(*piece, attn_mask=near, scale=scaling, enable_gqa=grouped))
    return torch.cat(outs, dim=2).transpose(1, 2).contiguous(), None


class Packing:
    """Runs a library model without padding.

    Args:
        modules: of `transforms.encoders.engines.torch.modules.load_modules`; its attention is replaced.
        fused: whether `transforms.encoders.engines.torch.fused` replaces more; the model is on a GPU then.

    Raises:
        ValueError: if the model's attention can't be replaced.
    """

    def __init__(self, modules: Any, fused: bool = False) -> None:
        register()
        self._transformer = modules[0].auto_model
        if not getattr(self._transformer, "_supports_attention_backend", False):
            raise ValueError(f"{type(self._transformer).__name__} does not let its attention be exchanged")
        config = self._transformer.config
        self._previous = config._attn_implementation
        self._undo = fuse(self._transformer) if fused else None
        self._transformer.set_attn_implementation(ATTENTION)
        self._padding_id = config.pad_token_id if config.model_type in POSITIONS_AFTER_PADDING else None
        self._rest = list(modules)[1:]

    def undo(self) -> None:
        """Gives the model its own attention back."""
        self._transformer.set_attn_implementation(self._previous)
        if self._undo is not None:
            self._undo()

    def positions(self, ids: NDArray[np.int32], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Positions of the tokens of texts that follow each other, in the table of positions: int64[tokens]."""
        if self._padding_id is None:
            return ranges(np.zeros_like(lengths), lengths)
        # They begin after that of padding, which a padding token in the middle of a text keeps.
        shown = ids != self._padding_id
        counted = np.cumsum(shown)
        before = np.concatenate([[0], counted])[np.cumsum(lengths) - lengths]
        places: NDArray[np.int64] = self._padding_id + (counted - np.repeat(before, lengths)) * shown
        return places

    def __call__(self, ids: NDArray[np.int32], lengths: NDArray[np.int64], prompt_tokens: int, put: Put) -> Any:
        """Vectors of texts that follow each other without padding.

        Args:
            ids: of all tokens.
            lengths: of the texts.
            put: an array as a tensor on the model's device.

        Returns:
            float[texts, dimensions] on that device.
        """
        longest = int(lengths.max())
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        states = self._transformer(
            input_ids=put(ids.astype(np.int64))[None],
            position_ids=put(self.positions(ids, lengths))[None],
            text_lengths=lengths,
            text_offsets=put(offsets.astype(np.int32)),
            longest=longest,
        ).last_hidden_state[0]
        # Pooling is the library's own, and needs rows of one length.
        inside = np.arange(longest) < lengths[:, None]
        rows = states.new_zeros((inside.size, states.shape[1]))
        rows[put(np.flatnonzero(inside))] = states
        features = {
            "token_embeddings": rows.unflatten(0, inside.shape),
            "attention_mask": put(inside.astype(np.int64)),
        }
        if prompt_tokens:
            features["prompt_length"] = prompt_tokens
        for module in self._rest:
            features = module(features)
        return features["sentence_embedding"]
