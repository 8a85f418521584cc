"""word2vec's binary format: a line of both counts, then of each word its bytes, a space, and its numbers as float32."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from transforms.encoders.word_files.word_file import (
    BLOCK_NUMBERS,
    Block,
    WordFile,
    checked,
    damaged,
    read_on,
    read_some,
)

_LONGEST_WORD = 4096
_READ_BYTES = 1 << 20


def read(path: Path, stream: BinaryIO, first: bytes, words: int, dimensions: int) -> WordFile:
    """The words of a file.

    Args:
        stream: after the header and `first`.
        first: bytes after the header.
        words, dimensions: what the header promises.
    """
    return WordFile("word2vec binary", dimensions, _blocks(path, stream, first, words, dimensions))


def _blocks(path: Path, stream: BinaryIO, ahead: bytes, count: int, dimensions: int) -> Iterator[Block]:
    size, step = 4 * dimensions, max(1, BLOCK_NUMBERS // dimensions)
    words: list[bytes] = []
    numbers = bytearray()
    at = 0  # of `ahead`, where the next word begins
    with stream:
        for number in range(1, count + 1):
            while (space := ahead.find(b" ", at, at + _LONGEST_WORD)) < 0 and len(ahead) - at < _LONGEST_WORD:
                more = read_some(path, stream, _READ_BYTES)
                if not more:
                    raise damaged(path, f"ends before its word {number} of {count}")
                ahead, at = ahead[at:] + more, 0
            if space < 0:
                raise damaged(
                    path,
                    f"has no word {number} of {count}: no space in {_LONGEST_WORD} bytes",
                    "name a file of GloVe, word2vec (text or binary) or fastText (.vec or .bin)",
                )
            # The original program ends each vector with a line break, other programs do not.
            words.append(ahead[at:space].lstrip(b"\n"))
            if (missing := space + 1 + size - len(ahead)) > 0:
                ahead, at, space = ahead[at:] + read_on(path, stream, missing), 0, space - at
            numbers += ahead[space + 1 : space + 1 + size]
            at = space + 1 + size
            if len(words) == step or number == count:
                vectors = np.frombuffer(bytes(numbers), "<f4").reshape(-1, dimensions)
                checked(path, vectors, words, number - len(words) + 1, "word")
                yield Block(words, vectors)
                words, numbers = [], bytearray()
        if ahead[at:].strip() or read_some(path, stream, _READ_BYTES).strip():
            raise damaged(path, f"continues after the {count} vectors that its first line promises")
