"""Which files are read differently from version 0.1.0, and so must be read again after an upgrade."""

from __future__ import annotations

from schemas.config import Corpus
from schemas.formats import holds_records
from transforms.read.listing.files import SourceFile

RULES = 2
"""Version of the rules for reading these files; those of 0.1.0 are 1."""


def is_read_by_later_rules(file: SourceFile, corpus: Corpus) -> bool:
    """Whether a file may give other items or rejects than in version 0.1.0.

    Pages (encodings, fragments, words that were left out) and PDF files (values of forms); CSV files that were split
    or whose quotes may be letters; files of records without any, which were rejects.
    """
    if file.format in ("html", "pdf"):
        return True
    if holds_records(file.format) and file.size == 0:
        return True
    if file.format != "csv":
        return False
    return (corpus.csv.delimiter or file.delimiter) == "\t" or (not file.compression and file.size > corpus.shard_bytes)
