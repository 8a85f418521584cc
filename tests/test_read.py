"""Reading: whatever the format, its compression and where it is split, each item once, and a reject for each other."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.config import Corpus
from schemas.errors import ConfigurationError
from schemas.layout import item_schema
from schemas.records import REJECT_SCHEMA
from transforms.read import (
    CONTAINER_ERRORS,
    decompression,
    first_records,
    list_corpus,
    plan_shards,
    read_shard,
    sniff_csv,
    stream,
)
from transforms.support import memory

RECORDS = [{"id": f"r{n}", "text": f'text {n}\nof two lines, with "quotes"', "year": n} for n in range(40)]
COMPRESS = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def read(path: Path, batch_rows: int = 7, **corpus: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Items and rejects of a glob, in corpus order."""
    settings_ = Corpus(paths=[str(path)], **{"metadata": {"year": "int"}, **corpus})
    items, rejects = [], []
    shards = plan_shards(list_corpus(settings_), settings_)
    assert len({shard.name for shard in shards}) == len(shards)
    for shard in shards:
        for ordinal, batch in enumerate(read_shard(shard, settings_, batch_rows=batch_rows)):
            assert (batch.key.shard, batch.key.ordinal) == (shard.name, ordinal)
            assert batch.items.schema == item_schema({n: f.type for n, f in settings_.metadata.items()})
            assert batch.rejects.schema == REJECT_SCHEMA
            assert batch.items.num_rows <= batch_rows
            assert batch.items_read == batch.items.num_rows + batch.rejects.num_rows
            items += batch.items.to_pylist()
            rejects += batch.rejects.to_pylist()
    return items, rejects


def as_csv(records: list[dict[str, Any]], terminator: str = "\r\n") -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, ["id", "text", "year"], lineterminator=terminator, quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue().encode()


def as_jsonl(records: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def as_parquet(records: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records), out, row_group_size=9)
    return out.getvalue()


def same(items: list[dict[str, Any]], records: list[dict[str, Any]]) -> None:
    assert [(i["item_id"], i["@content"], i["year"]) for i in items] == [
        (r["id"], r["text"], r["year"]) for r in records
    ]


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize(("suffix", "encode"), [(".jsonl", as_jsonl), (".csv", as_csv)])
def test_records_in_any_compression(tmp_path: Path, suffix: str, encode: Any, compression: str) -> None:
    path = tmp_path / f"a{suffix}{compression}"
    path.write_bytes(COMPRESS[compression](encode(RECORDS)))
    items, rejects = read(path)
    same(items, RECORDS)
    assert rejects == []


def test_parquet_by_row_groups(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(as_parquet([r | {"unused": "x" * 500} for r in RECORDS]))
    items, rejects = read(tmp_path / "a.parquet", shard_bytes=1024)
    same(items, RECORDS)
    assert rejects == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(
        st.text(alphabet='ab "\n\r,é東', min_size=1, max_size=200).map("x{}".format), min_size=1, max_size=40
    ),
    shard_bytes=st.integers(1024, 4096),
    terminator=st.sampled_from(["\n", "\r\n"]),
    last=st.booleans(),
)
def test_splitting_loses_and_doubles_nothing(
    tmp_path: Path, texts: list[str], shard_bytes: int, terminator: str, last: bool
) -> None:
    records = [{"id": str(n), "text": text, "year": n} for n, text in enumerate(texts)]
    for name, data in (("a.jsonl", as_jsonl(records)), ("a.csv", as_csv(records, terminator))):
        path = tmp_path / name
        path.write_bytes(data if last else data.rstrip(b"\r\n"))
        items, rejects = read(path, shard_bytes=shard_bytes)
        same(items, records)
        assert rejects == []


def test_documents_are_items(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfplain text")
    (tmp_path / "sub" / "b.md").write_text("# Title\n\nMarkdown.")
    (tmp_path / "c.html").write_text("<html><body><p>A page about wolves.</p><script>x()</script></body></html>")
    (tmp_path / ".hidden.txt").write_text("not read")
    items, rejects = read(tmp_path / "**" / "*", metadata={})
    assert {i["item_id"]: i["@content"] for i in items} == {
        "a.txt": "plain text",
        "c.html": "A page about wolves.",
        "sub/b.md": "# Title\n\nMarkdown.",
    }
    assert rejects == []


def pdf(text: str, *, encrypted: bool = False) -> bytes:
    """A one-page PDF, as small as may be; encrypted with a password that nobody knows."""
    stream = f"BT /F1 12 Tf 20 100 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 200] /Contents 4 0 R"
        b" /Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
    ]
    secret = b"<" + b"5a" * 32 + b">"
    objects.append(b"<< /Filter /Standard /V 1 /R 2 /P -4 /O %s /U %s >>" % (secret, secret))
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    lock = b"/Encrypt 5 0 R /ID [<00><00>]" if encrypted else b""
    trailer = b"trailer << /Size 6 /Root 1 0 R %s >>\nstartxref\n%d\n%%%%EOF" % (lock, len(out))
    return out + b"xref\n0 6\n0000000000 65535 f \n" + table + trailer


def test_pdf(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf("Hello from a page"))
    (tmp_path / "b.pdf").write_bytes(pdf(""))
    (tmp_path / "c.pdf").write_bytes(b"not one")
    (tmp_path / "d.pdf").write_bytes(pdf("Hidden", encrypted=True))
    items, rejects = read(tmp_path / "*.pdf", metadata={})
    assert [(i["item_id"], i["@content"].strip()) for i in items] == [("a.pdf", "Hello from a page")]
    assert [(r["id"], r["error"]) for r in rejects] == [
        ("b.pdf", "EmptyText"),
        ("c.pdf", "InvalidPdf"),
        ("d.pdf", "EncryptedPdf"),
    ]


@pytest.mark.parametrize(
    ("line", "error", "item_id"),
    [
        (b'{"id": "a", "text": ', "InvalidJson", None),
        (b"[1, 2]", "WrongType", None),
        (b'{"text": "x"}', "MissingField", None),
        (b'{"id": "a"}', "MissingField", "a"),
        (b'{"id": "a", "text": 5}', "WrongType", "a"),
        (b'{"id": ["a"], "text": "x"}', "WrongType", None),
        (b'{"id": "a", "text": ""}', "EmptyText", "a"),
        (b'{"id": "a", "text": " \\t\\n"}', "EmptyText", "a"),
        (b'{"id": "a", "text": "x\\u0000y"}', "NulByte", "a"),
        (b'{"id": "a", "text": "\xff"}', "InvalidUtf8", "a"),
        (b'{"id": "a", "text": "\\ud800"}', "InvalidUtf8", "a"),
        (b'{"id": "a", "text": "x", "year": "last"}', "MetadataType", "a"),
        (b'{"id": "a", "text": "x", "year": 1.5}', "MetadataType", "a"),
        (b'{"id": "a", "text": "x", "year": 99999999999999999999}', "MetadataType", "a"),
    ],
)
def test_a_bad_line_costs_itself(tmp_path: Path, line: bytes, error: str, item_id: str | None) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(as_jsonl(RECORDS[:3]) + line + b"\n" + as_jsonl(RECORDS[3:6]))
    items, rejects = read(path)
    same(items, RECORDS[:6])
    (reject,) = rejects
    assert (reject["error"], reject["place"], reject["step"]) == (error, "line 4", "read")
    assert reject["id"] == item_id
    assert reject["reason"]


def test_content_fields_are_joined_by_a_blank_line(tmp_path: Path) -> None:
    records = [
        {"id": 1, "title": "A", "text": "B"},
        {"id": 2, "title": "", "text": "B"},
        {"id": 3, "title": None, "text": "C"},
    ]
    (tmp_path / "a.jsonl").write_bytes(as_jsonl(records))
    items, _ = read(tmp_path / "a.jsonl", content=["title", "text"])
    assert [(i["item_id"], i["@content"]) for i in items] == [("1", "A\n\nB"), ("2", "B"), ("3", "C")]


@pytest.mark.parametrize(
    ("glob", "says"), [("nothing*.jsonl", "matches no file"), ("", "folder"), ("a.xyz", "corpus.format")]
)
def test_bad_globs_are_refused(tmp_path: Path, glob: str, says: str) -> None:
    (tmp_path / "a.xyz").write_text("x")
    (tmp_path / "b.jsonl").write_text("{}")
    with pytest.raises(ConfigurationError, match=says):
        list_corpus(Corpus(paths=[str(tmp_path / glob)]))


def test_names_of_shards_move_with_the_corpus(tmp_path: Path) -> None:
    names = []
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "a.jsonl").write_bytes(as_jsonl(RECORDS))
        corpus = Corpus(paths=[str(tmp_path / place / "*.jsonl")], shard_bytes=1024)
        names.append([shard.name for shard in plan_shards(list_corpus(corpus), corpus)])
    assert len(names[0]) > 1
    assert names[0] == names[1]


def test_first_records(tmp_path: Path) -> None:
    for name, data in (("a.jsonl", as_jsonl(RECORDS)), ("a.csv", as_csv(RECORDS)), ("a.parquet", as_parquet(RECORDS))):
        (tmp_path / name).write_bytes(data)
        (file,) = list_corpus(Corpus(paths=[str(tmp_path / name)]))
        assert [record["id"] for record in first_records(file, 3)] == ["r0", "r1", "r2"]


@pytest.mark.parametrize(
    ("sample", "delimiter", "encoding"),
    [
        (b"id;text\n1;a, b, c\n2;d\n", ";", None),
        (b"id,text\n1,a; b; c\n2,d\n", ",", None),
        (b'id|text\n1|"a|b"\n2|d\n', "|", None),
        (b"id\ttext\n1\ta, b\n", "\t", None),
        ("id;text\n1;é\n".encode("cp1252"), ";", "windows-1252"),
        ("id;text\n1;é\n".encode("utf-16"), ";", None),
        ("id;text\n1;é".encode()[:-1], ";", None),
        (b"text\nno delimiter\n", "", None),
        (b"", "", None),
    ],
)
def test_sniff_csv(sample: bytes, delimiter: str, encoding: str | None) -> None:
    found = sniff_csv(sample)
    assert (found.delimiter, found.encoding) == (delimiter, encoding)
    if delimiter:
        assert found.columns == ["id", "text"]


LINES = [{"id": f"r{n}", "text": f"text {n}", "year": n} for n in range(300)]


def long_window(data: bytes) -> bytes:
    settings_ = zstandard.ZstdCompressionParameters(window_log=31, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=settings_).compressobj()  # as `zstd --long=31` of a pipe
    return compressor.compress(data) + compressor.flush()


SKIPPED = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"to do"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl.zst", long_window(as_jsonl(LINES))),
        ("a.jsonl.zst", COMPRESS[".zst"](as_jsonl(LINES[:9])) + SKIPPED + COMPRESS[".zst"](as_jsonl(LINES[9:]))),
        ("a.jsonl.gz", gzip.compress(as_jsonl(LINES[:9])) + gzip.compress(as_jsonl(LINES[9:])) + b"\0" * 512),
        ("a.jsonl.bz2", bz2.compress(as_jsonl(LINES[:9])) + bz2.compress(as_jsonl(LINES[9:]))),
        ("a.jsonl.xz", lzma.compress(as_jsonl(LINES[:9])) + bytes(4) + lzma.compress(as_jsonl(LINES[9:]))),
    ],
)
def test_streams_of_several_parts_and_long_windows(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    items, rejects = read(tmp_path / name)
    same(items, LINES)
    assert rejects == []


@pytest.mark.parametrize(
    ("name", "data", "error", "says"),
    [
        ("a.jsonl.zst", COMPRESS[".zst"](as_jsonl(LINES))[:-9], "DamagedFile", "ends early: unexpected end"),
        ("a.jsonl.gz", gzip.compress(as_jsonl(LINES))[:-9], "DamagedFile", "ends early: unexpected end"),
        ("a.jsonl.bz2", bz2.compress(as_jsonl(LINES))[:-9], "DamagedFile", "ends early: unexpected end"),
        ("a.jsonl.xz", lzma.compress(as_jsonl(LINES))[:-9], "DamagedFile", "ends early: unexpected end"),
        ("a.jsonl.gz", as_jsonl(LINES), "DamagedFile", "not gzip, though its suffix says so"),
        ("a.jsonl.zst", b"\x28\xb5\x2f\xfd\x00\xff\x01\x00\x00", "TooLarge", "window of 3932160 MiB.*--long=31"),
        (
            "a.jsonl.zst",
            b"\x28\xb5\x2f\xfd\xe0" + (5 << 30).to_bytes(8, "little") + b"\x01\x00\x00",
            "TooLarge",
            "window of 5120 MiB",
        ),
        (
            "a.jsonl.zst",
            zstandard.ZstdCompressor(dict_data=zstandard.ZstdCompressionDict(b"text" * 99)).compress(as_jsonl(LINES)),
            "DamagedFile",
            "corrupt|dictionary",
        ),
    ],
)
def test_damaged_streams_say_what_is_wrong(tmp_path: Path, name: str, data: bytes, error: str, says: str) -> None:
    (tmp_path / name).write_bytes(data)
    _, (reject,) = read(tmp_path / name)
    assert reject["error"] == error
    assert re.search(says, reject["reason"])


def bomb(mib: int, window_log: int) -> bytes:
    """A frame of some hundred bytes a MiB: a line of so many MiB, and a record after it."""
    settings_ = zstandard.ZstdCompressionParameters(window_log=window_log)
    compressor = zstandard.ZstdCompressor(compression_params=settings_).compressobj()
    parts = [compressor.compress(b"a" * (1 << 20)) for _ in range(mib)]
    return b"".join([*parts, compressor.compress(b'\n{"id": "after", "text": "x"}\n'), compressor.flush()])


BOMB_MIB = 1024
PEAK = """
import resource, sys
from schemas.config import Corpus
from transforms.read import list_corpus, plan_shards, read_shard
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
corpus = Corpus(paths=[sys.argv[1]])
[shard] = plan_shards(list_corpus(corpus), corpus)
before, found = peak(), []
for batch in read_shard(shard, corpus, batch_rows=10):
    found += batch.items.column("item_id").to_pylist() + batch.rejects.column("error").to_pylist()
print(peak() - before, *found)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count the peak otherwise")
def test_a_zstd_bomb_is_read_in_flat_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(bomb(BOMB_MIB, 21))
    assert path.stat().st_size < 1 << 20
    run = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
    grown, *found = run.stdout.split()
    assert found == ["after", "RecordTooLarge"]
    # What a line may hold, the decompressor's window and a block: 64 + 2 + 32 MiB, and libraries that load here.
    assert int(grown) < BOMB_MIB // 4


def test_a_zstd_window_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: decompression.LEAST_MEMORY_BYTES - 1)
    (tmp_path / "a.jsonl.zst").write_bytes(bomb(192, 31))
    items, (*_, reject) = read(tmp_path / "a.jsonl.zst")
    assert (items, reject["error"]) == ([], "TooLarge")
    assert "memory of this worker is not enough for the zstd window of 2048 MiB" in reject["reason"]


@pytest.mark.parametrize(("mib", "window_log"), [(192, 21), (16, 31)])
def test_little_memory_refuses_no_zstd_that_needs_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mib: int, window_log: int
) -> None:
    monkeypatch.setattr(memory, "available", lambda: 0)
    (tmp_path / "a.jsonl.zst").write_bytes(bomb(mib, window_log))
    items, _ = read(tmp_path / "a.jsonl.zst", metadata={})
    assert [item["item_id"] for item in items] == ["after"]


@pytest.mark.parametrize("separator", [b"", b"id,text\n"])
def test_a_record_that_is_too_long_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, separator: bytes
) -> None:
    monkeypatch.setattr(stream, "MAX_RECORD_BYTES", 60)
    if separator:
        data, name = separator + b"a,one\nb," + b"x" * 90 + b"\nc,two\n", "a.csv"
    else:
        data, name = (
            b"".join(json.dumps({"id": i, "text": t}).encode() + b"\n" for i, t in LONG_IN_THE_MIDDLE),
            "a.jsonl",
        )
    (tmp_path / name).write_bytes(data)
    items, (reject,) = read(tmp_path / name, metadata={})
    assert [item["item_id"] for item in items] == ["a", "c"]
    assert reject["error"] == "RecordTooLarge"
    assert reject["error"] not in CONTAINER_ERRORS  # nothing else of the file is hidden


LONG_IN_THE_MIDDLE = [("a", "one"), ("b", "x" * 90), ("c", "two")]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv", "a.jsonl.gz"])
@pytest.mark.parametrize("content", [b"", b"\n\r\n"])
def test_a_file_of_no_records_is_no_reject(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert read(tmp_path / name) == ([], [])


def test_a_parquet_file_of_no_rows_is_no_reject_and_one_of_no_bytes_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(as_parquet(RECORDS))
    pq.write_table(pq.read_table(tmp_path / "a.parquet").slice(0, 0), tmp_path / "b.parquet")
    assert read(tmp_path / "b.parquet") == ([], [])
    (tmp_path / "c.parquet").write_bytes(b"")
    assert [reject["error"] for reject in read(tmp_path / "c.parquet")[1]] == ["DamagedFile"]


PLAIN = b'id\ttext\tyear\n1\t"To be or not to be\t1\n2\tthat is the question\t2\n3\tsaid the prince"\t3\n4\tlast\t4\n'


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        (PLAIN, ['"To be or not to be', "that is the question", 'said the prince"', "last"]),
        (b'id\ttext\tyear\n1\t"Yes", he said\t1\n2\t5" disks\t2\n', ['"Yes", he said', '5" disks']),
        (b'id\ttext\tyear\n1\t"two\nlines"\t1\n2\t"a ""word"""\t2\n', ["two\nlines", 'a "word"']),
        (b'"id"\t"text"\t"year"\n"1"\t"a\tb"\t"1"\n', ["a\tb"]),
        (b'id\ttext\tyear\n1\t"a b"\t1\n', ["a b"]),
    ],
)
def test_quotes_between_tabs(tmp_path: Path, data: bytes, texts: list[str]) -> None:
    (tmp_path / "a.tsv").write_bytes(data)
    items, rejects = read(tmp_path / "a.tsv")
    assert [item["@content"] for item in items] == texts
    assert rejects == []


def test_quoting_of_tabs_is_decided_by_the_whole_file(tmp_path: Path) -> None:
    rows = b"".join(b"%d\tquiet row\t%d\n" % (n, n) for n in range(10, 500))
    (tmp_path / "a.tsv").write_bytes(PLAIN[:13] + rows + PLAIN[13:])
    for shard_bytes in (1024, 1 << 20):
        items, rejects = read(tmp_path / "a.tsv", shard_bytes=shard_bytes)
        assert (len(items), len(rejects)) == (494, 0)


@pytest.mark.parametrize(
    ("data", "settings_", "texts"),
    [
        (b"id;text\n1;a, b\n", {"delimiter": ";"}, ["a, b"]),
        (b'id,text\n1,"a\n2,b"\n', {"quoting": "none"}, ['"a', 'b"']),
        (b'id|text\n1|"a\\"b|c"\n', {"delimiter": "|", "escape": "\\"}, ['a"b|c']),
        (b"id,text\n1,a\\,b\n", {"quoting": "none", "escape": "\\"}, ["a,b"]),
        (b"id\x01text\n1\x01a\n", {"delimiter": "\x01"}, ["a"]),
        (b"id\ttext\n1\ta\n", {"delimiter": "tab"}, ["a"]),
        ("id,text\n1,é\n".encode("cp1252"), {"encoding": "windows-1252"}, ["é"]),
        ("id,text\n1,é\n".encode("utf-16"), {}, ["é"]),
        (b"id,text\r1,a\r2,b\r", {}, ["a", "b"]),
    ],
)
def test_csv_as_the_configuration_says(tmp_path: Path, data: bytes, settings_: Any, texts: list[str]) -> None:
    (tmp_path / "a.csv").write_bytes(data)
    items, rejects = read(tmp_path / "a.csv", metadata={}, csv=settings_)
    assert [item["@content"] for item in items] == texts
    assert rejects == []


@pytest.mark.parametrize(
    ("corpus", "says"),
    [
        ({"csv": {"delimiter": "||"}}, "one character"),
        ({"csv": {"delimiter": '"'}}, "one character"),
        ({"csv": {"escape": ",", "delimiter": ","}}, "differ"),
        ({"encoding": "klingon"}, "not a text encoding"),
        ({"encoding": "base64"}, "not a text encoding"),
    ],
)
def test_csv_settings_that_mean_nothing_are_refused(corpus: Any, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Corpus(paths=["a.csv"], **corpus)
