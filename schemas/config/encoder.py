"""The section `encoder`: which model, and how it is run."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from schemas.config.base import Section, Text, check_each_once
from schemas.config.collection import IndexConfig
from schemas.config.fit import FitConfig

VECTOR = "vector"
"""The name of the vector where there is one."""


BM25 = "bm25"
"""The family, and the model, whose vectors Milvus makes."""
WORD_VECTOR_FILES = (".vec", ".bin", ".txt", ".vec.gz", ".bin.gz", ".txt.gz")
"""Ends of the names of models that are files."""
_ADDRESS = re.compile(r"^https?://", re.IGNORECASE)
PICTURE, SOUND, MEDIA = "picture", "sound", "media"
"""Values of `input` that are not fields of a record."""


def _kind_of_input(value: Any) -> str:
    return "Fields" if isinstance(value, list) else "Part"


EncoderInput = Annotated[
    Annotated[Literal["picture", "sound", "media"], Tag("Part")]
    | Annotated[list[Text], Field(min_length=1), Tag("Fields")],
    Discriminator(_kind_of_input),
]
KEY_VARIABLE = "VECBEAM_EMBEDDINGS_KEY"


NO_NULL_VECTORS = (
    "vecbeam stores no null vectors: Milvus Lite 3.2 stores zeros for one, whose row is found before rows of a "
    "negative similarity, Milvus 2.3 to 2.6 have no nullable vectors, and vecbeam is not tested with Milvus 3.0, which "
    "has them"
)


class EmbeddingServer(Section):
    """A server of the protocol POST /v1/embeddings, and how much vecbeam may send it."""

    model: Text = Field(description="Name of the model at the server, part of the space")
    key_variable: str = Field(
        KEY_VARIABLE,
        pattern="^[A-Z_][A-Z0-9_]*$",
        description="Environment variable with the key that vecbeam sends as a bearer token. If it is not set, vecbeam "
        "sends no key",
    )
    batch_texts: int = Field(32, ge=1, le=2048, description="Most texts per request")
    concurrency: int = Field(4, ge=1, le=256, description="Requests at the same time, for each worker process")
    requests_per_minute: float | None = Field(None, gt=0, description="Limit for each worker process")
    tokens_per_minute: float | None = Field(
        None, gt=0, description="Limit for each worker process, in estimated tokens"
    )
    timeout_s: float = Field(60.0, gt=0, description="Seconds in which a request must be answered")
    retry_s: float = Field(
        300.0, ge=0, description="Seconds for which vecbeam retries a request that fails temporarily"
    )
    usd_per_million_tokens: float | None = Field(
        None, ge=0, description="Price, from which plan and report compute the cost"
    )


class EncoderConfig(Section):
    model: Text = Field(
        "all-MiniLM-L6-v2",
        description="A catalogue name (such as all-MiniLM-L6-v2, multilingual-e5-small, bge-m3; docs/encoders.md has "
        "all), a hub id (with revision), a folder, a file of word vectors, the address of an embedding server, "
        "http(s)://server/v1, or tfidf, lsa, projection, hashing or word2vec, which vecbeam fits on the corpus",
    )
    revision: Text | None = Field(
        None,
        description="Commit of the hub repository; needed for a hub id. For an embedding server a name of your own for "
        "the version of its model, part of the space",
    )
    server: EmbeddingServer | None = Field(
        None, description="See [encoder.server](#encoderserver); needed if `model` is an address"
    )
    family: Text | None = Field(
        None,
        description="Family of encoders that loads the model: sentence_transformers, splade, bm25, colbert, words, "
        "use, remote, timm, open_clip, transformers, conse, whisper, resemblyzer, or one from another package. By "
        "default that of the catalogue's entry, of the files, or the family with the model's name",
    )
    analyzer: Literal["standard", "english", "chinese"] | None = Field(
        None,
        description="How Milvus splits texts into words for bm25, standard by default: lower-cased runs of letters and "
        "digits; english also stems them and drops stop words; part of the space",
    )
    fit: FitConfig | None = Field(
        None, description="See [encoder.fit](#encoderfit); only for tfidf, lsa, projection, hashing and word2vec"
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
        description="Beam resource hint of the embedding step, e.g. type:nvidia-tesla-t4;count:1;"
        "install-nvidia-driver. With it other workers read and chunk, and only those that embed have the accelerator",
    )
    min_ram: Text | None = Field(
        None,
        pattern=r"^[0-9]+(\.[0-9]+)? ?[KMGTP]i?B$",
        description="Beam resource hint of the same step: the least memory of a worker with the accelerator, e.g. 16GB",
    )
    prompt: str | None = Field(
        None,
        description="Prefix of each text of the corpus; by default the model's own document prompt, if it has one",
    )
    query_prompt: str | None = Field(
        None, description="Prefix of each query; by default the model's own query prompt, if it has one"
    )
    max_tokens: int | None = Field(
        None,
        ge=8,
        description="Lowers the model's own length limit. Of an embedding server: in estimated tokens, 512 by default",
    )
    dimensions: int | None = Field(
        None,
        ge=1,
        description="Keeps the first n numbers of each vector (Matryoshka models). An embedding server gets it with "
        "each request. lsa, projection, hashing and word2vec make vectors of so many numbers",
    )
    normalize: bool = Field(True, description="Scales each vector to length 1, after cutting it to `dimensions`")
    metric: Literal["COSINE", "IP", "L2"] | None = Field(
        None, description="Metric of this vector's index; by default collection.metric, and IP for a sparse vector"
    )
    index: IndexConfig | None = Field(
        None, description="Index of this vector; by default collection.index, and an inverted index for a sparse vector"
    )
    input: EncoderInput | None = Field(
        None,
        description="The part of an item that the model embeds, if encoders embed different ones (`chunk: false`): "
        "fields of `corpus.content`, such as [title], or `media`, what `corpus.media` names. Of films: picture (the "
        "default), sound, which is the sound track, or [said], a column of `corpus.metadata` that has their subtitles",
    )
    decoding: Literal["exact", "scaled"] = Field(
        "exact",
        description="Of images: `scaled` lets a JPEG file whose shorter side has four times the pixels that the model "
        "needs, or more, be scaled while it is decoded, to twice what is needed or more. It is several times faster on "
        "photographs of 12 megapixels, and vectors differ a little. Part of the space",
    )
    frames: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Of films: frames of each segment that a model of images embeds, 8 by default; with "
        "`frames_per_second` the most of them, 256 by default. The vector is the mean of theirs. Part of the space",
    )
    frames_per_second: float | None = Field(
        None,
        gt=0,
        le=60,
        description="Of films: takes so many frames of each second instead. Part of the space",
    )
    batch_tokens: int | None = Field(
        None,
        ge=64,
        description="Most tokens, padding included, that go through the model at once; by default what "
        "fits the engine: 2048 on a CPU (4096 with amx), 65536 on a GPU. For an embedding server estimated tokens per "
        "request, 8192 by default",
    )

    @field_validator("input", mode="before")
    @classmethod
    def _one_field(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) and value not in (PICTURE, SOUND, MEDIA) else value

    @field_validator("input")
    @classmethod
    def _each_once(cls, value: Any) -> Any:
        if isinstance(value, list):
            check_each_once(value)
        return value

    @property
    def is_remote(self) -> bool:
        """Whether a server embeds."""
        return bool(_ADDRESS.match(self.model))

    @property
    def is_bm25(self) -> bool:
        """Whether Milvus makes the vectors, of the words of the rows' texts."""
        return (self.family or self.model) == BM25

    @model_validator(mode="before")
    @classmethod
    def _no_null_vectors(cls, value: Any) -> Any:
        if isinstance(value, dict) and "on_missing" in value:
            raise ValueError(
                f"on_missing: {NO_NULL_VECTORS}; remove on_missing: an item without the input is a reject "
                "(verify.max_rejected bounds their share). To serve such items too, give the other input a "
                "configuration of its own, and so a collection"
            )
        return value

    @model_validator(mode="after")
    def _analyzer_fits(self) -> EncoderConfig:
        if self.analyzer is not None and not self.is_bm25:
            raise ValueError(f"analyzer is for model: bm25, and model is {self.model!r}: remove analyzer")
        return self

    @model_validator(mode="after")
    def _memory_is_of_the_accelerator(self) -> EncoderConfig:
        if self.min_ram is not None and self.accelerator is None:
            raise ValueError(
                f"min_ram {self.min_ram!r} is for workers with an accelerator: set accelerator, or choose the memory "
                "of all workers with the runner's own options, such as runner.machine_type"
            )
        return self

    @model_validator(mode="after")
    def _server_fits(self) -> EncoderConfig:
        if not self.is_remote:
            if self.server is not None:
                raise ValueError(
                    f"model {self.model!r} is not an address: set model: https://server/v1, or remove server"
                )
            return self
        address = urlsplit(self.model)
        if "@" in address.netloc or address.query or address.fragment:
            raise ValueError(
                "the address of the embedding server has a user, a password or a query: remove it, and put the key "
                f"into the environment variable {KEY_VARIABLE}"
            )
        if not address.hostname:
            raise ValueError(f"model {self.model!r} names no server: write https://server/v1")
        if self.server is None:
            raise ValueError(f"server is missing: add server: {{model: NAME}}, the model's name at {self.model}")
        if self.precision != "float32" or self.engine != "auto":
            raise ValueError("an embedding server has its own engine and precision: remove engine and precision")
        return self

    @model_validator(mode="after")
    def _engine_fits(self) -> EncoderConfig:
        if self.precision == "int8" and self.engine in ("torch", "amx"):
            raise ValueError("precision int8 runs on OpenVINO: set engine: openvino, or precision: bfloat16")
        if self.device == "cuda" and (self.precision == "int8" or self.engine in ("openvino", "amx")):
            raise ValueError("OpenVINO, amx and int8 run on CPUs: set device: cpu, or engine: torch with bfloat16")
        return self


class SpecialisedEncoderConfig(EncoderConfig):
    """An encoder with what other sections say of its input, as `Config.vectors` gives it: not a section."""

    @classmethod
    def of(cls, encoder: EncoderConfig, **facts: Any) -> Self:
        """An encoder's settings, with those facts."""
        return cls(**{name: getattr(encoder, name) for name in encoder.model_fields_set}, **facts)


class PageEncoderConfig(SpecialisedEncoderConfig):
    """An encoder of pages of PDF files that are drawn as images.

    Attributes:
        dpi: `corpus.pages.dpi`, which is part of the space.
    """

    dpi: int


class SubtitlesEncoderConfig(SpecialisedEncoderConfig):
    """An encoder of the subtitles of films.

    Attributes:
        column: of `corpus.metadata`, which has them.
        language: of that column as a code of three letters, which is part of the space; "" for what players show.
    """

    column: str
    language: str
