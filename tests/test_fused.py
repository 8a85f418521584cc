"""BERT's blocks with fewer passes over memory: what runs without a GPU. `benchmarks/gpu.py` checks the whole on one."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel

from transforms.encoders.engines.torch import fused

SIZES = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return BertModel(BertConfig(vocab_size=50, **SIZES), add_pooling_layer=False).eval()


def test_the_three_products_of_attention_become_one_and_share_its_memory(model: Any) -> None:
    attention = model.encoder.layer[0].attention.self
    states = torch.randn(1, 7, 24)
    with torch.inference_mode():
        apart = torch.cat([layer(states) for layer in (attention.query, attention.key, attention.value)], dim=-1)
        weight, bias = fused._joined(attention)
        assert torch.allclose(torch.nn.functional.linear(states, weight, bias), apart, atol=1e-6)
    assert attention.key.weight.data_ptr() == weight[24:].data_ptr()


@pytest.mark.parametrize("activation", ["gelu", "gelu_new"])
def test_the_activation_is_part_of_the_product_before_it(activation: str) -> None:
    torch.manual_seed(0)
    model = BertModel(BertConfig(vocab_size=50, hidden_act=activation, **SIZES), add_pooling_layer=False).eval()
    block = model.encoder.layer[0].intermediate
    states = torch.randn(2, 5, 24)
    with torch.inference_mode():
        faster = fused._faster(block)
        assert faster is not None
        assert torch.allclose(faster(states), block(states), atol=1e-3)


def test_other_activations_and_other_blocks_stay(model: Any) -> None:
    other = BertModel(BertConfig(vocab_size=50, hidden_act="relu", **SIZES), add_pooling_layer=False)
    assert fused._faster(other.encoder.layer[0].intermediate) is None
    assert fused._faster(model.embeddings) is None
    assert fused._faster(model.encoder.layer[0]) is None
    decoder = BertModel(BertConfig(vocab_size=50, is_decoder=True, **SIZES), add_pooling_layer=False)
    assert fused._faster(decoder.encoder.layer[0].attention.self) is None


def test_the_kernel_adds_and_normalises() -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton comes with torch's builds for CUDA; this torch has none")
    program = """
import torch
from transforms.encoders.engines.torch.add_norm import add_norm
for columns in (24, 384, 768):
    norm = torch.nn.LayerNorm(columns)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    states, others = torch.randn(1, 5, columns), torch.randn(1, 5, columns)
    assert torch.allclose(add_norm(states, others, norm), norm(states + others), atol=1e-5)
"""
    done = subprocess.run(  # Triton's interpreter is chosen when it is imported
        [sys.executable, "-c", program], env={"TRITON_INTERPRET": "1", "PATH": ""}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
