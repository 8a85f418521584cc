"""Static embeddings of the sentence-transformers library: a text's vector is the mean of its tokens' rows in a table.

They are computed with numpy: no torch, no engine, no accelerator.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.config import Config, EncoderConfig
from schemas.errors import ConfigurationError, EncoderError
from schemas.modality import Modality
from transforms.chunk.text import TextChunker
from transforms.encoders.base import Encoded, Work, token_ids_of
from transforms.encoders.model_files import (
    lowered,
    prompts_of,
    read_json,
    read_tokenizer,
    tokenizer_digest,
    weights_digest,
)
from transforms.encoders.model_source import ModelSource
from transforms.encoders.text_facts import FactedText, TextFacts
from transforms.support.vectors import dense_array

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MOST_TOKENS = 32_768
"""Of a text: the models have no limit of their own."""
_TABLE = "embedding.weight"
_SUMMED_TOKENS = 16_384


@dataclass(frozen=True)
class StaticModel(FactedText):
    """A folder with a StaticEmbedding module."""

    config: EncoderConfig
    folder: Path
    """Of the module."""

    def tokenizer(self) -> Tokenizer:
        return read_tokenizer(self.folder / "tokenizer.json", special_tokens=False)

    def chunker(self, config: Config, modality: Modality) -> TextChunker:  # noqa: ARG002 (it has one)
        return TextChunker(config, self)

    def load(self, sample: Sequence[str] = ()) -> StaticEncoder:  # noqa: ARG002 (the protocol's)
        return StaticEncoder(self, self.tokenizer(), _read_table(self.folder))


@dataclass(frozen=True)
class StaticEncoder:
    """See the module.

    Attributes:
        rows: float32[words, dimensions].
    """

    model: StaticModel
    tokenizer: Tokenizer
    rows: NDArray[np.float32]

    def encode(self, inputs: pa.Table, *, query: bool = False, advance: Callable[[int], None] | None = None) -> Encoded:
        start = time.perf_counter()
        facts, texts = self.model.facts, inputs.column("text").to_pylist()
        known = token_ids_of(inputs)
        unknown = [self.model.as_seen(text, query=query) for text, ids in zip(texts, known, strict=True) if ids is None]
        encodings = iter(self.tokenizer.encode_batch_fast(unknown))
        seen = [np.asarray(next(encodings).ids if ids is None else ids, np.int64) for ids in known]
        vectors = np.zeros((len(texts), facts.dimensions), np.float32)
        for place, ids in enumerate(seen):
            if len(ids):
                vectors[place] = self._mean(ids[: facts.max_tokens])
        if facts.normalize:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        total = np.fromiter(map(len, seen), np.int64, len(seen))
        tokens = np.minimum(total, facts.max_tokens)
        if advance is not None:
            advance(int(tokens.sum()))
        return Encoded(dense_array(vectors), tokens, total - tokens, Work(0, time.perf_counter() - start))

    def _mean(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        kept = self.rows[:, : self.model.facts.dimensions]
        total = np.zeros(kept.shape[1], np.float32)
        for start in range(0, len(ids), _SUMMED_TOKENS):
            total += kept[ids[start : start + _SUMMED_TOKENS]].sum(axis=0)
        mean: NDArray[np.float32] = total / np.float32(len(ids))
        return mean

    def runtime(self) -> dict[str, str]:
        return {"engine": "numpy", "device": "cpu", "precision": "float32", "numpy": np.__version__}


def describe_static(
    config: EncoderConfig, source: ModelSource, folder: Path, root: Path, *, normalize: bool
) -> StaticModel:
    """The model in a folder.

    Args:
        folder: with modules.json.
        root: of the module, with tokenizer.json and weights.
        normalize: whether its vectors have length 1.

    Raises:
        ConfigurationError: if a file does not exist, the table has another name, or int8 is wanted.
        EncoderError: if the weights are not the pinned ones.
    """
    if config.precision == "int8":
        raise ConfigurationError(
            f"encoder.precision: {config.model} is a static embedding, which has no int8",
            "set encoder.precision: float32",
        )
    if not (root / "tokenizer.json").exists():
        raise ConfigurationError(f"encoder.model: {root} holds no tokenizer.json", "fetch the model again")
    weights = weights_digest([root], source.weights_sha256)
    own_dimensions = _shape(root)[1]
    truncation = read_json(root / "tokenizer.json").get("truncation") or {}
    own_tokens = min(int(truncation.get("max_length") or MOST_TOKENS), MOST_TOKENS)
    in_files = prompts_of(folder)
    source.compare(own_dimensions, own_tokens, in_files)
    prompts = source.own_prompts(in_files)
    facts = TextFacts(
        weights=weights,
        tokenizer=tokenizer_digest(root),
        architecture={"model_type": "static_embedding"},
        pooling="mean",
        prompt=prompts.item if config.prompt is None else config.prompt,
        query_prompt=prompts.query if config.query_prompt is None else config.query_prompt,
        max_tokens=lowered(config, "max_tokens", own_tokens),
        dimensions=lowered(config, "dimensions", own_dimensions),
        normalize=config.normalize or normalize,
    )
    return StaticModel(facts, config, root)


def _shape(folder: Path) -> tuple[int, int]:
    from safetensors import SafetensorError, safe_open

    [file, *others] = sorted(folder.glob("*.safetensors"))
    try:
        with safe_open(file, "np") as stored:
            names = list(stored.keys())
            if others or names != [_TABLE]:
                raise ConfigurationError(
                    f"encoder.model: {folder} has tensors {', '.join(names)} where a static embedding has {_TABLE}",
                    "save it with the sentence-transformers library: model.save_pretrained(folder)",
                )
            words, dimensions = stored.get_slice(_TABLE).get_shape()
            return int(words), int(dimensions)
    except SafetensorError as error:
        raise EncoderError(f"can't read the weights {file}: {error}", "fetch the model again") from error


def _read_table(folder: Path) -> NDArray[np.float32]:
    from safetensors.numpy import load_file

    try:
        table: NDArray[Any] = load_file(next(folder.glob("*.safetensors")))[_TABLE]
    except Exception as error:  # the library raises errors of several kinds for damaged files
        raise EncoderError(f"can't load the model in {folder}: {error}", "check the folder's files") from error
    return np.ascontiguousarray(table, np.float32)
