"""Files of word vectors that are damaged, or something else: each is refused by name, place and remedy."""

from __future__ import annotations

import gzip
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError, EncoderError
from transforms.encoders import resolve, text_inputs
from transforms.encoders.word_files.fasttext_binary import MAGIC
from transforms.encoders.word_files.word_file import open_word_file

TEXT = b"3 2\na 1 2\nb 3 4\nc 5 6\n"


def binary(words: int = 3, line_breaks: bool = True) -> bytes:
    """Three words of word2vec's binary format under a header that promises so many."""
    end = b"\n" if line_breaks else b""
    return b"%d 2\n" % words + b"".join(
        word + b" " + np.array([row, 1], "<f4").tobytes() + end for row, word in enumerate((b"a", b"b", b"c"))
    )


def fasttext(
    *,
    version: int = 12,
    model: int = 2,
    labels: int = 0,
    pruned: int = -1,
    quantized: bool = False,
    rows: int = 6,
    longest: int = 3,
    number: float = 1.0,
) -> bytes:
    """A fastText model of three words and three rows of parts, in two dimensions."""
    header = struct.pack("<i 12i d", version, 2, 5, 5, 1, 5, 1, 2, model, 3, 2, longest, 100, 1e-4)
    words = b"".join(word + b"\0" + struct.pack("<q b", 5, 0) for word in (b"a", b"bc", b"d"))
    counts = struct.pack("<3i 2q", 3 + labels, 3, labels, 15, pruned)
    matrix = np.arange(12, dtype="<f4")
    matrix[-1] = number
    return MAGIC + header + counts + words + struct.pack("<? 2q", quantized, rows, 2) + matrix.tobytes()


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.txt", TEXT)


def folder(path: Path) -> None:
    path.mkdir()
    np.save(path / "a.npy", np.ones((2, 3)))


BAD: dict[str, tuple[bytes | Callable[[Path], None], str]] = {
    "empty.txt": (b"", "is empty"),
    "prose.txt": (
        b"Once upon a time\nthere was a king.\n",
        "begins with b'Once upon a time.*not a word and its numbers",
    ),
    "short.txt": (b"a 1 2\nb 3\n", r"has in line 2 b'b 3\\n', which is not a word and 2 numbers.*correct that line"),
    "letters.txt": (b"a 1 2\nb 3 x\n", "in line 2"),
    "nan.txt": (b"a 1 2\nb 3 nan\n", "NaN or infinity in the vector of 'b', line 2.*remove that word"),
    "infinite.vec": (b"2 2\na 1 2\nb 3 1e60\n", "'b', line 3"),
    "fewer.vec": (TEXT.replace(b"3 2", b"4 2"), "has 3 vectors, and its first line promises 4"),
    "more.vec": (TEXT.replace(b"3 2", b"2 2"), "has 3 vectors, and its first line promises 2"),
    "none.vec": (b"0 2\n", "promises 0 vectors of 2 numbers"),
    "wide.vec": (b"1 99999\na 1\n", "promises 1 vectors of 99999 numbers"),
    "huge.bin": (binary(2_000_000_000), r"has 46 bytes, and the 2000000000 vectors .* take 20000000000 at least"),
    "cut.bin": (binary()[:-5], r"ends in the middle of its vectors|has 32 bytes"),
    "longer.bin": (binary(2), "continues after the 2 vectors"),
    "no-space.bin": (b"1 2\n" + b"a" * 9000, "no space in 4096 bytes"),
    "nan.bin": (binary().replace(np.float32(2).tobytes(), np.float32(np.nan).tobytes()), "vector of 'c', word 3"),
    "fast-cut-header.bin": (fasttext()[:30], "ends in the middle"),
    "fast-cut-words.bin": (fasttext()[:105], r"ends in its vocabulary, at word \d of 3"),
    "fast-cut-rows.bin": (fasttext()[:-9], "ends after 39 of 48 bytes of its vectors"),
    "fast-version.bin": (fasttext(version=10), "of fastText's format 10"),
    "fast-supervised.bin": (fasttext(model=3), "supervised fastText model, a classifier.*cbow"),
    "fast-labels.bin": (fasttext(labels=1), "supervised"),
    "fast-quantized.bin": (fasttext(quantized=True), "quantized.*before it was quantized"),
    "fast-pruned.bin": (fasttext(pruned=1), "pruned"),
    "fast-rows.bin": (fasttext(rows=5), "has 5 vectors of 2 numbers, and its header promises 6"),
    "fast-nan.bin": (fasttext(number=np.nan), "NaN or infinity in the vectors of parts"),
    "fast.bin.gz": (gzip.compress(fasttext()), "compressed fastText model.*gunzip"),
    "cut.txt.gz": (gzip.compress(b"a 1 2\n" * 999)[:-12], "can't be read"),
    "not.txt.gz": (b"\x1f\x8bnothing", "can't be read"),
    "saved.bin": (pickle.dumps({"a": 1}), "is a Python pickle.*save_word2vec_format"),
    "packed.bin": (zipped, "is a zip file.*unpack it"),
    "folder.bin": (folder, r"does not hold one \.npy file of vectors and one \.parquet of words"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECBEAM_CACHE", str(tmp_path / "cache"))
    content, says = BAD[name]
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)
    with pytest.raises(ConfigurationError, match=says) as refused:
        resolve(EncoderConfig(model=str(path)))
    assert str(path) in refused.value.message
    assert refused.value.remedy
    assert [file.name for file in (tmp_path / "cache").glob("*")] == []


def test_a_missing_file_is_refused_by_the_command_before_it_reads_the_corpus(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("no json, which nobody reads\n")
    (tmp_path / "vecbeam.yaml").write_text(
        "name: words\ncorpus: {paths: [a.jsonl]}\nencoder: {model: ./glove.txt}\ncheckpoint: c\n"
        "collection: {uri: ./m.db}\n"
    )
    answer = CliRunner().invoke(app, ["backfill", str(tmp_path / "vecbeam.yaml")])
    assert answer.exit_code == 2
    assert "there is no file" in answer.stderr
    assert "glove.txt" in answer.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "vecbeam.yaml"]


@pytest.mark.parametrize("line_breaks", [True, False])
def test_binary_files_with_and_without_line_breaks(tmp_path: Path, line_breaks: bool) -> None:
    (tmp_path / "a.bin").write_bytes(binary(line_breaks=line_breaks))
    [block] = open_word_file(tmp_path / "a.bin").blocks
    assert block.words == [b"a", b"b", b"c"]
    assert block.vectors.tolist() == [[0, 1], [1, 1], [2, 1]]


def test_blocks_join_at_any_border(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transforms.encoders.word_files import fasttext_binary, vector_lines, word2vec_binary

    monkeypatch.setattr(word2vec_binary, "_READ_BYTES", 3)
    for module in (fasttext_binary, vector_lines, word2vec_binary):
        monkeypatch.setattr(module, "BLOCK_NUMBERS", 4)
    for name, content in (("a.bin", binary()), ("b.txt", TEXT[4:]), ("c.bin", fasttext())):
        (tmp_path / name).write_bytes(content)
        opened = open_word_file(tmp_path / name)
        blocks = list(opened.blocks)
        assert [len(block.words) for block in blocks] == [2, 1], name
        assert sum(map(len, opened.parts)) == (3 if name == "c.bin" else 0)


def test_words_with_spaces_strange_bytes_and_duplicates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("VECBEAM_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "a.txt"
    # As in glove.840B: a word of spaces; bytes that are not UTF-8; a word twice; other line breaks in a word.
    path.write_bytes(b"a 1 0\n. . . 0 1\n\xff\xfe 1 1\na 5 5\nb\xc2\x85 2 1\nname@site.com 3 1\n")
    found = (
        resolve(EncoderConfig(model=str(path), normalize=False))
        .load()
        .encode(text_inputs([". . .", "a", "\ufffd\ufffd", "b\x85", "name@site.com"]))
    )
    assert found.matrix.tolist() == [[0, 1], [1, 0], [0, 0], [0, 0], [3, 1]]
    assert "1 words more than once" in caplog.text
    assert {*found.refused} == {2, 3}


def test_a_fasttext_model_without_parts_is_a_plain_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECBEAM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.bin").write_bytes(fasttext(longest=0, rows=3))
    found = (
        resolve(EncoderConfig(model=str(tmp_path / "a.bin"), normalize=False))
        .load()
        .encode(text_inputs(["bc", "unknown"]))
    )
    assert found.matrix.tolist() == [[2, 3], [0, 0]]
    assert found.refused[1] == ("UnknownWords", "its word is not in a.bin, so that it has no vector")


def test_a_cache_that_can_t_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("VECBEAM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "unique.txt").write_bytes(b"unique 1 2\n")
    with pytest.raises(EncoderError, match=r"can't write the cache of models.*VECBEAM_CACHE"):
        resolve(EncoderConfig(model=str(tmp_path / "unique.txt")))
