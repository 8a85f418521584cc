"""Word vectors of GloVe, word2vec and fastText: a text's vector is the mean of the vectors of its words.

They are computed with NumPy: no torch, no engine, no accelerator. How a text becomes words is `RULE`.
"""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.config import Config, EncoderConfig
from schemas.errors import ConfigurationError
from schemas.identity import digest
from schemas.modality import Modality
from transforms.chunk.text import TextChunker
from transforms.encoders.base import Encoded, Work, text_inputs
from transforms.encoders.counted_words import MOST_TOKENS, CountingChunker, whitespace_tokenizer
from transforms.encoders.model_files import check_pinned, file_digest, lowered
from transforms.encoders.model_source import ModelSource, Prompts
from transforms.encoders.text_facts import FactedText, TextFacts
from transforms.encoders.word_files.fasttext_binary import part_rows
from transforms.encoders.word_files.word_table import WordTable, word_table
from transforms.support.vectors import dense_array

if TYPE_CHECKING:
    from tokenizers import Tokenizer

RULE = (
    "1: a text that is an entry is that word; else pieces between white space, without the punctuation around them or "
    "with it; else their runs of letters and digits; each as written, else in lower case; NFC"
)
"""How a text becomes words; part of the space. Any other words for the same text need another number."""
_LONGEST_ENTRY = 256
_SUMMED_ROWS = 16_384
_REMEMBERED = 200_000
_RUN = re.compile(r"[^\W_]+")
_AROUND = re.compile(r"^[\W_]+|[\W_]+$")
Rows = tuple[int, ...]
"""The rows of the table whose mean is the vector of a word: one, or those of its parts as well."""


class KnownWords(NamedTuple):
    """A text as words.

    Attributes:
        known: rows of each word that has a vector, in order.
        dropped: words that have none, and those over the limit.
    """

    known: Sequence[Rows]
    dropped: int


@dataclass(frozen=True)
class WordReader:
    """Reads texts as words of a table, as `RULE` says."""

    table: WordTable
    max_tokens: int
    _pieces: dict[str, tuple[Rows | None, ...]] = field(default_factory=dict, repr=False, compare=False)

    def read(self, texts: Sequence[str]) -> list[KnownWords]:
        """The words of each text."""
        whole = self._rows([text.strip() for text in texts], _LONGEST_ENTRY)
        seen = [() if text.strip() in whole else unicodedata.normalize("NFC", text).split() for text in texts]
        pieces = self._known(piece for each in seen for piece in each)
        found = []
        for text, own in zip(texts, seen, strict=True):
            entry = whole.get(text.strip())
            words = [(entry,)] if entry is not None else [pieces[piece] for piece in own]
            found.append(self._limited([word for piece in words for word in piece]))
        return found

    def counts(self, texts: Sequence[str]) -> list[tuple[int, int]]:
        """Words of each text that have a vector, and dropped ones."""
        return [(len(known), dropped) for known, dropped in self.read(texts)]

    def _limited(self, words: Sequence[Rows | None]) -> KnownWords:
        known = [rows for rows in words[: self.max_tokens] if rows is not None]
        return KnownWords(known, len(words) - len(known))

    def _known(self, pieces: Iterable[str]) -> dict[str, tuple[Rows | None, ...]]:
        """The words of each piece of text."""
        wanted = set(pieces)
        known = {piece: self._pieces[piece] for piece in wanted if piece in self._pieces}
        missing = [piece for piece in wanted if piece not in known]
        if missing:
            cores = {piece: _AROUND.sub("", piece) for piece in missing}
            entries = self._rows({text for piece, core in cores.items() if core for text in (core, piece)})
            runs = self._rows({run for core in cores.values() if core not in entries for run in _RUN.findall(core)})
            for piece, core in cores.items():
                known[piece] = tuple(self._words(piece, core, entries, runs))
            if len(self._pieces) > _REMEMBERED:
                self._pieces.clear()
            self._pieces.update((piece, known[piece]) for piece in missing)
        return known

    def _words(self, piece: str, core: str, entries: dict[str, Rows], runs: dict[str, Rows]) -> Iterator[Rows | None]:
        if not core:
            return  # punctuation alone
        entry = entries.get(core) or entries.get(piece)
        if entry is not None:
            yield entry
            return
        for run in _RUN.findall(core):
            yield runs.get(run) or self._of_parts(run)

    def _rows(self, texts: Iterable[str], longest: int | None = None) -> dict[str, Rows]:
        """The rows of those texts that are entries, as written or in lower case."""
        wanted = [text for text in texts if text and (longest is None or len(text) <= longest)]
        spelled = [each for text in wanted for each in (text, text.lower())]
        rows = self.table.find(spelled)
        found = {}
        for at, text in enumerate(wanted):
            row = rows[2 * at] if rows[2 * at] >= 0 else rows[2 * at + 1]
            if row >= 0:
                found[text] = self._with_parts(row)
        return found

    def _with_parts(self, row: int) -> Rows:
        if self.table.subwords is None:
            return (row,)
        return (row, *(self._of_parts(self.table.word(row).decode(errors="replace")) or ()))

    def _of_parts(self, word: str) -> Rows | None:
        """The rows of the parts of a word; None if it has none, or the file knows none."""
        if self.table.subwords is None:
            return None
        return tuple(len(self.table) + row for row in part_rows(word, self.table.subwords)) or None


@dataclass(frozen=True)
class WordsModel(FactedText):
    """A file of word vectors."""

    config: EncoderConfig
    table: WordTable

    @property
    def probe(self) -> pa.Table:
        return text_inputs([self.table.word(0).decode(errors="replace")])

    def reader(self) -> WordReader:
        """Reads texts as its words."""
        return WordReader(self.table, self.facts.max_tokens)

    def tokenizer(self) -> Tokenizer:
        """See `whitespace_tokenizer`."""
        return whitespace_tokenizer()

    def chunker(self, config: Config, modality: Modality) -> CountingChunker:  # noqa: ARG002 (it has one)
        return CountingChunker(TextChunker(config, self), self.reader().counts)

    def load(self, sample: Sequence[str] = ()) -> WordsEncoder:  # noqa: ARG002 (the protocol's)
        return WordsEncoder(self, self.reader())


@dataclass(frozen=True)
class WordsEncoder:
    """See the module."""

    model: WordsModel
    reader: WordReader

    def encode(self, inputs: pa.Table, *, query: bool = False, advance: Callable[[int], None] | None = None) -> Encoded:  # noqa: ARG002 (the protocol's)
        """See `Encoder.encode`; a text without a known word is refused."""
        start = time.perf_counter()
        facts, texts = self.model.facts, inputs.column("text").to_pylist()
        read = self.reader.read(texts)
        vectors = np.zeros((len(texts), facts.dimensions), np.float32)
        for place, each in enumerate(read):
            if each.known:
                vectors[place] = self._mean(each.known)
        if facts.normalize:
            # In float64, where the squares of a file's small numbers are not 0.
            lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
            vectors = np.divide(vectors, lengths, out=vectors, where=lengths > 0, casting="same_kind")
        tokens = np.fromiter((len(each.known) for each in read), np.int64, len(read))
        dropped = np.fromiter((each.dropped for each in read), np.int64, len(read))
        if advance is not None:
            advance(int(tokens.sum()))
        refused = {row: ("UnknownWords", self._reason(read[row])) for row in np.flatnonzero(tokens == 0).tolist()}
        return Encoded(dense_array(vectors), tokens, dropped, Work(0, time.perf_counter() - start), refused)

    def _reason(self, read: KnownWords) -> str:
        name = Path(self.model.config.model).name
        if not read.dropped:
            return f"the text has no word, and is not an entry of {name}"
        words = "its word is" if read.dropped == 1 else f"none of its {read.dropped} words is"
        return f"{words} {'not ' if read.dropped == 1 else ''}in {name}, so that it has no vector"

    def _mean(self, words: Sequence[Rows]) -> NDArray[np.float32]:
        table = self.reader.table.vectors[:, : self.model.facts.dimensions]
        total = np.zeros(table.shape[1], np.float32)
        if self.reader.table.subwords is None:
            rows = np.fromiter((row for (row,) in words), np.int64, len(words))
            for start in range(0, len(rows), _SUMMED_ROWS):
                total += table[rows[start : start + _SUMMED_ROWS]].sum(axis=0)
        else:
            for each in words:
                total += table[list(each)].mean(axis=0)
        mean: NDArray[np.float32] = total / np.float32(len(words))
        return mean

    def runtime(self) -> dict[str, str]:
        """See `Encoder.runtime`."""
        return {"engine": "numpy", "device": "cpu", "precision": "float32", "numpy": np.__version__}


def describe(config: EncoderConfig, source: ModelSource) -> WordsModel:
    """Reads a file of word vectors, and defines its space.

    Raises:
        ConfigurationError: if there is no such file, it is none of word vectors or damaged, or the configuration has a
            prompt or int8.
        EncoderError: if it is not the pinned file, or the cache can't be written.
    """
    for key in ("prompt", "query_prompt"):
        if getattr(config, key):
            raise ConfigurationError(
                f"encoder.{key}: {config.model} is of word vectors, where a prompt is more words of each text",
                f"leave encoder.{key} out",
            )
    if config.precision == "int8":
        raise ConfigurationError(
            f"encoder.precision: {config.model} is of word vectors, which have no int8",
            "set encoder.precision: float32",
        )
    path = source.folder() if source.entry is not None else Path(config.model)
    files = sorted([*path.glob("*.npy"), *path.glob("*.parquet")]) if path.is_dir() else [path]
    try:
        digests = [file_digest(file) for file in files if file.is_file()]
    except OSError as error:
        raise ConfigurationError(
            f"encoder.model: {path} can't be read: {error.strerror}", "make it readable for this user"
        ) from error
    if digests:
        check_pinned(files[0], digests[0], source.weights_sha256)
        check_pinned(files[-1], digests[-1], source.vocabulary_sha256, "words")
    weights, *vocabulary = digests or [""]
    table = word_table(path, digest(digests, 64) if vocabulary else weights)
    source.compare(table.dimensions, MOST_TOKENS, Prompts())
    facts = TextFacts(
        weights=weights,
        tokenizer=digest([RULE, *vocabulary], 64),
        architecture={"model_type": "word_vectors"},
        pooling="mean",
        max_tokens=lowered(config, "max_tokens", MOST_TOKENS),
        dimensions=lowered(config, "dimensions", table.dimensions),
        normalize=config.normalize,
    )
    return WordsModel(facts, config, table)
