"""Padding-free forward passes: all texts of a batch as one long row, with attention kept inside each text.

The transformer runs once over the existing tokens. On CUDA attention is torch's variable-length flash attention
(Dao, FlashAttention-2, 2023); elsewhere attention runs text by text, which is slow: for tests.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    text_lengths: tuple[int, ...] = (),
    text_offsets: Any = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Any, None]:
    """Attention of [1, heads, tokens, head size] states; `text_offsets` int32[texts + 1] on the states' device.

    A sliding window of n lets tokens see n - 1 to either side, as transformers counts it for flash attention.
    """
    import torch

    reach = -1 if sliding_window is None else sliding_window - 1
    grouped = key.shape[1] != query.shape[1]
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16):
        from torch.nn.attention.varlen import varlen_attn

        states = [tensor[0].transpose(0, 1) for tensor in (query, key, value)]
        longest = max(text_lengths)
        offsets = (text_offsets, text_offsets, longest, longest)
        out = varlen_attn(*states, *offsets, scale=scaling, window_size=(reach, reach), enable_gqa=grouped)
        return out[None], None
    outs = []
    for piece in zip(*(tensor.split(text_lengths, dim=2) for tensor in (query, key, value)), strict=True):
        places = torch.arange(piece[0].shape[2], device=query.device)
        near = None if reach < 0 else (places[:, None] - places).abs() <= reach
        attend = torch.nn.functional.scaled_dot_product_attention
        outs.append(attend(*piece, attn_mask=near, scale=scaling, enable_gqa=grouped))
    return torch.cat(outs, dim=2).transpose(1, 2).contiguous(), None


class Packing:
    """Runs a library model without padding.

    Args:
        modules: of `transforms.encoders.engines.torch.modules.load_modules`; its attention is replaced.

    Raises:
        ValueError: if the model's attention can't be replaced.
    """

    def __init__(self, modules: Any) -> None:
        register()
        self._transformer = modules[0].auto_model
        if not getattr(self._transformer, "_supports_attention_backend", False):
            raise ValueError(f"{type(self._transformer).__name__} does not let its attention be exchanged")
        self._transformer.set_attn_implementation(ATTENTION)
        config = self._transformer.config
        self._padding_id = config.pad_token_id if config.model_type in POSITIONS_AFTER_PADDING else None
        self._rest = list(modules)[1:]

    def positions(self, ids: NDArray[np.int32], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Positions of the tokens of texts that follow each other, in the table of positions: int64[tokens]."""
        if self._padding_id is None:
            return np.concatenate([np.arange(size) for size in lengths])
        # They begin after that of padding, which a padding token in the middle of a text keeps.
        counted = [np.cumsum(text != self._padding_id) for text in np.split(ids, np.cumsum(lengths)[:-1])]
        places: NDArray[np.int64] = self._padding_id + np.concatenate(counted) * (ids != self._padding_id)
        return places

    def __call__(self, ids: Any, positions: Any, lengths: Any, prompt_tokens: int) -> Any:
        """Vectors of texts that follow each other without padding.

        Args:
            ids, positions: int64[tokens].
            lengths: int64[texts], a numpy array.

        Returns:
            float[texts, dimensions] on the device of `ids`.
        """
        import torch

        sizes = tuple(lengths.tolist())
        offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        states = self._transformer(
            input_ids=ids[None],
            position_ids=positions[None],
            text_lengths=sizes,
            text_offsets=offsets.to(ids.device, non_blocking=True),
        ).last_hidden_state[0]
        # Pooling is the library's own, and needs rows of one length.
        rows = torch.nn.utils.rnn.pad_sequence(states.split(sizes), batch_first=True)
        mask = torch.from_numpy((np.arange(max(sizes)) < lengths[:, None]).astype(np.int64))
        features = {"token_embeddings": rows, "attention_mask": mask.to(ids.device, non_blocking=True)}
        if prompt_tokens:
            features["prompt_length"] = prompt_tokens
        for module in self._rest:
            features = module(features)
        return features["sentence_embedding"]
