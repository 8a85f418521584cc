"""Guesses how a CSV file is written from its beginning: for `vecbeam init`, which writes the guess into the file."""

from __future__ import annotations

import csv
from collections import Counter
from typing import NamedTuple

from transforms.read.formats import charset

DELIMITERS = (",", ";", "\t", "|")
"""Candidates; the first wins if two fit equally well."""
_RECORDS = 200


class SniffedCsv(NamedTuple):
    """The result for a sample.

    Attributes:
        delimiter: one character; "" if no delimiter gives records of more than one field.
        encoding: for `corpus.csv.encoding`; None for UTF-8, or if a byte order mark tells it.
        columns: the fields of the first record.
        share: records with as many fields as the first, among those of the sample.
    """

    delimiter: str
    encoding: str | None
    columns: list[str]
    share: float


def sniff_csv(sample: bytes) -> SniffedCsv:
    """Guesses delimiter and encoding of a CSV or TSV file from its first bytes, decompressed; some 64 KiB will do.

    >>> sniff_csv(b"id;text\\n1;a, b and c\\n2;d\\n").delimiter
    ';'
    """
    text, encoding = _decoded(sample)
    lines = text.splitlines(keepends=True)
    if len(lines) > 1 and not sample.endswith((b"\n", b"\r")):
        lines.pop()  # cut off by the sample's end
    best = SniffedCsv("", encoding, [], 0.0)
    for delimiter in DELIMITERS:
        records = _records(lines, delimiter)
        if not best.columns and records:
            best = best._replace(columns=records[0][:1])
        if not records or len(records[0]) < 2:
            continue
        share = Counter(map(len, records))[len(records[0])] / len(records)
        found = SniffedCsv(delimiter, encoding, records[0], share)
        # A few broken records say little; columns that all records have say much.
        if (round(share, 1), len(records[0])) > (round(best.share, 1), len(best.columns)):
            best = found
    return best


def _decoded(sample: bytes) -> tuple[str, str | None]:
    encoding, length = charset.marked(sample)
    if encoding:
        return sample[length:].decode(encoding, "replace"), None
    try:
        return sample.decode(), None
    except UnicodeDecodeError as error:
        if error.start >= len(sample) - charset.MARK_BYTES and error.reason == "unexpected end of data":
            return sample[: error.start].decode(), None  # a character that the sample's end cuts
    return sample.decode("cp1252", "replace"), "windows-1252"


def _records(lines: list[str], delimiter: str) -> list[list[str]]:
    found: list[list[str]] = []
    try:
        for record in csv.reader(lines, delimiter=delimiter):
            if record:
                found.append(record)
            if len(found) == _RECORDS:
                break
    except csv.Error:
        pass  # only what came before can be used
    return found
