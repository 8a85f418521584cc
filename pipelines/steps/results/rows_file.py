"""The rows of a snapshot as files for other tools: Parquet, JSON lines, or a folder of TensorBoard's projector.

Each is written a piece at a time, in memory that does not grow with the rows, and has its name only once it is whole.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from schemas.errors import CheckpointError, StorageError
from schemas.layout import VectorKind
from transforms.explore.live_rows import LiveRows, check_finite
from transforms.support.storage import local_file
from transforms.support.vectors import matrix_of

ROWS_AT_ONCE, ROWS_OF_PARQUET = 4096, 65_536
PROJECTOR_FILES = ("tensors.tsv", "metadata.tsv", "projector_config.pbtxt")
_BREAKS = re.compile(r"[\t\n\r\v\f\x85\u2028\u2029]+")


def write_rows(path: Path, rows: LiveRows, columns: Sequence[str]) -> None:
    """Writes some columns of all rows to a .parquet or .jsonl file, in one atomic step.

    Raises:
        CheckpointError: if a part is missing or damaged, or a dense vector is not finite.
        StorageError: if the file can't be written; then nothing has its name.
    """
    write = _parquet if path.suffix == ".parquet" else _json_lines

    def content(stream: BinaryIO) -> None:
        _check_all(write(stream, rows, columns), rows)

    with _as_storage_errors(path):
        local_file.write(path, content)


def write_projector(folder: Path, rows: LiveRows, columns: Sequence[str], vector: str) -> None:
    """Writes a folder of TensorBoard's projector, in one atomic step; an earlier one is replaced.

    The format is that of https://www.tensorflow.org/tensorboard/tensorboard_projector_plugin: vectors and metadata as
    tab-separated values, a row a line; the metadata has names of columns in its first line, unless it is one column.

    Args:
        vector: a dense vector.

    Raises:
        CheckpointError, StorageError: as `write_rows` does.
    """
    end = f".{folder.name}.{socket.gethostname()}.{os.getpid()}"
    making, before = folder.parent / f"{end}.tmp", folder.parent / f"{end}.before.tmp"
    with _as_storage_errors(folder):
        try:
            making.mkdir()
            _fill_projector(making, rows, columns, vector)
            if folder.exists():
                folder.rename(before)
            making.rename(folder)
        except BaseException:
            if before.exists() and not folder.exists():
                before.rename(folder)
            raise
        finally:
            for left in (making, before):
                shutil.rmtree(left, ignore_errors=True)


def _fill_projector(folder: Path, rows: LiveRows, columns: Sequence[str], vector: str) -> None:
    options = pa.csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    tensors, metadata, config = (folder / name for name in PROJECTOR_FILES)
    count = 0
    with open(tensors, "wb") as numbers, open(metadata, "wb") as words:
        if len(columns) > 1:
            words.write(_line(columns))
        for table in _tables(rows, [*columns, vector], ROWS_AT_ONCE):
            matrix = matrix_of(table.column(vector).combine_chunks())
            plain = pa.table({str(at): matrix[:, at] for at in range(matrix.shape[1])})
            pa.csv.write_csv(plain, numbers, options)
            words.writelines(map(_line, zip(*(table.column(name).to_pylist() for name in columns), strict=True)))
            count += table.num_rows
    _check_all(count, rows)
    names = {"tensor_name": vector, "tensor_path": tensors.name, "metadata_path": metadata.name}
    lines = [f"  {key}: {orjson.dumps(value).decode()}\n" for key, value in names.items()]
    config.write_text("".join(["embeddings {\n", *lines, "}\n"]), encoding="utf-8")


def _line(values: Sequence[object]) -> bytes:
    """A line of tab-separated values, which have no way to write a tab or a line break."""
    cells = ("" if value is None else _BREAKS.sub(" ", str(value)) for value in values)
    return ("\t".join(cells) + "\n").encode("utf-8", "backslashreplace")


def _parquet(stream: BinaryIO, rows: LiveRows, columns: Sequence[str]) -> int:
    facts = {"vecbeam": orjson.dumps({"snapshot": rows.snapshot.id, "space": rows.snapshot.space_id})}
    schema = pa.schema([rows.schema.field(name) for name in columns], metadata=facts)
    count = 0
    with pq.ParquetWriter(stream, schema, compression="zstd") as writer:
        for table in _tables(rows, columns, ROWS_OF_PARQUET):
            writer.write_table(table.cast(schema))
            count += table.num_rows
    return count


def _json_lines(stream: BinaryIO, rows: LiveRows, columns: Sequence[str]) -> int:
    count = 0
    for table in _tables(rows, columns, ROWS_AT_ONCE):
        stream.writelines(_as_lines(table))
        count += table.num_rows
    return count


def _tables(rows: LiveRows, columns: Sequence[str], most: int) -> Iterator[pa.Table]:
    """Some columns of the rows, a piece at a time. Vectors with NaN are refused: JSON would have null for it."""
    dense = [name for name in columns if rows.schema.field(name).type == VectorKind.DENSE.arrow_type]
    for table in rows.tables(list(dict.fromkeys([*columns, "id"])), most):
        for name in dense:
            check_finite(table, matrix_of(table.column(name).combine_chunks()))
        yield table.select(list(columns))


def _as_lines(table: pa.Table) -> Iterator[bytes]:
    for row in table.to_pylist():
        yield orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)


def _check_all(written: int, rows: LiveRows) -> None:
    if written != len(rows):
        raise CheckpointError(
            f"the parts of {rows.snapshot.name} have {written} live rows, the snapshot names {len(rows)}",
            "run vecbeam sync, which reads the corpus again",
        )


@contextmanager
def _as_storage_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "free some space, or name a file on another disk" if full else "name a folder that can be written"
        raise StorageError(f"can't write {path}: {error.strerror or error}", remedy) from error
