"""Files on any filesystem that Beam knows: local disk, S3, GCS. A file exists whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from schemas.errors import CheckpointError, ConfigurationError, StorageError
from schemas.globs import Glob
from schemas.globs import escape as escape
from transforms.retry import retrying
from transforms.storage_errors import is_missing, storage_error
from transforms.walking import FileInfo as FileInfo
from transforms.walking import Seen as Seen
from transforms.walking import walk

_UNCOMPRESSED = "uncompressed"
"""Beam's `CompressionTypes.UNCOMPRESSED`."""


def _beam() -> Any:
    """Beam's filesystems, loaded when the first remote path is met: Beam takes seconds to import."""
    from apache_beam.io.filesystems import FileSystems

    return FileSystems


def is_local(uri: str) -> bool:
    """Whether a path is on this machine's disk."""
    return "://" not in uri


def _remote(what: str, uri: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls one of Beam's filesystems, again while its errors pass; whatever it raises comes out as an OSError.

    Raises:
        StorageError: for all but a file that is not there.
    """
    try:
        return retrying(f"{what} {uri}")(function, *args, **kwargs)
    except Exception as error:
        if isinstance(error, OSError) and is_missing(error):
            raise
        raise storage_error(what, uri, error) from error


def join(folder: str, *names: str) -> str:
    """Joins a folder (path or URI) and names with slashes."""
    return "/".join([folder.rstrip("/") if folder != "/" else "", *names])


def open_binary(uri: str) -> BinaryIO:
    """Opens a file for reading, as it lies (no decompression), seekable.

    Raises:
        OSError: where the file can't be opened.
    """
    if is_local(uri):
        return open(uri, "rb")
    stream: Any = _remote("open", uri, _beam().open, uri, compression_type=_UNCOMPRESSED)
    return stream  # type: ignore[no-any-return]


def read_bytes(uri: str) -> bytes:
    """The whole content of a small file."""
    with open_binary(uri) as stream:
        return stream.read()


def exists(uri: str) -> bool:
    """Whether a file is there."""
    if is_local(uri):
        return Path(uri).exists()
    return bool(_remote("look for", uri, _beam().exists, uri))


def list_files(folder: str, pattern: str = "*") -> list[FileInfo]:
    """The files below a folder whose path from there on matches a glob, sorted by name; see `glob`.

    The letters of the folder stand for themselves, whatever they are. A folder that is not there has no files.
    """
    return glob(join(escape(folder), pattern))


def glob(pattern: str, seen: Seen | None = None) -> list[FileInfo]:
    """The files that match a glob (see `schemas.globs`), sorted by name; folders are left out.

    A link that leads nowhere is listed with size 0, so that whoever reads it finds out; so is what is no regular file.

    Args:
        seen: takes what was met and not listed.

    Raises:
        OSError: where the listing fails; a listing never ends short without it.
        ValueError: where Beam has no filesystem for the URI.
    """
    parsed = Glob(pattern)
    noted = Seen() if seen is None else seen
    found = walk(parsed, noted) if is_local(pattern) else _glob_remote(parsed, noted)
    return sorted(found)


def find(uri: str) -> FileInfo | None:
    """A file of this very name, or None; its letters stand for themselves."""
    files = glob(escape(uri))
    return files[0] if files else None


def _glob_remote(parsed: Glob, seen: Seen) -> Iterator[FileInfo]:
    if not parsed.has_wildcard:
        if _remote("look for", parsed.prefix, _beam().exists, parsed.prefix):
            metadata = _remote("look for", parsed.prefix, _metadata, parsed.prefix)
            yield _remote_file(metadata)
        return
    # All names that begin so: Beam's own matching has no way to write a bracket that is a letter.
    for metadata in _remote("list", parsed.pattern, _begin_with, parsed.prefix):
        if parsed.matches(metadata.path):
            yield _remote_file(metadata)
        else:
            seen.note_key(parsed, metadata.path)


def _metadata(uri: str) -> Any:
    return _beam().get_filesystem(uri).metadata(uri)


def _begin_with(prefix: str) -> list[Any]:
    """Metadata of all objects whose names begin so; on a filesystem with folders, of those in one folder."""
    filesystem = _beam().get_filesystem(prefix)
    if filesystem.has_dirs():
        prefix = prefix.rpartition("/")[0]
    return list(filesystem._list(prefix.partition("\n")[0]))  # Beam takes no line break; what it lists is filtered


def _remote_file(metadata: Any) -> FileInfo:
    return FileInfo(metadata.path, metadata.size_in_bytes, metadata.last_updated_in_seconds or 0.0)


def write_atomic(uri: str, data: bytes) -> None:
    """Writes a file in one atomic step: rename on local disk (fsynced), a single upload on object stores.

    Raises:
        CheckpointError: where it can't be written (disk full, no permission, no bucket).
    """
    try:
        if is_local(uri):
            _write_local(Path(uri), data)
        else:
            _remote("write", uri, _write_remote, uri, data)
    except OSError as error:
        remedy = "check that the folder exists and may be written"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            remedy = "free some space and run the same command again; what is written so far is kept"
        if isinstance(error, StorageError):
            raise CheckpointError(error.message, error.remedy) from error
        raise CheckpointError(f"can't write {uri}: {error.strerror or error}", remedy) from error


def _write_local(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process is named so that a later run can tell a dead writer's leftover from a live one's.
    temporary = path.parent / f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _write_remote(uri: str, data: bytes) -> None:
    # Closing publishes the object, so it happens only after every byte was taken.
    stream = _beam().create(uri, mime_type="application/octet-stream", compression_type=_UNCOMPRESSED)
    stream.write(data)
    stream.close()


def check_writable(folder: str) -> None:
    """Makes sure that a folder can be written; local ones are made, of object stores the bucket must answer.

    Raises:
        ConfigurationError: with the reason.
    """
    try:
        if is_local(folder):
            Path(folder).mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, "permission denied")
        else:
            list_files(folder)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"checkpoint: can't write to {folder}: {reason}", "name a folder that can be written"
        ) from error


def delete(uris: list[str]) -> None:
    """Deletes files; one that is gone already is no error."""
    for uri in uris:
        if is_local(uri):
            Path(uri).unlink(missing_ok=True)
        elif exists(uri):
            _remote("delete", uri, _beam().delete, [uri])


def remove_empty_folders(folder: str, above: str) -> None:
    """Removes a local folder and the ones above it, below `above`, while they are empty; object stores have none."""
    while is_local(folder) and folder != above and Path(folder).is_dir() and not any(Path(folder).iterdir()):
        Path(folder).rmdir()
        folder = str(Path(folder).parent)


def sweep_temporaries(folder: str) -> int:
    """Removes what killed writers left behind below a local folder; returns how many files that were."""
    return sum(_remove_if_dead(path) for path in _temporaries(folder)) if is_local(folder) else 0


def _temporaries(folder: str) -> Iterator[Path]:
    return Path(folder).rglob(".*.tmp")


def _remove_if_dead(path: Path) -> bool:
    _, host, process, _ = path.name.rsplit(".", 3) if path.name.count(".") >= 4 else ("", "", "", "")
    if host != socket.gethostname() or not process.isdigit() or psutil.pid_exists(int(process)):
        return False
    path.unlink(missing_ok=True)
    return True
