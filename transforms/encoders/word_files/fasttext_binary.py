"""fastText's .bin: words, and vectors of words and of the parts of words, from which any word has a vector.

A word's vector is the mean of its own row and of the rows of its parts; an unknown word's that of its parts. A part is
some characters of `<word>`, and its row is a hash of them. Format and hash: src/fasttext.cc and src/dictionary.cc of
https://github.com/facebookresearch/fastText.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from transforms.encoders.word_files.word_file import (
    BLOCK_NUMBERS,
    MOST_DIMENSIONS,
    Block,
    Subwords,
    WordFile,
    checked,
    damaged,
    read_on,
    read_some,
)

MAGIC = struct.pack("<i", 793712314)
_VERSIONS = (11, 12)
_SUPERVISED = 3
_HEADER = struct.Struct("<i 12i d")
_COUNTS = struct.Struct("<3i 2q")
_ENTRY = struct.Struct("<q b")
_MATRIX = struct.Struct("<? 2q")
_LONGEST_WORD = 65_536


def read(path: Path, stream: BinaryIO) -> WordFile:
    """The words of a model, after its magic number.

    Raises:
        ConfigurationError: if it is supervised, quantized, of another version, or damaged.
    """
    header = _HEADER.unpack(read_on(path, stream, _HEADER.size))
    version, dimensions, model = header[0], header[1], header[8]
    buckets, shortest, longest = header[9:12]
    if version not in _VERSIONS:
        raise damaged(path, f"is of fastText's format {version}", "save it with a fastText of format 11 or 12")
    size, count, labels, _, pruned = _COUNTS.unpack(read_on(path, stream, _COUNTS.size))
    if model == _SUPERVISED or labels:
        raise damaged(path, "is a supervised fastText model, a classifier", "name an unsupervised one (cbow, skipgram)")
    if not 0 < dimensions <= MOST_DIMENSIONS or count < 1 or size != count or buckets < 0:
        raise damaged(path, f"promises {count} vectors of {dimensions} numbers, and {buckets} of parts of words")
    has_parts = longest > 0 and buckets > 0
    words = list(_words(path, stream, count))
    if pruned > 0:
        raise damaged(path, "is a pruned fastText model", "name the model before it was quantized, *.bin")
    quantized, rows, columns = _MATRIX.unpack(read_on(path, stream, _MATRIX.size))
    if quantized:
        raise damaged(path, "is a quantized fastText model", "name the model before it was quantized, *.bin")
    # With maxn 0 fastText keeps no row for parts, whatever the header's number of buckets is.
    if columns != dimensions or rows not in (count + buckets, count):
        raise damaged(path, f"has {rows} vectors of {columns} numbers, and its header promises {count + buckets}")
    if (left := path.stat().st_size - stream.tell()) < 4 * rows * columns:
        raise damaged(path, f"ends after {left} of {4 * rows * columns} bytes of its vectors")
    parts = rows - count if has_parts else 0
    subwords = Subwords(shortest, longest, parts) if parts else None
    return WordFile(
        "fastText",
        dimensions,
        _blocks(path, stream, words, dimensions),
        _parts(path, stream, parts, dimensions),
        subwords,
    )


def _words(path: Path, stream: BinaryIO, count: int) -> Iterator[bytes]:
    ahead, at = b"", 0
    for number in range(1, count + 1):
        while (end := ahead.find(b"\0", at)) < 0 or len(ahead) < end + 1 + _ENTRY.size:
            more = read_some(path, stream, 1 << 20)
            if not more or len(ahead) - at > _LONGEST_WORD + (1 << 20):
                raise damaged(path, f"ends in its vocabulary, at word {number} of {count}")
            ahead, at = ahead[at:] + more, 0
        yield ahead[at:end]
        at = end + 1 + _ENTRY.size
    stream.seek(at - len(ahead), 1)


def _blocks(path: Path, stream: BinaryIO, words: list[bytes], dimensions: int) -> Iterator[Block]:
    step = max(1, BLOCK_NUMBERS // dimensions)
    for start in range(0, len(words), step):
        some = words[start : start + step]
        vectors = _matrix(path, stream, len(some), dimensions)
        checked(path, vectors, some, start + 1, "word")
        yield Block(some, vectors)


def _parts(path: Path, stream: BinaryIO, rows: int, dimensions: int) -> Iterator[NDArray[np.float32]]:
    step = max(1, BLOCK_NUMBERS // dimensions)
    with stream:
        for start in range(0, rows, step):
            vectors = _matrix(path, stream, min(step, rows - start), dimensions)
            if not np.isfinite(vectors).all():
                raise damaged(path, "has NaN or infinity in the vectors of parts of words")
            yield vectors


def _matrix(path: Path, stream: BinaryIO, rows: int, dimensions: int) -> NDArray[np.float32]:
    return np.frombuffer(read_on(path, stream, 4 * rows * dimensions), "<f4").reshape(rows, dimensions)


def part_rows(word: str, subwords: Subwords) -> list[int]:
    """The rows of a word's parts, from 0.

    >>> len(part_rows("where", Subwords(3, 4, 1000)))  # <wh whe her ere re> <whe wher here ere>
    9
    """
    characters = [character.encode() for character in f"<{word}>"]
    rows = []
    for start in range(len(characters)):
        for end in range(start + 1, min(start + subwords.longest, len(characters)) + 1):
            length = end - start
            if length < subwords.shortest or (length == 1 and (start == 0 or end == len(characters))):
                continue
            rows.append(_hash(b"".join(characters[start:end])) % subwords.buckets)
    return rows


def _hash(part: bytes) -> int:
    """FNV-1a of 32 bits, of bytes with a sign, as fastText computes it."""
    value = 2166136261
    for byte in part:
        value = ((value ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * 16777619) & 0xFFFFFFFF
    return value
