"""BERT's blocks with fewer passes over memory, for packed texts in half precision on a GPU.

Blocks are known by their parts, not by the name of a model: what BERT, RoBERTa, XLM-RoBERTa, ELECTRA and others call
self attention, intermediate and output. The three products of attention become one, the activation part of the product
before it, and a sum and its normalisation one kernel.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

EXACT, TANH = "GELUActivation", ("FastGELUActivation", "NewGELUActivation", "GELUTanh", "PytorchGELUTanh")


def fuse(transformer: Any) -> Callable[[], None]:
    """Replaces the ways forward of a model's blocks.

    Returns:
        What undoes it.
    """
    replaced: list[Any] = []
    for module in list(transformer.modules()):
        forward = _faster(module)
        if forward is not None:
            module.forward = forward
            replaced.append(module)

    def undo() -> None:
        for module in replaced:
            del module.forward  # that of the class is left

    return undo


def _faster(module: Any) -> Callable[..., Any] | None:
    import torch

    parts = {name: type(part).__name__ for name, part in module.named_children()}
    kinds = {name: kind for name, kind in parts.items() if kind != "Dropout"}
    if kinds == {"query": "Linear", "key": "Linear", "value": "Linear"} and not getattr(module, "is_causal", True):
        return partial(_attention, module, *_joined(module))
    if kinds == {"dense": "Linear", "LayerNorm": "LayerNorm"} and _takes(module, "hidden_states", "input_tensor"):
        from transforms.encoders.engines.torch.add_norm import MOST_COLUMNS, add_norm

        if module.dense.out_features > MOST_COLUMNS or module.LayerNorm.bias is None:
            return None
        return lambda hidden_states, input_tensor: add_norm(module.dense(hidden_states), input_tensor, module.LayerNorm)
    activation = getattr(module, "intermediate_act_fn", None)
    if kinds.get("dense") == "Linear" and type(activation).__name__ in (EXACT, *TANH) and len(kinds) <= 2:
        weight, bias = module.dense.weight, module.dense.bias
        # In the product cuBLAS approximates the error function by tanh: within 0.0005, a sixteenth of bfloat16's step.
        return lambda hidden_states: torch._addmm_activation(
            bias, hidden_states.flatten(0, -2), weight.t(), use_gelu=True
        ).unflatten(0, hidden_states.shape[:-1])
    return None


def _takes(module: Any, *names: str) -> bool:
    return tuple(inspect.signature(type(module).forward).parameters)[1:] == names


def _joined(module: Any) -> tuple[Any, Any]:
    """One matrix and bias of three; those of the module become views of it."""
    import torch

    layers = (module.query, module.key, module.value)
    weight = torch.cat([layer.weight.detach() for layer in layers])
    bias = torch.cat([layer.bias.detach() for layer in layers])
    sizes = [layer.out_features for layer in layers]
    for layer, rows, numbers in zip(layers, weight.split(sizes), bias.split(sizes), strict=True):
        layer.weight = torch.nn.Parameter(rows, requires_grad=False)
        layer.bias = torch.nn.Parameter(numbers, requires_grad=False)
    return weight, bias


def _attention(
    module: Any,
    weight: Any,
    bias: Any,
    hidden_states: Any,
    attention_mask: Any = None,  # noqa: ARG001 (the library's signature)
    text_offsets: Any = None,
    longest: int = 0,
    **_: Any,
) -> tuple[Any, None]:
    import torch
    from torch.nn.attention.varlen import varlen_attn

    size = module.attention_head_size
    joined = torch.nn.functional.linear(hidden_states[0], weight, bias).unflatten(-1, (3, -1, size))
    query, key, value = joined.unbind(1)
    out = varlen_attn(query, key, value, text_offsets, text_offsets, longest, longest, scale=module.scaling)
    return out.flatten(1)[None], None
