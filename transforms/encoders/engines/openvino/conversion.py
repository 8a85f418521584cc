"""Models converted for OpenVINO, kept on disk: converted once per machine, shared by its workers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from transforms.encoders.engines.cache import Origin, cant_write, kept
from transforms.encoders.engines.extra import need_torch
from transforms.encoders.engines.openvino.runtime import import_openvino
from transforms.encoders.engines.probe import Probe
from transforms.encoders.engines.torch.modules import load_modules

PACKAGES = ("openvino", "torch", "transformers")
LEAST_COSINE = 0.99999


def converted(origin: Origin, make: Callable[[], Any]) -> Path:
    """The model.xml of a conversion; makes a missing or damaged one.

    Args:
        origin: of the conversion.
        make: converts; returns an openvino.Model.

    Raises:
        EncoderError: if the cache can't be written.
    """

    def save(folder: Path) -> None:
        model = make()
        try:
            import_openvino().save_model(model, folder / "model.xml", compress_to_fp16=False)
        except (OSError, RuntimeError) as error:
            raise cant_write(folder, error) from error

    return kept(origin, save) / "model.xml"


def convert(folder: str, limit: int, route: str = "") -> Any:
    """All of the library's modules in a folder as one openvino.Model in float32, compared with torch.

    Args:
        limit: most tokens of a text.
        route: see `load_modules`.

    Inputs are `input_ids` and `attention_mask` (int64[texts, tokens]), the output is float32[texts, dimensions].

    Raises:
        EncoderError: if the weights can't be loaded, or torch is not installed.
        ValueError: if the converted model gives other vectors than torch.
        Exception: if OpenVINO does not support the model.
    """
    need_torch("converting a model for OpenVINO")
    openvino = import_openvino()
    import torch

    modules = load_modules(folder, "cpu", route)

    class Whole(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.modules_of_model = modules

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            features = {"input_ids": input_ids, "attention_mask": attention_mask}
            return self.modules_of_model(features)["sentence_embedding"]

    words = modules[0].auto_model.config.vocab_size
    example = (torch.arange(32).reshape(2, 16) % words, torch.ones(2, 16, dtype=torch.int64))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of each branch on a shape; shapes stay open below
        model = openvino.convert_model(Whole().eval(), example_input=example)
    for tensor, name in zip(model.inputs, ("input_ids", "attention_mask"), strict=True):
        tensor.get_tensor().set_names({name})
        tensor.get_node().set_partial_shape(openvino.PartialShape([-1, -1]))
    model.validate_nodes_and_infer_types()
    probe = Probe.of(modules, limit)
    ids, mask = probe.tokens.padded(np.arange(3))
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    cosine = probe.least_cosine(compiled({"input_ids": ids, "attention_mask": mask})[0])
    if not cosine >= LEAST_COSINE:  # NaN as well
        raise ValueError(f"the converted model's vectors differ from torch's (cosine {cosine:.5f})")
    return model
