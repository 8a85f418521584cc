"""The words and vectors of a file, kept once per machine in a form that processes map into memory.

`vectors.safetensors` has the rows, `vocabulary.safetensors` the words as bytes and a sorted hash of each, so that a
process loads neither: a word is found with a binary search over the hashes and compared with its bytes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.identity import digest
from transforms.encoders.engines.cache import Origin, cant_write, kept
from transforms.encoders.word_files.word_file import Subwords, WordFile, damaged, open_word_file

log = logging.getLogger("vecbeam")
_FORMAT = 1
_VECTORS = "vectors.safetensors"
_VOCABULARY = "vocabulary.safetensors"
_FACTS = "words.json"
_HEADER_BYTES = 1024
_TYPES: dict[str, Any] = {"F32": np.dtype("<f4"), "U64": np.dtype("<u8"), "I64": np.dtype("<i8"), "U8": np.dtype("u1")}


@dataclass(frozen=True)
class WordTable:
    """Words with their vectors, mapped into memory. Several threads may use it at once.

    Attributes:
        vectors: float32[words + parts of words, dimensions].
        hashes: uint64[words], sorted.
        rows: int64[words], the row of each hash.
        ends: int64[words], where each row's word ends in `spelled`.
        spelled: uint8[bytes], all words in the order of the rows.
        kind: of the file; see `WordFile`.
    """

    vectors: NDArray[np.float32]
    hashes: NDArray[np.uint64]
    rows: NDArray[np.int64]
    ends: NDArray[np.int64]
    spelled: NDArray[np.uint8]
    kind: str
    subwords: Subwords | None

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def dimensions(self) -> int:
        """Numbers of a vector."""
        return int(self.vectors.shape[1])

    def word(self, row: int) -> bytes:
        """The word of a row."""
        start = int(self.ends[row - 1]) if row else 0
        return self.spelled[start : int(self.ends[row])].tobytes()

    def find(self, words: Sequence[str]) -> list[int]:
        """The row of each word, spelled exactly so; -1 for one that the file does not have."""
        if not words:
            return []
        spelled = [word.encode(errors="surrogatepass") for word in words]
        hashes = _hashes(spelled)
        places = np.searchsorted(self.hashes, hashes)
        places = np.minimum(places, len(self.hashes) - 1)
        found = np.where(self.hashes[places] == hashes, self.rows[places], -1).tolist()
        return [row if row >= 0 and self.word(row) == word else -1 for row, word in zip(found, spelled, strict=True)]

    @classmethod
    def open(cls, folder: Path) -> WordTable:
        """The table in a folder of the cache."""
        facts = json.loads((folder / _FACTS).read_text())
        vocabulary = _mapped(folder / _VOCABULARY)
        return cls(
            vectors=_mapped(folder / _VECTORS)["vectors"],
            hashes=vocabulary["hashes"],
            rows=vocabulary["rows"],
            ends=vocabulary["ends"],
            spelled=vocabulary["spelled"],
            kind=facts["kind"],
            subwords=Subwords(*facts["subwords"]) if facts["subwords"] else None,
        )


def word_table(path: Path, sha256: str) -> WordTable:
    """The table of a file, which the first process of a machine makes.

    Args:
        path: see `open_word_file`.
        sha256: of the file.

    Raises:
        ConfigurationError: if the file is none of word vectors, or damaged.
        EncoderError: if the cache can't be written.
    """
    # In one process, a pipeline describes its model several times.
    return _table(path, sha256)


@lru_cache(maxsize=8)
def _table(path: Path, sha256: str) -> WordTable:
    fingerprint = digest(["words", _FORMAT, sha256], 32)
    origin = Origin(sha256, {}, ("words", str(_FORMAT)), fingerprint)
    return WordTable.open(kept(origin, lambda folder: _make(path, folder)))


def _make(path: Path, folder: Path) -> None:
    log.info("reading %s into the cache of models", path)
    opened = open_word_file(path)
    try:
        words, rows = _write_vectors(opened, folder / _VECTORS)
        if not words:
            raise damaged(path, "has no word")
        _write_vocabulary(path, words, folder / _VOCABULARY)
        facts = {"kind": opened.kind, "rows": rows, "subwords": opened.subwords}
        (folder / _FACTS).write_text(json.dumps(facts))
    except OSError as error:
        raise cant_write(folder, error) from error


def _write_vectors(opened: WordFile, file: Path) -> tuple[list[bytes], int]:
    """Writes the vectors, a block at a time; returns the words, and how many rows there are."""
    words: list[bytes] = []
    rows = 0
    with file.open("wb") as stream:
        stream.write(b" " * _HEADER_BYTES)
        for block in opened.blocks:
            words += block.words
            rows += len(block.vectors)
            stream.write(np.ascontiguousarray(block.vectors, "<f4").data)
        for vectors in opened.parts:
            rows += len(vectors)
            stream.write(np.ascontiguousarray(vectors, "<f4").data)
        shape = [rows, opened.dimensions]
        facts = {"vectors": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * rows * opened.dimensions]}}
        header = json.dumps(facts).encode().ljust(_HEADER_BYTES - 8)
        stream.seek(0)
        stream.write(struct.pack("<Q", len(header)) + header)
    return words, rows


def _write_vocabulary(path: Path, words: list[bytes], file: Path) -> None:
    from safetensors.numpy import save_file

    # The first of several rows of a word counts, as in gensim.
    hashes, rows = np.unique(_hashes(words), return_index=True)
    if len(hashes) < len(words):
        log.warning("%s has %d words more than once: the first vector of each counts", path, len(words) - len(hashes))
    save_file(
        {
            "hashes": hashes,
            "rows": rows.astype(np.int64),
            "ends": np.cumsum([len(word) for word in words], dtype=np.int64),
            "spelled": np.frombuffer(b"".join(words), np.uint8),
        },
        file,
    )


def _hashes(words: Sequence[bytes]) -> NDArray[np.uint64]:
    joined = b"".join(hashlib.blake2b(word, digest_size=8).digest() for word in words)
    return np.frombuffer(joined, "<u8").astype(np.uint64)


def _mapped(file: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a file of safetensors, mapped into memory: the library's own reader for NumPy copies them."""
    return dict(_tensors(file))


def _tensors(file: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    with file.open("rb") as stream:
        (size,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(size))
    for name, facts in header.items():
        if name != "__metadata__":
            start = 8 + size + facts["data_offsets"][0]
            yield name, np.memmap(file, _TYPES[facts["dtype"]], "r", start, tuple(facts["shape"])).view(np.ndarray)
