"""The section `encoder`: which model, and how it is run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from schemas.config.base import Section, Text
from schemas.config.collection import IndexConfig

VECTOR = "vector"
"""The name of the vector where there is one."""


class EncoderConfig(Section):
    model: Text = Field("all-MiniLM-L6-v2", description="A catalogue name, a hub id (with revision), or a folder")
    revision: Text | None = Field(None, description="Commit of the hub repository; needed for a hub id")
    family: Text | None = Field(
        None,
        description="Which family of encoders reads the model: sentence_transformers, or one that another package "
        "brings; without it the one that the catalogue says, or whose name the model has",
    )
    precision: Literal["float32", "bfloat16", "int8"] = Field(
        "float32",
        description="float32: cosine at least 0.99999 to the library's own vectors, with every engine; bfloat16 is "
        "faster where the processor has it (float16 on a GPU that has not); int8 needs OpenVINO and loses a little. "
        "No part of the space",
    )
    engine: Literal["auto", "torch", "openvino", "amx"] = Field(
        "auto",
        description="auto takes, on a CPU, amx where the processor has AMX and the model is of BERT's kind, else "
        "OpenVINO where it is installed and knows the model, else torch. torch computes with the library's own "
        "arithmetic; amx builds float32 from products of int8",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU where the worker has one")
    accelerator: Text | None = Field(
        None,
        description="Beam resource hint of the embedding step, e.g. type:nvidia-tesla-t4;count:1;install-nvidia-driver",
    )
    prompt: str | None = Field(
        None,
        description="Put before each text of the corpus; without it the model's own document prompt, if it has one",
    )
    query_prompt: str | None = Field(
        None, description="Put before each query; without it the model's own query prompt, if it has one"
    )
    max_tokens: int | None = Field(None, ge=8, description="Lowers the model's own length limit")
    dimensions: int | None = Field(
        None, ge=1, description="Keeps the first n numbers of each vector (Matryoshka models)"
    )
    normalize: bool = Field(True, description="Scales each vector to length 1, after dimensions were cut")
    metric: Literal["COSINE", "IP", "L2"] | None = Field(
        None, description="Distance of this vector's index; without it collection.metric, and IP for a sparse vector"
    )
    index: IndexConfig | None = Field(
        None, description="Index of this vector; without it collection.index, and an inverted index for a sparse vector"
    )
    batch_tokens: int | None = Field(
        None,
        ge=64,
        description="Most tokens, padding included, that go through the model at once; without it what "
        "fits the engine: 2048 on a CPU (4096 with amx), 65536 on a GPU",
    )

    @model_validator(mode="after")
    def _engine_fits(self) -> EncoderConfig:
        if self.precision == "int8" and self.engine in ("torch", "amx"):
            raise ValueError("precision int8 runs on OpenVINO: take engine: openvino, or precision: bfloat16")
        if self.device == "cuda" and (self.precision == "int8" or self.engine in ("openvino", "amx")):
            raise ValueError("OpenVINO, amx and int8 run on CPUs: take device: cpu, or engine: torch with bfloat16")
        return self
