"""Files on any filesystem that Beam knows: local disk, S3, GCS. A file exists whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import psutil

from schemas.errors import CheckpointError, ConfigurationError, StorageError
from transforms.retry import retrying
from transforms.storage_errors import is_missing, storage_error


class FileInfo(NamedTuple):
    """A file in a listing; `modified` is seconds since the epoch."""

    uri: str
    size: int
    modified: float


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


def glob(pattern: str) -> list[FileInfo]:
    """The files that match a glob, sorted by name; folders are left out.

    `*`, `?` and `[...]` stay within a name and match no leading dot, as in a shell; `**` crosses folders, and `**/`
    also matches none at all. A link that leads nowhere is listed with size 0, so that whoever reads it finds out.

    Raises:
        OSError: where the listing fails; a listing never ends short without it.
        ValueError: where Beam has no filesystem for the URI.
    """
    regex = re.compile(glob_regex(pattern))
    if is_local(pattern):
        return sorted(_glob_local(pattern, regex))
    # Beam's `**/` wants at least one folder, so it is asked for more than is wanted.
    match = _remote("list", pattern, _beam().match, [pattern.replace("**/", "**")])[0]
    files = [FileInfo(m.path, m.size_in_bytes, m.last_updated_in_seconds or 0.0) for m in match.metadata_list]
    return sorted(f for f in files if regex.fullmatch(f.uri))


def glob_root(pattern: str) -> str:
    """The folder before the first wildcard of a glob, without a slash at its end.

    >>> glob_root("gs://bucket/docs/20*/*.jsonl")
    'gs://bucket/docs'
    """
    fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    return fixed.rpartition("/")[0]


def glob_regex(pattern: str) -> str:
    """The regular expression of a glob, for whole paths; see `glob`."""
    parts: list[str] = []
    position = 0
    for token in re.finditer(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]/]*\]", pattern):
        parts.append(re.escape(pattern[position : token.start()]))
        at_name_start = token.start() == 0 or pattern[token.start() - 1] == "/"
        position = token.end()
        parts.append(_token_regex(token.group(), at_name_start))
    return "(?s:" + "".join(parts) + re.escape(pattern[position:]) + ")"


def _token_regex(token: str, at_name_start: bool) -> str:
    visible = r"(?!\.)" if at_name_start else ""
    if token == "**/" and at_name_start:
        return r"(?:(?!\.)[^/]+/)*"
    if token.startswith("**"):
        rest = "/" if token.endswith("/") else ""
        return rf"{visible}[^/]*(?:/(?!\.)[^/]*)*{rest}"
    if token == "*":
        return rf"{visible}[^/]{'+' if at_name_start else '*'}"
    if token == "?":
        return rf"{visible}[^/]"
    inside = token[1:-1].replace("\\", r"\\").replace("[", r"\[")
    inside = "^/" + inside[1:] if inside.startswith("!") else inside.replace("^", r"\^")
    return rf"{visible}[{inside.replace(']', chr(92) + ']')}]"


def _glob_local(pattern: str, regex: re.Pattern[str]) -> Iterator[FileInfo]:
    # Beam's own local listing leaves out folders that it can't read, without a word: their items would look deleted.
    if Path(pattern).is_file() or not re.search(r"[*?\[]", pattern):
        if Path(pattern).is_file():
            yield _file_info(pattern)
        return
    root = glob_root(pattern)
    folder = root or ("/" if pattern.startswith("/") else ".")
    if not Path(folder).is_dir():
        return
    names = pattern[len(root) :].lstrip("/").split("/")
    yield from _walk(folder, root + "/" if root or folder == "/" else "", names, regex, ())


def _walk(
    folder: str, prefix: str, names: list[str], regex: re.Pattern[str], above: tuple[tuple[int, int], ...]
) -> Iterator[FileInfo]:
    """Files below `folder` that match; `names` are the glob's names from here on, kept at the first `**`."""
    status = os.stat(folder)
    here = (status.st_dev, status.st_ino)
    if here in above:  # a link back to a folder that we came through
        return
    deep = "**" in names[0]
    name_regex = re.compile(glob_regex(names[0]))
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = prefix + entry.name
            if not entry.is_dir():
                if regex.fullmatch(path):
                    yield _file_info(path)
            elif deep and not entry.name.startswith("."):
                yield from _walk(path, path + "/", names, regex, (*above, here))
            elif not deep and len(names) > 1 and name_regex.fullmatch(entry.name):
                yield from _walk(path, path + "/", names[1:], regex, (*above, here))


def _file_info(path: str) -> FileInfo:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return FileInfo(path, 0, 0.0)
    return FileInfo(path, status.st_size, status.st_mtime)


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
            glob(join(folder, "*"))
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
