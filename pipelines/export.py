"""`vecbeam export ROWS_FILE CONFIG`: the live rows as Parquet, JSON lines, or for TensorBoard's projector."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.steps.collection.current_rows import current_rows
from pipelines.steps.results.rows_file import PROJECTOR_FILES, write_projector, write_rows
from pipelines.steps.results.table_file import check_folder, check_outside_corpus
from schemas.config import Config
from schemas.errors import ConfigurationError
from schemas.layout import VectorKind
from transforms.explore.live_rows import LiveRows

SUFFIXES = (".parquet", ".jsonl")


@dataclass(frozen=True)
class Exported:
    """Files that were written.

    Attributes:
        kind: parquet, jsonl or projector.
        columns: in the order of the file, without vectors.
        bytes: of all files.
        open: the command of another tool that opens it; "" where none is known.
    """

    path: str
    kind: str
    rows: int
    columns: list[str]
    vectors: list[str]
    bytes: int
    snapshot: str
    space: str
    open: str

    def as_json(self) -> dict[str, Any]:
        return {"format_version": 1, **asdict(self)}


def export(
    config: Config,
    path: str | Path,
    *,
    columns: Sequence[str] = (),
    vector: str | Sequence[str] = (),
    without_vectors: bool = False,
    served: bool = False,
    overwrite: bool = False,
) -> Exported:
    """Writes the live rows of the newest snapshot in one atomic step, in memory that does not grow with them.

    Args:
        path: a .parquet or .jsonl file, or a folder for TensorBoard's projector; the folder above it must exist.
        columns: by default all.
        vector: by default all; of a projector's folder one dense vector, by default the first.
        without_vectors: leaves out the vectors.
        served: the rows of the snapshot that the served collection holds instead.
        overwrite: replaces what has that name.

    Raises:
        ConfigurationError: for another suffix, a folder that does not exist, a file that does or that would be one of
            the corpus, or unknown columns.
        CheckpointError: if there is no snapshot, it has no row, a part is missing or damaged, or a vector is not
            finite.
        CollectionError: with `served`, if nothing is served.
        StorageError: if it can't be written; then nothing of it is left, and an earlier file is as it was.
    """
    is_projector = check_path(str(path), without_vectors=without_vectors, overwrite=overwrite)
    for name in PROJECTOR_FILES if is_projector else ("",):
        check_outside_corpus(Path(path, name), config.corpus, "export")
    path = Path(path).absolute()
    rows = current_rows(config, served=served)
    kinds = {field.name: kind for field in rows.schema for kind in VectorKind if field.type == kind.arrow_type}
    named = [vector] if isinstance(vector, str) else list(vector)
    vectors = _vectors(rows, kinds, [name for name in named if name], without_vectors, is_projector)
    _check_columns(rows, kinds, columns)
    plain = list(dict.fromkeys(columns)) or [name for name in rows.schema.names if name not in kinds]
    if is_projector:
        write_projector(path, rows, plain, vectors[0])
        size = sum((path / name).stat().st_size for name in PROJECTOR_FILES)
    else:
        write_rows(path, rows, [*plain, *vectors])
        size = path.stat().st_size
    kind = "projector" if is_projector else path.suffix[1:]
    dense = next((name for name in vectors if kinds[name] is VectorKind.DENSE), "")
    return Exported(
        str(path),
        kind,
        len(rows),
        plain,
        vectors,
        size,
        rows.snapshot.id,
        rows.snapshot.space_id,
        _opening(path, kind, dense, plain),
    )


def check_path(path: str, *, without_vectors: bool, overwrite: bool) -> bool:
    """Whether a path names a projector's folder.

    Raises:
        ConfigurationError: if it can't be written there.
    """
    if "://" in path:
        raise ConfigurationError(
            f"{path}: export writes to this machine's disk", "name a local file, and copy it to the store afterwards"
        )
    where = Path(path)
    if where.suffix and where.suffix not in SUFFIXES:
        raise ConfigurationError(
            f"{path} does not end in {' or '.join(SUFFIXES)}",
            f"name the file {where.with_suffix('.parquet').name}, or a folder without a dot for TensorBoard",
        )
    is_projector = not where.suffix
    if is_projector and without_vectors:
        raise ConfigurationError(
            f"--without-vectors: {path} is a folder for TensorBoard's projector, which shows vectors",
            f"leave --without-vectors out, or name the file {where.name}.parquet",
        )
    if not is_projector or not where.is_dir():
        check_folder(where, "export")
    if where.exists() and not overwrite:
        raise ConfigurationError(f"{path} exists", "name another file, or add --overwrite")
    others = [] if not where.is_dir() else sorted({one.name for one in where.iterdir()} - set(PROJECTOR_FILES))
    if others or (is_projector and where.is_file()):
        what = f"is a folder with other files, such as {others[0]}" if others else "is a file"
        raise ConfigurationError(f"{path} {what}", "name a folder that does not exist yet")
    return is_projector


def _vectors(
    rows: LiveRows, kinds: dict[str, VectorKind], named: Sequence[str], without: bool, is_projector: bool
) -> list[str]:
    if is_projector:
        if len(named) > 1:
            raise ConfigurationError(f"--vector: a projector shows one, not {', '.join(named)}", "name one of them")
        return [rows.vector_named(named[0] if named else "")]
    if without:
        if named:
            raise ConfigurationError("--vector and --without-vectors contradict each other", "name one of the two")
        return []
    for name in named:
        if name not in kinds:
            raise ConfigurationError(
                f"--vector: rows have no vector {name!r} in the checkpoint; they have {', '.join(kinds) or 'none'}",
                "name one of these",
            )
    return list(dict.fromkeys(named)) or list(kinds)


def _check_columns(rows: LiveRows, kinds: dict[str, VectorKind], columns: Sequence[str]) -> None:
    for name in columns:
        if name in kinds:
            raise ConfigurationError(
                f"--columns: {name!r} is a vector, which is written anyway", "name vectors with --vector"
            )
    rows.check_columns(columns, "--columns")


def _opening(path: Path, kind: str, dense: str, columns: Sequence[str]) -> str:
    """See https://apple.github.io/embedding-atlas/tool.html, whose tool reads Parquet with vectors as lists."""
    if kind == "projector":
        return f"tensorboard --logdir {shlex.quote(str(path))}"
    if kind != "parquet" or not dense:
        return ""
    text = " --text text" if "text" in columns else ""
    return f"embedding-atlas {shlex.quote(str(path))} --vector {shlex.quote(dense)}{text}"


def text(found: Exported) -> str:
    """Returns what was written, as text."""
    vectors = f"; vectors: {', '.join(found.vectors)}" if found.vectors else ""
    lines = [
        f"wrote     {found.path}, {found.bytes:,} bytes",
        f"rows      {found.rows:,} of snapshot {found.snapshot}, space {found.space}",
        f"columns   {', '.join(found.columns)}{vectors}",
    ]
    return "\n".join([*lines, *([f"open with {found.open}"] if found.open else [])])
