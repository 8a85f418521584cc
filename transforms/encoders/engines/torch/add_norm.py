"""A sum and its layer normalisation in one pass over memory, as a Triton kernel.

Between the matrix products of a transformer's layer a GPU waits for memory: torch alone writes the sum, reads it twice
and writes the result. Layer normalisation: Ba, Kiros, Hinton, 2016, https://arxiv.org/abs/1607.06450

Imported on GPUs alone: Triton comes with torch's builds for CUDA.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

MOST_COLUMNS = 8192
"""The registers of one program hold a row."""


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _kernel(states, others, weight, bias, out, columns, epsilon, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    start = tl.program_id(0).to(tl.int64) * columns
    places = tl.arange(0, BLOCK)
    inside = places < columns
    first = tl.load(states + start + places, inside, 0.0).to(tl.float32)
    total = first + tl.load(others + start + places, inside, 0.0).to(tl.float32)
    centred = tl.where(inside, total - tl.sum(total, 0) / columns, 0.0)
    scaled = centred * tl.rsqrt(tl.sum(centred * centred, 0) / columns + epsilon)
    gain = tl.load(weight + places, inside, 0.0).to(tl.float32)
    shift = tl.load(bias + places, inside, 0.0).to(tl.float32)
    tl.store(out + start + places, (scaled * gain + shift).to(out.dtype.element_ty), inside)


def add_norm(states: Any, others: Any, norm: Any) -> Any:
    """`norm(states + others)`, summed and normalised in float32.

    Args:
        states, others: tensors of one shape, [..., columns], contiguous, on a GPU.
        norm: torch.nn.LayerNorm over the last dimension, with weight and bias.

    Returns:
        A tensor of the shape and dtype of `states`.
    """
    out = torch.empty_like(states)
    columns = states.shape[-1]
    block = triton.next_power_of_2(columns)
    warps = min(8, max(1, block // 256))
    rows = states.numel() // columns
    _kernel[(rows,)](states, others, norm.weight, norm.bias, out, columns, norm.eps, BLOCK=block, num_warps=warps)
    return out
