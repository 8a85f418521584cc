"""The beginning of files, to learn which fields they have before they are read as a whole."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow as pa

from schemas.errors import CorpusError
from schemas.formats import has_fields
from transforms.read import decompression, stream
from transforms.read.formats import charset, parquet
from transforms.read.formats.dialect import sniff_csv
from transforms.read.formats.documents import front_matter
from transforms.read.formats.tar_members import DamagedTarError, members, tar_stream
from transforms.read.formats.tar_sample import TarSample, key_of
from transforms.read.listing.files import SourceFile
from transforms.read.rejected_item import RejectedItemError

HEAD_BYTES = 1 << 20
DEPTH = 4
"""Depth of objects inside objects that are searched."""


@dataclass
class FileSample:
    """The beginning of a file.

    Attributes:
        file: the file.
        records: unchanged: with typed values in JSON and Parquet, with strings in CSV. A Markdown file is one record
            of its front matter.
        kinds: the Arrow type of each column of a Parquet file, by its dotted name.
        delimiter: probable one of a CSV file; "" for other files.
        encoding: probable one of a CSV file; None for UTF-8, and if a byte order mark tells it.
        twice: names that more than one column of a Parquet file has; their values are not read.
        parts: of each sample of a tar, what follows the first dot of its members' names.
        bad: records among the first that could not be parsed.
        problem: why the file, or the rest of it, could not be read; "" if it could.
    """

    file: SourceFile
    records: list[dict[str, Any]] = field(default_factory=list)
    kinds: dict[str, pa.DataType] = field(default_factory=dict)
    delimiter: str = ""
    encoding: str | None = None
    twice: list[str] = field(default_factory=list)
    parts: list[set[str]] = field(default_factory=list)
    bad: int = 0
    problem: str = ""


def sample(file: SourceFile, limit: int) -> FileSample:
    """Reads the first records of a file, at most `limit` of them and about a MiB."""
    found = FileSample(file)
    try:
        with stream.RawStream(file) as raw:
            readers = {"jsonl": _jsonl, "csv": _csv, "parquet": _parquet, "webdataset": _tar}
            readers.get(file.format, _document)(raw, found, limit)
    except stream.FileRejectedError as error:
        found.problem = found.problem or error.reason
    except CorpusError as error:
        found.problem = error.message
    return found


def flat(record: Mapping[str, Any], depth: int = DEPTH) -> Iterator[tuple[str, Any]]:
    """The fields of a record with those of its objects, by their dotted names; an empty object is a field.

    >>> list(flat({"id": 1, "doc": {"text": "a"}}))
    [('id', 1), ('doc.text', 'a')]
    """
    for name, value in record.items():
        if isinstance(value, Mapping) and value and depth:
            for inner, found in flat(value, depth - 1):
                yield f"{name}.{inner}", found
        else:
            yield str(name), value


def field_names(files: Sequence[SourceFile], most_files: int = 5, limit: int = 50) -> list[str]:
    """Names of the fields that the first records of some files have."""
    names: dict[str, None] = {}
    for file in files[:most_files]:
        if has_fields(file.format):
            for record in sample(file, limit).records:
                names.update((name, None) for name, _ in flat(record))
    return list(names)


def _head(raw: stream.RawStream, file: SourceFile) -> tuple[bytes, bool]:
    """The first MiB or so of a file, decompressed, and whether that is all of it."""
    parts: list[bytes] = []
    size = 0
    for block in decompression.blocks(raw, file):
        parts.append(block)
        size += len(block)
        if size > HEAD_BYTES:
            return b"".join(parts), False
    return b"".join(parts), True


def _jsonl(raw: stream.RawStream, found: FileSample, limit: int) -> None:
    try:
        data, whole = _head(raw, found.file)
    except stream.FileRejectedError as error:
        data, whole, found.problem = b"", True, error.reason
    encoding, mark = charset.marked(data)
    if encoding:
        data = data[mark:].decode(encoding, "replace").encode()
    lines = data.split(b"\n")
    for line in lines if whole else lines[:-1]:
        if not line.strip():
            continue
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            record = None
        if isinstance(record, dict):
            found.records.append(record)
        else:
            found.bad += 1
        if len(found.records) + found.bad >= limit:
            return
    if data and not whole and len(lines) == 1:
        found.problem = f"its first line is longer than {HEAD_BYTES >> 20} MiB"
    elif found.bad and not found.records:
        hint = "; it begins like an array: write one object per line" if data.lstrip()[:1] == b"[" else ""
        if not encoding and not all(_is_utf8(line) for line in lines[: found.bad]):
            hint = f" in UTF-8; {charset.OTHER_ENCODING}"
        found.problem = f"no line of it is a JSON object{hint}"


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _csv(raw: stream.RawStream, found: FileSample, limit: int) -> None:
    data, whole = _head(raw, found.file)
    sniffed = sniff_csv(data)
    found.delimiter = sniffed.delimiter or found.file.delimiter
    found.encoding = sniffed.encoding
    encoding, mark = charset.marked(data)
    text = data[mark:].decode(encoding or sniffed.encoding or "utf-8", "replace")
    rows = _rows(text, found.delimiter, limit + 1)
    if not whole and len(rows) <= limit:
        rows = rows[:-1]
    if not rows:
        return
    header = rows[0]
    for row in rows[1:]:
        if len(row) == len(header):
            found.records.append(dict(zip(header, row, strict=True)))
        elif row:
            found.bad += 1
    if twice := [name for name in header if header.count(name) > 1]:
        found.problem = f"its header names {twice[0]!r} more than once"
    elif found.bad and not found.records:
        found.problem = f"no record has as many fields as the header, which has {len(header)}"


def _rows(text: str, delimiter: str, limit: int) -> list[list[str]]:
    rows: list[list[str]] = []
    # As the reader does: in a file with tabs, quotes are ordinary characters if they do not pair up within their lines.
    letters = delimiter == "\t" and any(line.count('"') % 2 for line in text.splitlines()[: limit + 1])
    source = io.StringIO(text, newline="")
    reader = csv.reader(source, delimiter=delimiter, quoting=csv.QUOTE_NONE if letters else csv.QUOTE_MINIMAL)
    try:
        for row in reader:
            if row:
                rows.append(row)
            if len(rows) == limit:
                break
    except csv.Error:
        pass  # only what came before can be used
    return rows


def _parquet(raw: stream.RawStream, found: FileSample, limit: int) -> None:
    with decompression.seekable(raw, found.file) as source, parquet.damaged(raw):
        opened = parquet.open_file(source)
        types = list(_types(opened.schema_arrow))
        found.kinds = dict(types)
        counts = Counter(name for name, _ in types)
        found.twice = [name for name, count in counts.items() if count > 1]
        usable = [name for name, kind in found.kinds.items() if is_plain(kind) and counts[name] == 1]
        if not usable:
            found.problem = f"more than one column is named {found.twice[0]!r}" if found.twice else ""
            return
        for batch in opened.iter_batches(min(limit, 256), columns=usable, use_threads=False):
            columns = [parquet.as_json(column) for column in batch.columns]
            found.records += parquet.rows_of(pa.RecordBatch.from_arrays(columns, batch.schema.names))
            if len(found.records) >= limit:
                del found.records[limit:]
                return


def _tar(raw: stream.RawStream, found: FileSample, limit: int) -> None:
    samples: list[TarSample] = []
    tar = tar_stream(raw, found.file)
    try:
        for member in members(tar):
            key, part = key_of(member.name)
            if not part or member.error:
                continue
            if not samples or samples[-1].key != key:
                if len(samples) == limit:
                    break
                samples.append(TarSample(key))
            samples[-1].add(tar, part, member, is_media=False)
    except DamagedTarError as error:
        found.problem = "" if samples else error.reason
    finally:
        tar.close()
    found.bad = sum(one.error is not None for one in samples)
    found.parts = [one.parts for one in samples]
    found.records = [one.record(found.file.name) for one in samples if one.error is None]


def is_plain(kind: pa.DataType) -> bool:
    """Whether a column's values are text, numbers, truth values, or dates, which are read as text."""
    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    if is_dated(kind) or types.is_decimal(kind):
        return True
    tests = (types.is_string, types.is_large_string, types.is_string_view, types.is_integer, types.is_boolean)
    return any(test(kind) for test in (*tests, types.is_floating, types.is_null))


def is_dated(kind: pa.DataType) -> bool:
    """Whether a column's values are dates or times."""
    types = pa.types
    return bool(types.is_temporal(kind) and not types.is_duration(kind) and not types.is_interval(kind))


def _types(fields: Iterable[pa.Field], depth: int = DEPTH) -> Iterator[tuple[str, pa.DataType]]:
    for column in fields:
        if pa.types.is_struct(column.type) and depth:
            for name, kind in _types(column.type, depth - 1):
                yield f"{column.name}.{name}", kind
        else:
            yield column.name, column.type


def _document(raw: stream.RawStream, found: FileSample, limit: int) -> None:  # noqa: ARG001  a file is one record
    if found.file.format == "markdown":
        data, _ = _head(raw, found.file)
        encoding, mark = charset.marked(data)
        try:
            fields, _ = front_matter.split(data[mark:].decode(encoding or "utf-8", "replace"))
        except RejectedItemError as error:
            found.problem = error.reason
        else:
            found.records.append(fields)
