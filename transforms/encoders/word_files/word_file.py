"""Files of word vectors: which format one has, and its words and vectors, block by block.

gensim's `KeyedVectors` reads the same formats and is what the tests compare with. It is not used here: it never ends
with a fastText file that is cut in its vocabulary, reserves the memory that a false header promises, accepts NaN,
splits words with spaces in them, and names no line of a damaged file.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ConfigurationError

MOST_DIMENSIONS = 32_768
"""Of a vector in Milvus."""
BLOCK_NUMBERS = 1 << 20
"""Numbers of a block, about."""
_PICKLE = b"\x80"


class Block(NamedTuple):
    """Some words of a file with their vectors.

    Attributes:
        words: UTF-8, as the file has them.
        vectors: float32[n, dimensions].
    """

    words: list[bytes]
    vectors: NDArray[np.float32]


class Subwords(NamedTuple):
    """How a fastText model makes vectors of parts of words; see `fasttext_binary`.

    Attributes:
        shortest, longest: characters of a part.
        buckets: rows of the table for parts, after those of the words.
    """

    shortest: int
    longest: int
    buckets: int


@dataclass(frozen=True)
class WordFile:
    """A file of word vectors, before its vectors are read.

    Attributes:
        kind: glove, word2vec text, word2vec binary or fastText.
        dimensions: numbers of each vector.
        blocks: words with their vectors, in the file's order; read once.
        parts: float32[n, dimensions] blocks of the vectors of subwords, read after `blocks`.
        subwords: None for a file without.
    """

    kind: str
    dimensions: int
    blocks: Iterator[Block]
    parts: Iterator[NDArray[np.float32]] = field(default_factory=lambda: iter(()))
    subwords: Subwords | None = None


def damaged(file: Path, what: str, remedy: str = "fetch the file again") -> ConfigurationError:
    """For a file that can't be read."""
    return ConfigurationError(f"encoder.model: {file} {what}", remedy)


def open_word_file(path: Path) -> WordFile:
    """Opens a file of word vectors, also one of gzip.

    Raises:
        ConfigurationError: if there is no such file, it is of another format, or damaged, as far as its begin shows;
            reading the blocks raises it for the rest.
    """
    from transforms.encoders.word_files import fasttext_binary, vector_lines, word2vec_binary

    if path.is_dir():
        return _packaged(path)
    if not path.is_file():
        raise ConfigurationError(
            f"encoder.model: there is no file {path}",
            "name a file of GloVe, word2vec or fastText; a relative path starts at the configuration's folder",
        )
    size = path.stat().st_size
    with path.open("rb") as raw:
        is_gzip = raw.read(2) == b"\x1f\x8b"
    stream = cast(BinaryIO, gzip.open(path) if is_gzip else path.open("rb"))  # noqa: SIM115 (its blocks close it)
    start = read_some(path, stream, 4)
    if start == fasttext_binary.MAGIC:
        if is_gzip:
            raise damaged(path, "is a compressed fastText model", "decompress it: gunzip --keep FILE")
        return fasttext_binary.read(path, stream)
    if not start:
        raise damaged(path, "is empty")
    if start.startswith(_PICKLE):
        raise damaged(
            path,
            "is a Python pickle, which may run code and is not read",
            "save the vectors with gensim: model.wv.save_word2vec_format(FILE, binary=True)",
        )
    if start == b"PK\x03\x04":
        raise damaged(path, "is a zip file", "unpack it, and name the file of vectors in it")
    stream.seek(0)
    line = _line(path, stream, 1 << 20)
    promised = vector_lines.header(line)
    if promised is None:
        return vector_lines.read(path, stream, line, None)
    words, dimensions = promised
    if not 0 < dimensions <= MOST_DIMENSIONS or words < 1:
        raise damaged(path, f"promises {words} vectors of {dimensions} numbers in its first line")
    first = _line(path, stream, 1 << 20)
    if vector_lines.is_vector(first, dimensions):
        return vector_lines.read(path, stream, first, promised)
    if not is_gzip and (least := words * (4 * dimensions + 2)) > size:
        raise damaged(
            path,
            f"has {size} bytes, and the {words} vectors of {dimensions} numbers that its first line promises take "
            f"{least} at least",
        )
    return word2vec_binary.read(path, stream, first, words, dimensions)


def _line(path: Path, stream: BinaryIO, most: int) -> bytes:
    try:
        return stream.readline(most)
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, f"can't be read: {error}") from error


def read_some(path: Path, stream: BinaryIO, size: int) -> bytes:
    """At most so many bytes; b"" at the end."""
    try:
        return stream.read(size)
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, f"can't be read: {error}") from error


def read_on(path: Path, stream: BinaryIO, size: int) -> bytes:
    """Exactly so many bytes.

    Raises:
        ConfigurationError: if the file ends before.
    """
    found = read_some(path, stream, size)
    while len(found) < size:
        more = read_some(path, stream, size - len(found))
        if not more:
            raise damaged(path, "ends in the middle of its vectors")
        found += more
    return found


def lines_of(path: Path, stream: BinaryIO) -> Iterator[bytes]:
    """The other lines of a file, which end in \\n alone: words may have other line breaks in them."""
    while line := _line(path, stream, -1):
        yield line


def checked(path: Path, vectors: NDArray[np.float32], words: list[bytes], first: int, unit: str = "line") -> None:
    """Refuses NaN and infinity.

    Args:
        first: number of the first vector in the file, in `unit`.
    """
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        at = int(np.flatnonzero(~finite)[0])
        raise damaged(
            path,
            f"has NaN or infinity in the vector of {words[at].decode(errors='replace')!r}, {unit} {first + at}",
            "remove that word from the file, or fetch the file again",
        )


def _packaged(folder: Path) -> WordFile:
    """Vectors as a NumPy file next to their words in a Parquet file, as Python packages carry them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays, indices = sorted(folder.glob("*.npy")), sorted(folder.glob("*.parquet"))
    if len(arrays) != 1 or len(indices) != 1:
        raise ConfigurationError(
            f"encoder.model: the folder {folder} does not hold one .npy file of vectors and one .parquet of words",
            "name the file of vectors itself",
        )
    try:
        vectors = np.load(arrays[0], mmap_mode="r", allow_pickle=False)
        words = pq.read_table(indices[0]).column(0).cast(pa.string())
    except (OSError, ValueError, pa.ArrowException) as error:
        raise damaged(folder, f"can't be read: {error}", "install the package again") from error
    if vectors.ndim != 2 or vectors.dtype.kind != "f" or len(vectors) != len(words) or words.null_count:
        raise damaged(
            folder,
            f"has {len(words)} words and an array of {vectors.dtype}{list(vectors.shape)}",
            "install the package again",
        )
    step = max(1, BLOCK_NUMBERS // vectors.shape[1])

    def blocks() -> Iterator[Block]:
        for start in range(0, len(vectors), step):
            found = np.ascontiguousarray(vectors[start : start + step], np.float32)
            some = [word.encode() for word in words.slice(start, step).to_pylist()]
            checked(arrays[0], found, some, start, "row")
            yield Block(some, found)

    return WordFile("packaged", int(vectors.shape[1]), blocks())
