"""Word vectors as lines of text: GloVe, and with a first line of both counts word2vec and fastText's .vec.

A line is a word and its numbers, with a space between each; the word may have spaces in it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from transforms.encoders.word_files.word_file import (
    BLOCK_NUMBERS,
    MOST_DIMENSIONS,
    Block,
    WordFile,
    checked,
    damaged,
    lines_of,
)

_SHOWN_BYTES = 60


def header(line: bytes) -> tuple[int, int] | None:
    """How many vectors of how many numbers a first line promises; None if it is not such a line.

    >>> header(b"400000 50\\n"), header(b"the 0.4 0.2\\n")
    ((400000, 50), None)
    """
    parts = line.split()
    if len(parts) != 2 or not all(part.isdigit() for part in parts) or max(map(len, parts)) > 18:
        return None
    return int(parts[0]), int(parts[1])


def is_vector(line: bytes, dimensions: int) -> bool:
    """Whether a line is a word and so many numbers."""
    return _numbers(line, dimensions) is not None


def read(path: Path, stream: BinaryIO, first: bytes, promised: tuple[int, int] | None) -> WordFile:
    """The words of a file of text.

    Args:
        stream: after the first line of a vector.
        first: that line.
        promised: what the header says; None where there is none.

    Raises:
        ConfigurationError: if the first line is not a vector.
    """
    dimensions = promised[1] if promised else _dimensions(first)
    if not dimensions:
        raise damaged(
            path,
            f"begins with {first[:_SHOWN_BYTES]!r}, which is not a word and its numbers",
            "name a file of GloVe, word2vec (text or binary) or fastText (.vec or .bin)",
        )
    kind = "word2vec text" if promised else "glove"
    lines = chain([first], lines_of(path, stream))
    return WordFile(kind, dimensions, _blocks(path, stream, lines, dimensions, promised))


def _blocks(
    path: Path, stream: BinaryIO, lines: Iterator[bytes], dimensions: int, promised: tuple[int, int] | None
) -> Iterator[Block]:
    step = max(1, BLOCK_NUMBERS // dimensions)
    words: list[bytes] = []
    numbers = array("f")
    number = start = 1 + bool(promised)
    with stream:
        for number, line in enumerate(lines, start):
            found = _numbers(line, dimensions)
            if found is None:
                raise damaged(
                    path,
                    f"has in line {number} {line[:_SHOWN_BYTES]!r}, which is not a word and {dimensions} numbers",
                    "correct that line, or fetch the file again",
                )
            words.append(found[0])
            numbers.extend(found[1])
            if len(words) == step:
                yield _block(path, words, numbers, dimensions, number)
                words, numbers = [], array("f")
        if words:
            yield _block(path, words, numbers, dimensions, number)
    total = number - start + 1
    if promised and total != promised[0]:
        raise damaged(path, f"has {total} vectors, and its first line promises {promised[0]}")


def _block(path: Path, words: list[bytes], numbers: array[float], dimensions: int, last: int) -> Block:
    vectors: NDArray[np.float32] = np.frombuffer(numbers, np.float32).reshape(-1, dimensions)
    checked(path, vectors, words, last - len(words) + 1)
    return Block(words, vectors)


def _numbers(line: bytes, dimensions: int) -> tuple[bytes, array[float]] | None:
    parts = line.rstrip(b" \r\n").rsplit(b" ", dimensions)
    if len(parts) != dimensions + 1 or not parts[0]:
        return None
    try:
        return parts[0], array("f", map(float, parts[1:]))
    except ValueError:
        return None


def _dimensions(line: bytes) -> int:
    """Numbers at the end of a line without a header before it; 0 if it is not a vector."""
    parts = line.rstrip(b" \r\n").split(b" ")
    found = 0
    for part in reversed(parts[1:]):
        try:
            float(part)
        except ValueError:
            break
        found += 1
    return found if found <= MOST_DIMENSIONS else 0
