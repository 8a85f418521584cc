"""Milvus Lite's errors when its folder can't be opened, in vecbeam's words."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

from schemas.errors import CollectionError

LITE_LOG = "milvus_lite.server_manager"

GARBAGE = (
    "restore the folder, or move it away, with all collections in it, and run vecbeam load, which builds this one "
    "again from its checkpoint"
)


def lite_error(path: str, heard: list[BaseException], error: BaseException) -> CollectionError:
    """The error if Lite can't open a path; `heard` is what it logged, `error` what it raised."""
    cause = heard[-1] if heard else error
    if type(cause).__name__ == "DataDirLockedError":
        return CollectionError(
            f"another process holds {path}",
            "wait until it ends, or serve the file to several processes: milvus-lite server --data-dir "
            f"{path} --host 127.0.0.1, with its address in collection.uri",
        )
    if isinstance(cause, OSError):
        return CollectionError(
            f"can't open {path}: {cause.strerror or cause}", "correct collection.uri, or make the folder writable"
        )
    return CollectionError(f"can't open {path}: {type(cause).__name__}: {cause}", GARBAGE)


def remove_unfinished(path: Path, database: str, name: str) -> None:
    """Removes the folder of a collection that Lite does not have: the process that made or dropped it was killed.

    To Lite a collection exists once its folder has a schema, and no other can be made where there is a folder.

    Args:
        path: Lite's folder.
        database: "" for the default one.
    """
    root = path / "databases" / database if database not in ("", "default") else path
    folder = root / "collections" / name
    if folder.is_dir() and not (folder / "schema.json").exists():
        shutil.rmtree(folder)


@contextlib.contextmanager
def listening(name: str) -> Iterator[list[BaseException]]:
    """Catches the exceptions that a logger is given, instead of printing them: Lite tells its reason only there.

    It catches them also if the host program has turned the logger down or off, as `logging.config` does with
    loggers that it doesn't know.
    """
    heard: list[BaseException] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and record.exc_info[1]:
                heard.append(record.exc_info[1])

    logger, ear = logging.getLogger(name), Ear()
    before = logger.propagate, logger.disabled, logger.level, logger.manager.disable
    logger.propagate, logger.disabled, logger.manager.disable = False, False, logging.NOTSET
    logger.setLevel(logging.ERROR)
    logger.addHandler(ear)
    try:
        yield heard
    finally:
        logger.removeHandler(ear)
        logger.propagate, logger.disabled, level, logger.manager.disable = before
        logger.setLevel(level)
