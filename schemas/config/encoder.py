"""The section `encoder`: which model, and how it is run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from schemas.config.base import Section, Text
from schemas.config.collection import IndexConfig

VECTOR = "vector"
"""The name of the vector where there is one."""


class EncoderConfig(Section):
    model: Text = Field(
        "all-MiniLM-L6-v2",
        description="A catalogue name (such as all-MiniLM-L6-v2, multilingual-e5-small, bge-m3; docs/encoders.md has "
        "all), a hub id (with revision), a folder, or a file of word vectors",
    )
    revision: Text | None = Field(None, description="Commit of the hub repository; needed for a hub id")
    family: Text | None = Field(
        None,
        description="Family of encoders that loads the model: sentence_transformers, words, use, or one from another "
        "package. By default that of the catalogue's entry, of the file's suffix, or the family with the model's name",
    )
    precision: Literal["float32", "bfloat16", "int8"] = Field(
        "float32",
        description="float32: cosine of at least 0.99999 to the library's own vectors, with every engine. bfloat16 is "
        "faster where the processor supports it (float16 on a GPU without it). int8 needs OpenVINO and is less exact. "
        "Not part of the space",
    )
    engine: Literal["auto", "torch", "openvino", "amx"] = Field(
        "auto",
        description="On a CPU, auto chooses amx if the processor has AMX and the model is a BERT variant, else "
        "OpenVINO if it is installed and can convert the model, else torch. torch computes with the library's own "
        "arithmetic; amx computes float32 from products of int8",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto uses a GPU if the worker has one")
    accelerator: Text | None = Field(
        None,
        description="Beam resource hint of the embedding step, e.g. type:nvidia-tesla-t4;count:1;install-nvidia-driver",
    )
    prompt: str | None = Field(
        None,
        description="Prefix of each text of the corpus; by default the model's own document prompt, if it has one",
    )
    query_prompt: str | None = Field(
        None, description="Prefix of each query; by default the model's own query prompt, if it has one"
    )
    max_tokens: int | None = Field(None, ge=8, description="Lowers the model's own length limit")
    dimensions: int | None = Field(
        None, ge=1, description="Keeps the first n numbers of each vector (Matryoshka models)"
    )
    normalize: bool = Field(True, description="Scales each vector to length 1, after cutting it to `dimensions`")
    metric: Literal["COSINE", "IP", "L2"] | None = Field(
        None, description="Metric of this vector's index; by default collection.metric, and IP for a sparse vector"
    )
    index: IndexConfig | None = Field(
        None, description="Index of this vector; by default collection.index, and an inverted index for a sparse vector"
    )
    batch_tokens: int | None = Field(
        None,
        ge=64,
        description="Most tokens, padding included, that go through the model at once; by default what "
        "fits the engine: 2048 on a CPU (4096 with amx), 65536 on a GPU",
    )

    @model_validator(mode="after")
    def _engine_fits(self) -> EncoderConfig:
        if self.precision == "int8" and self.engine in ("torch", "amx"):
            raise ValueError("precision int8 runs on OpenVINO: set engine: openvino, or precision: bfloat16")
        if self.device == "cuda" and (self.precision == "int8" or self.engine in ("openvino", "amx")):
            raise ValueError("OpenVINO, amx and int8 run on CPUs: set device: cpu, or engine: torch with bfloat16")
        return self
