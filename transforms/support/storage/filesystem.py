"""Files on a local disk or in an object store. A file exists whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from schemas.errors import CheckpointError, ConfigurationError, StorageError
from schemas.glob import Glob
from schemas.glob import escape as escape
from transforms.support.storage import local_file
from transforms.support.storage.local_file import NotRegularFileError as NotRegularFileError
from transforms.support.storage.local_file import kind_of as kind_of
from transforms.support.storage.remote import remote_file
from transforms.support.storage.remote.answer import ConditionError as ConditionError
from transforms.support.storage.remote.answer import UnconditionalError as UnconditionalError
from transforms.support.storage.remote.object_cache import Rules as Rules
from transforms.support.storage.remote.object_cache import caching as caching
from transforms.support.storage.remote.object_store import ObjectFacts as ObjectFacts
from transforms.support.storage.walk import FileInfo as FileInfo
from transforms.support.storage.walk import Names as Names
from transforms.support.storage.walk import Seen as Seen
from transforms.support.storage.walk import walk

_LOOKS_ESCAPED = re.compile(r"\\udc[89a-f][0-9a-f]")


def as_text(name: str) -> str:
    r"""A path as valid text; different paths have different texts.

    A byte that is not valid UTF-8 becomes \udc and two hexadecimal digits, and each backslash of that name two. So it
    does in a name that is written with such letters; all other names stay as they are.

    >>> as_text("caf\udce9"), as_text(r"caf\udce9"), as_text(r"a\b")
    ('caf\\udce9', 'caf\\\\udce9', 'a\\b')
    """
    if not _LOOKS_ESCAPED.search(name):
        try:
            name.encode()
        except UnicodeEncodeError:
            pass
        else:
            return name
    return name.replace("\\", "\\\\").encode("utf-8", "backslashreplace").decode()


def is_local(uri: str) -> bool:
    """Whether a path is on this machine's disk."""
    return "://" not in uri


def join(folder: str, *names: str) -> str:
    """Joins a folder (path or URI) and names with slashes."""
    return "/".join([folder.rstrip("/") if folder != "/" else "", *names])


def open_binary(uri: str) -> BinaryIO:
    """Opens a file for reading, as stored (no decompression), seekable.

    Raises:
        NotRegularFileError: if it is a pipe, a socket or a device, whose reading may never end.
        OSError: if the file can't be opened.
    """
    if is_local(uri):
        return local_file.open_file(uri)
    _check_name(uri)
    return remote_file.open_file(uri)


def _check_name(uri: str) -> None:
    if "\n" in uri:
        raise FileNotFoundError(errno.ENOENT, "no line break is taken in the name of an object; rename it", uri)


def read_bytes(uri: str) -> bytes:
    """The whole content of a small file."""
    with open_binary(uri) as stream:
        return stream.read()


def read_range(uri: str, start: int, length: int) -> bytes:
    """Some bytes of a file, in one request of an object store; fewer at its end."""
    if not is_local(uri):
        _check_name(uri)
        return remote_file.read_range(uri, start, length)
    with open_binary(uri) as stream:
        stream.seek(start)
        return stream.read(length)


def exists(uri: str) -> bool:
    """Whether a file exists."""
    if is_local(uri):
        return Path(uri).exists()
    _check_name(uri)
    return remote_file.exists(uri)


def list_files(folder: str, pattern: str = "*") -> list[FileInfo]:
    """The files below a folder whose path from there on matches a glob, sorted by name; see `glob`.

    The characters of the folder are never wildcards. A folder that does not exist has no files.
    """
    return glob(join(escape(folder), pattern))


def glob(pattern: str, seen: Seen | None = None) -> list[FileInfo]:
    """The files that match a glob (see `schemas.glob`), sorted by name; folders are left out.

    A dangling link is listed with size 0, so that its reader reports it; so is what is not a regular file.

    Args:
        seen: receives what was found and not listed.

    Raises:
        OSError: if the listing fails; a listing never ends short without it.
        ValueError: if Beam has no filesystem for the URI.
    """
    return sorted(iterate(pattern, seen))


def iterate(pattern: str, seen: Seen | None = None) -> Iterator[FileInfo]:
    """The files of `glob` one by one, in no order: there may be millions."""
    parsed = Glob(pattern)
    noted = Seen() if seen is None else seen
    return walk(parsed, noted) if is_local(pattern) else _glob_remote(parsed, noted)


def some_files(folder: str, pattern: str, limit: int) -> list[str]:
    """Some of what `list_files` would list, of the first `limit` files that are met."""
    parsed = Glob(join(escape(folder), pattern))
    if is_local(folder):
        return [file.uri for file in islice(walk(parsed, Seen()), limit)]
    found = remote_file.begin_with("list", join(folder, ""), limit)
    return [file.uri for file in remote_file.infos(found) if parsed.matches(file.uri)]


def find(uri: str) -> FileInfo | None:
    """A file of exactly this name, or None; its characters are never wildcards."""
    if is_local(uri):
        return next(walk(Glob(escape(uri)), Seen()), None)
    _check_name(uri)
    return remote_file.find(uri)


def _glob_remote(parsed: Glob, seen: Seen) -> Iterator[FileInfo]:
    if not parsed.has_wildcard:
        uri = parsed.prefix
        is_key = "/" in uri.partition("://")[2] and not uri.endswith("/") and "\n" not in uri
        found = find(uri) if is_key else None
        if found is not None:
            yield found
        elif remote_file.begin_with("list", uri.rstrip("/") + "/", 1).num_rows:
            seen.folders.append(uri)
        return
    # All names that begin so: no store's own matching has a way to write a bracket that is a letter.
    for file in remote_file.infos(remote_file.begin_with("list", parsed.prefix)):
        uri, matches = file.uri, parsed.matches(file.uri)
        if file.size == 0 and (matches or parsed.matches(f"{uri}/")) and remote_file.is_marker(file):
            uri = f"{uri}/"
        if uri.endswith("/"):
            seen.note_marker(parsed, uri)
        elif matches:
            yield file
        else:
            seen.note_key(parsed, uri)


def write_atomic(uri: str, data: bytes) -> None:
    """Writes a file in one atomic step: rename on local disk (fsynced), a single upload on object stores.

    Raises:
        CheckpointError: if it can't be written (disk full, no permission, no bucket).
    """
    with _as_checkpoint_errors(uri):
        if is_local(uri):
            local_file.write(Path(uri), lambda stream: stream.write(data))
        else:
            _check_name(uri)
            remote_file.write(uri, data)


def write_stream(uri: str, write: Callable[[BinaryIO], None]) -> None:
    """Writes a file as `write_atomic` does, of any size: it is written to the stream that `write` is given.

    Data for an object store is in a temporary file first, so that an upload can be retried.
    """
    with _as_checkpoint_errors(uri):
        if is_local(uri):
            local_file.write(Path(uri), write)
            return
        _check_name(uri)
        with tempfile.TemporaryFile(prefix="vecbeam-") as file:
            write(file)
            remote_file.write(uri, file)


def read_with_facts(uri: str) -> tuple[bytes, ObjectFacts]:
    """The content of a small file, and what it is: for a condition of `write_if`.

    Raises:
        FileNotFoundError: if it does not exist.
    """
    if is_local(uri):
        status = os.stat(uri)
        return read_bytes(uri), ObjectFacts(status.st_size, status.st_mtime, "", "")
    return remote_file.read_with_facts(uri)


def write_if(uri: str, data: bytes, before: ObjectFacts | None) -> ObjectFacts:
    """Writes a file if it is what it was, in one step of the store.

    Args:
        before: the file that this one replaces; None if there must be none.

    Raises:
        ConditionError: if it is another one, or there is one.
        UnconditionalError: if the store can't do it.
        CheckpointError: if it can't be written.
    """
    if is_local(uri):
        raise UnconditionalError(f"{uri} is on a local disk")
    with _as_checkpoint_errors(uri):
        return remote_file.write_if(uri, data, before)


def store_time(root: str, run_id: str) -> float:
    """The time by the clock of a store, in seconds since the epoch: that of a small file, which is deleted again."""
    uri = join(root, "runs", run_id, "clock")
    write_atomic(uri, b"")
    found = find(uri)
    delete([uri])
    if found is None:
        raise CheckpointError(f"{uri} is gone after it was written", "let no other program delete files there")
    return found.modified


@contextlib.contextmanager
def _as_checkpoint_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except (ConditionError, UnconditionalError):
        raise
    except OSError as error:
        remedy = "check that the folder exists and may be written"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            remedy = "free some space and run the same command again; what was written is kept"
        if isinstance(error, StorageError):
            raise CheckpointError(error.message, error.remedy) from error
        raise CheckpointError(f"can't write {uri}: {error.strerror or error}", remedy) from error


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
            _check_name(folder)
            remote_file.begin_with("look into", join(folder, ""), 1)
    except StorageError as error:
        raise ConfigurationError(f"checkpoint: {error.message}", error.remedy) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"checkpoint: can't write to {folder}: {reason}", "name a folder that can be written"
        ) from error


def delete(uris: list[str]) -> None:
    """Deletes files; ignores missing ones."""
    for uri in uris:
        if is_local(uri):
            Path(uri).unlink(missing_ok=True)
        else:
            _check_name(uri)
    remote_file.delete([uri for uri in uris if not is_local(uri)])


def delete_folder(folder: str) -> None:
    """Deletes all files below a folder, by one listing and in batches; ignores a missing one.

    Another file of the folder's own name, or whose name only begins like it, stays.

    Raises:
        CheckpointError: if one can't be deleted.
    """
    with _as_checkpoint_errors(folder):
        if is_local(folder):
            local_file.delete_folder(folder)
        else:
            _check_name(folder)
            remote_file.delete_below(join(folder, ""))


def remove_empty_folders(folder: str, above: str) -> None:
    """Removes a local folder and the ones above it, below `above`, while they are empty; object stores have none."""
    if is_local(folder):
        local_file.remove_empty_folders(folder, above)


def sweep_temporaries(folder: str) -> int:
    """Removes what killed writers left behind below a local folder; returns how many files that were."""
    return local_file.sweep_temporaries(folder) if is_local(folder) else 0
