"""Any file, split anywhere and read in blocks of any size, gives the items and rejects of the whole one, each once.

VECBEAM_SPLIT_FILES sets the number of files; benchmarks/splitting.py runs thousands.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from pipelines.steps.corpus.corpus_digests import settings_digest
from schemas.config import Corpus
from schemas.config.loader import parse_config
from transforms.read import list_corpus, plan_shards, read_shard, stream

FILES = int(os.environ.get("VECBEAM_SPLIT_FILES", "200"))
WHOLE = 1 << 40


@dataclass(frozen=True)
class File:
    """A file to be split.

    Attributes:
        records: (id, text) of its items, if it is well formed; None if anything may be in it.
    """

    name: str
    data: bytes
    corpus: dict[str, Any]
    records: list[tuple[str, str]] | None


def outcome(file: File, shard_bytes: int, block_bytes: int) -> tuple[list[Any], list[Any], int]:
    """Items, rejects and the number of shards."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / file.name
        path.write_bytes(file.data)
        corpus = Corpus(paths=[str(path)], **file.corpus).model_copy(update={"shard_bytes": shard_bytes})
        shards = plan_shards(list_corpus(corpus), corpus, block_bytes=block_bytes)
        batches = [b for s in shards for b in read_shard(s, corpus, batch_rows=3, block_bytes=block_bytes)]
    items = [(i["item_id"], i["@content"], i.get("n")) for b in batches for i in b.items.to_pylist()]
    rejects = [(r["id"], r["error"], r["reason"]) for b in batches for r in b.rejects.to_pylist()]
    return items, rejects, len(shards)


LETTERS = st.sampled_from(
    ["a", "b", " ", ",", "\t", ";", '"', '""', "\n", "\r\n", "\r", "\\", "é", "東", "𝄞", "\u2028"]
)
TEXTS = st.one_of(
    st.lists(LETTERS, max_size=12).map("".join),
    st.tuples(st.lists(LETTERS, min_size=1, max_size=4).map("".join), st.integers(1, 60)).map(lambda t: t[0] * t[1]),
)
ENDS = st.sampled_from(["\n", "\r\n"])
MARKS = st.sampled_from([b"", b"", b"\xef\xbb\xbf"])
BROKEN = st.sampled_from(
    [
        b'"',
        b'""',
        b'x"y',
        b'"x"y',
        b",",
        b"\t",
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\r\n",
        b"\xff",
        b"\xe6\x9d",
        b"\x00",
        b"{",
        b"a",
    ]
)


def ended(data: bytes, last: bool) -> bytes:
    return data if last else data.rstrip(b"\r\n")


@st.composite
def jsonl_files(draw: st.DrawFn) -> File:
    texts = draw(st.lists(TEXTS, max_size=12))
    records = [(f"r{n}", "x" + text) for n, text in enumerate(texts)]
    raw = draw(st.booleans())
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "cp1252", "utf-16", "utf-16-be", "shift_jis"]))
    mark = draw(MARKS) if encoding == "utf-8" else b""
    lines = []
    for n, (item, text) in enumerate(records):
        lines += [""] * draw(st.integers(0, 5)).__floordiv__(5)
        ascii_only = encoding in ("cp1252", "shift_jis") or not raw
        lines.append(json.dumps({"id": item, "text": text, "n": n}, ensure_ascii=ascii_only))
    text = "".join(line + draw(ENDS) for line in lines)
    text = text if draw(st.booleans()) else text.rstrip("\r\n")
    corpus = {} if encoding in ("utf-8", "utf-16") else {"encoding": encoding}
    return File("f.jsonl", mark + text.encode(encoding), {"metadata": {"n": "int"}, **corpus}, records)


@st.composite
def csv_files(draw: st.DrawFn) -> File:
    tabs = draw(st.booleans())
    texts = draw(st.lists(TEXTS, max_size=12))
    if (
        tabs
    ):  # a field with line ends whose lines all have the header's tabs can't be distinguished from lines of their own
        texts = [text.replace("\n", " ").replace("\r", " ") for text in texts]
    records = [(f"r{n}", "x" + text) for n, text in enumerate(texts)]
    out = io.StringIO()
    delimiter = "\t" if tabs else draw(st.sampled_from([",", ";", "§"]))
    quoting = draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC]))
    writer = csv.writer(out, delimiter=delimiter, quoting=quoting)
    rows = []
    for row in [["id", "text", "n"], *([item, text, n] for n, (item, text) in enumerate(records))]:
        writer.writerow(row)
        rows.append(out.getvalue().removesuffix("\r\n"))
        out.seek(0)
        out.truncate()
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    text = "".join(row + end * draw(st.sampled_from([1, 1, 1, 2])) for row in rows)
    text = text if draw(st.booleans()) else text.rstrip("\r\n")
    corpus: dict[str, Any] = {"metadata": {"n": "int"}}
    if delimiter not in ",\t":
        corpus["csv"] = {"delimiter": delimiter}
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-16"]))
    mark = draw(MARKS) if encoding == "utf-8" else b""
    return File("f.tsv" if tabs else "f.csv", mark + text.encode(encoding), corpus, records)


@st.composite
def broken_files(draw: st.DrawFn) -> File:
    """Anything: records, halves of records, quotes and bytes that are not text."""
    suffix = draw(st.sampled_from(["csv", "tsv", "jsonl"]))
    line = {
        "csv": st.sampled_from(
            [b"1,x,1\n", b'"2","a ""b"" c",2\r\n', b'3,"a\nb",3\n', b'4,"open,4\n', b"5,x\n", b"6,a\rb,1\n"]
        ),
        "tsv": st.sampled_from(
            [b"1\tx\t1\n", b'2\t"a b"\t2\r\n', b'3\t"a\nb"\t3\n', b'4\t"open\t4\n', b'5\tsay "x"\t5\n']
        ),
        "jsonl": st.sampled_from([b'{"id":1,"text":"x"}\n', b'{"id":2,"text":"y"}\r\n', b'{"id":3,\n', b"[]\n"]),
    }[suffix]
    pieces = draw(st.lists(st.one_of(line, line, BROKEN, TEXTS.map(str.encode)), max_size=30))
    header = {"csv": b"id,text,n\n", "tsv": b"id\ttext\tn\n", "jsonl": b""}[suffix]
    if draw(st.integers(0, 9)) == 0:
        header = draw(st.sampled_from([b"", b"\n\n" + header, b"id\n", b'"id', header.replace(b"\n", b"\r")]))
    quoting = draw(st.sampled_from(["auto", "auto", "quoted", "none"]))
    escape = draw(st.sampled_from([None, None, None, "\\"]))
    corpus = {"csv": {"quoting": quoting, "escape": escape}, "metadata": {"n": "string"}}
    return File(f"f.{suffix}", draw(MARKS) + header + b"".join(pieces), corpus, None)


@st.composite
def parquet_files(draw: st.DrawFn) -> File:
    records = [(f"r{n}", "x" + text) for n, text in enumerate(draw(st.lists(TEXTS, max_size=20)))]
    table = pa.table(
        {
            "id": pa.array([item for item, _ in records], pa.string()),
            "text": pa.array([text for _, text in records], draw(st.sampled_from([pa.string(), pa.large_string()]))),
            "n": pa.array(range(len(records)), pa.int16()),
        }
    )
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=draw(st.integers(1, 8)), use_dictionary=draw(st.booleans()))
    data = bytearray(out.getvalue())
    if broken := draw(st.integers(0, 3)) == 0 and len(data) > 400:
        position = draw(st.integers(4, len(data) // 2))
        data[position : position + 4] = b"\xff\xff\xff\xff"
    return File("f.parquet", bytes(data), {"metadata": {"n": "int"}}, None if broken else records)


@settings(
    max_examples=FILES, deadline=None, database=None, derandomize=FILES <= 300, suppress_health_check=list(HealthCheck)
)
@given(
    file=st.one_of(jsonl_files(), csv_files(), broken_files(), broken_files(), parquet_files()),
    shard_bytes=st.integers(1, 400),
    block_bytes=st.integers(1, 100),
    longest=st.sampled_from([stream.MAX_RECORD_BYTES, stream.MAX_RECORD_BYTES, 30, 200]),
)
def test_a_file_split_anywhere_is_the_whole_one(file: File, shard_bytes: int, block_bytes: int, longest: int) -> None:
    if file.name == "f.parquet":
        longest = stream.MAX_RECORD_BYTES
    with mock.patch.object(stream, "MAX_RECORD_BYTES", longest):
        items, rejects, _ = outcome(file, WHOLE, 1 << 20)
        assert outcome(file, WHOLE, block_bytes)[:2] == (items, rejects)
        *found, shards = outcome(file, shard_bytes, block_bytes)
        assert found == [items, rejects]
        event(f"{file.name} {'split' if shards > 1 else 'whole'}")
    if file.records is not None and longest == stream.MAX_RECORD_BYTES:
        assert items == [(item, text, n) for n, (item, text) in enumerate(file.records)]
        assert rejects == []


def test_a_csv_file_larger_than_a_shard_and_than_a_block(tmp_path: Path) -> None:
    text = "lorem ipsum dolor " * 95
    data = "id,text\n" + "".join(f"r{n},row {n} {text}\n" for n in range(1500))
    for name, whole in (("c.csv", data), ("c.tsv", data.replace(",", "\t"))):
        file = File(name, whole.encode(), {}, None)
        items, rejects, shards = outcome(file, 1 << 20, stream.BLOCK_BYTES)
        assert shards > 2
        assert [item for item, _, _ in items] == [f"r{n}" for n in range(1500)]
        assert rejects == []


@pytest.mark.parametrize(
    "data", [b"id,text\n", b"\n" * 2000 + b"id,text\n1,x\n", b"id,text," + b"y" * 3000 + b"\n1,x,z\n"]
)
def test_a_range_may_hold_the_header_alone(data: bytes) -> None:
    file = File("c.csv", data, {}, None)
    assert outcome(file, 1024, 64)[:2] == outcome(file, WHOLE, 1 << 20)[:2]


def test_what_is_wrong_with_a_whole_file_is_said_once() -> None:
    file = File("c.csv", b"id,title\n" + b"1,x\n" * 2000, {}, None)
    items, rejects, shards = outcome(file, 1024, 4096)
    assert shards > 4
    assert items == []
    assert [error for _, error, _ in rejects] == ["WrongSchema"]


def test_blocks_of_compressed_files_may_have_any_size() -> None:
    data = b"".join(json.dumps({"id": f"r{n}", "text": "é" * n + "\n"}).encode() + b"\n" for n in range(1, 60))
    file = File("c.jsonl.gz", gzip.compress(data), {}, None)
    assert outcome(file, WHOLE, 7)[0] == outcome(file, WHOLE, 1 << 20)[0]
    assert len(outcome(file, WHOLE, 7)[0]) == 59


def test_keys_of_later_versions_leave_the_digest_of_settings_alone(tmp_path: Path) -> None:
    corpus = {"paths": ["a.jsonl"], "content": ["title", "text"], "metadata": {"year": "int"}}
    rest = {"encoder": {"model": "fake", "dimensions": 8}, "checkpoint": "c", "collection": {"uri": "./milvus.db"}}
    model: Any = SimpleNamespace(space=SimpleNamespace(id="0123456789abcdef"))

    def digest(**more: Any) -> str:
        values = {"name": "t", "corpus": {**corpus, **more}, **rest}
        return settings_digest(parse_config(values, source="test", folder=tmp_path), model)

    assert digest() == "d7bc7417cddde56812d7a1078c90cd87"  # of version 0.1.0
    assert digest(csv={"quoting": "auto"}) == digest()
    assert len({digest(), digest(csv={"delimiter": ";"}), digest(encoding="cp1252")}) == 3
