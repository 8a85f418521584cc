"""A table as a file that other tools read: Parquet, JSON lines or CSV, by the suffix of its name."""

from __future__ import annotations

import io
import os
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from schemas.config import Corpus
from schemas.errors import ConfigurationError
from schemas.glob import Glob
from transforms.support.storage import filesystem

SUFFIXES = (".parquet", ".jsonl", ".csv")


def check_table_file(path: Path | None) -> None:
    """Raises unless a table can be written to a file of this name.

    Raises:
        ConfigurationError: for another suffix, or a folder that does not exist.
    """
    if path is None:
        return
    if path.suffix not in SUFFIXES:
        raise ConfigurationError(
            f"--out: {path} does not end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}",
            f"name the file {path.with_suffix('.parquet').name}, for example",
        )
    check_folder(path, "--out")


def check_folder(path: Path, option: str) -> None:
    """Raises unless the folder of a file exists.

    Raises:
        ConfigurationError: with the folder.
    """
    if not path.parent.is_dir():
        raise ConfigurationError(f"{option}: the folder {path.parent} does not exist", f"mkdir -p {path.parent}")
    if path.is_dir():
        raise ConfigurationError(f"{option}: {path} is a folder", "name a file in it")


def check_outside_corpus(path: Path, corpus: Corpus, option: str) -> None:
    """Raises if the next run would read a file of this name as a part of the corpus, which it may even replace.

    Raises:
        ConfigurationError: with the glob.
    """
    names = {os.path.normpath(path.absolute()), str(path.parent.resolve() / path.name)}
    for pattern in corpus.paths:
        glob = Glob(pattern)
        if any(glob.matches(name) or name in (pattern, glob.spelled) for name in names):
            raise ConfigurationError(
                f"{option}: {path} would be a file of the corpus: corpus.paths {pattern!r} matches it",
                "name a file that corpus.paths does not match",
            )


def write_table_file(path: Path, table: pa.Table) -> None:
    """Writes a table in one atomic step. In CSV lists are JSON.

    Raises:
        ConfigurationError: see `check_table_file`.
        StorageError: if it can't be written.
    """
    check_table_file(path)
    sink = io.BytesIO()
    if path.suffix == ".parquet":
        pq.write_table(table, sink, compression="zstd")
    elif path.suffix == ".csv":
        pa.csv.write_csv(_flat(table), sink)
    else:
        for row in table.to_pylist():
            sink.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
    filesystem.write_atomic(str(path.absolute()), sink.getvalue())


def _flat(table: pa.Table) -> pa.Table:
    for at, field in enumerate(table.schema):
        if pa.types.is_nested(field.type):
            texts = [None if one is None else orjson.dumps(one).decode() for one in table.column(at).to_pylist()]
            table = table.set_column(at, field.name, pa.array(texts, pa.string()))
    return table
