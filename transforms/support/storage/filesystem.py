"""Files on any filesystem that Beam knows: local disk, S3, GCS. A file exists whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import psutil
import pyarrow as pa

from schemas.errors import CheckpointError, ConfigurationError, StorageError
from schemas.glob import Glob
from schemas.glob import escape as escape
from transforms.support.retry import retrying
from transforms.support.storage import spill
from transforms.support.storage.storage_errors import is_missing, storage_error
from transforms.support.storage.walk import FileInfo as FileInfo
from transforms.support.storage.walk import Names as Names
from transforms.support.storage.walk import Seen as Seen
from transforms.support.storage.walk import walk

UPLOAD_BYTES = 1 << 23
NAME_BYTES = 255
"""The longest name that usual filesystems take."""
_KINDS = {
    stat.S_IFIFO: "a named pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}
_LOOKS_ESCAPED = re.compile(r"\\udc[89a-f][0-9a-f]")
_OBJECTS = pa.schema([("uri", pa.large_binary()), ("size", pa.int64()), ("modified", pa.float64())])
_UNCOMPRESSED = "uncompressed"
"""Beam's `CompressionTypes.UNCOMPRESSED`."""


class NotRegularFileError(OSError):
    """What stands under a name is a pipe, a socket or a device."""


def as_text(name: str) -> str:
    r"""A path as valid text; different paths have different texts.

    A byte that is no UTF-8 becomes \udc and two hexadecimal digits, and each backslash beside it two. So it does in a
    name that is written with such letters; all other names stay as they are.

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
        NotRegularFileError: where it is a pipe, a socket or a device, whose reading may never end.
        OSError: where the file can't be opened.
    """
    if is_local(uri):
        return _open_local(uri)
    _check_name(uri)
    stream: BinaryIO = _remote("open", uri, _open_remote, uri)
    return stream


def _open_remote(uri: str) -> Any:
    stream = _beam().open(uri, compression_type=_UNCOMPRESSED)
    if (blob := getattr(stream, "_blob", None)) is not None:
        # Google's client quotes the name itself where the store gives no address; stand-ins give one with bare letters.
        blob._properties.pop("mediaLink", None)
    return stream


def _open_local(path: str) -> BinaryIO:
    _check_regular(path, os.stat(path).st_mode)
    # Should a pipe have taken the file's place just now, opening it does not wait for a writer.
    stream = open(  # noqa: SIM115  the caller closes it
        path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)
    )
    try:
        _check_regular(path, os.fstat(stream.fileno()).st_mode)
    except NotRegularFileError:
        stream.close()
        raise
    return stream


def _check_regular(path: str, mode: int) -> None:
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise NotRegularFileError(errno.EINVAL, f"it is {kind_of(mode)}; only regular files are read", path)


def kind_of(mode: int) -> str:
    """What a file that is no regular one is, from its mode."""
    return _KINDS.get(stat.S_IFMT(mode), "a special file")


def _check_name(uri: str) -> None:
    if "\n" in uri:
        raise FileNotFoundError(errno.ENOENT, "Beam's object stores take no line break in a name; rename it", uri)


def read_bytes(uri: str) -> bytes:
    """The whole content of a small file."""
    with open_binary(uri) as stream:
        return stream.read()


def exists(uri: str) -> bool:
    """Whether a file is there."""
    if is_local(uri):
        return Path(uri).exists()
    _check_name(uri)
    return bool(_remote("look for", uri, _beam().exists, uri))


def list_files(folder: str, pattern: str = "*") -> list[FileInfo]:
    """The files below a folder whose path from there on matches a glob, sorted by name; see `glob`.

    The letters of the folder stand for themselves, whatever they are. A folder that is not there has no files.
    """
    return glob(join(escape(folder), pattern))


def glob(pattern: str, seen: Seen | None = None) -> list[FileInfo]:
    """The files that match a glob (see `schemas.glob`), sorted by name; folders are left out.

    A link that leads nowhere is listed with size 0, so that whoever reads it finds out; so is what is no regular file.

    Args:
        seen: takes what was met and not listed.

    Raises:
        OSError: where the listing fails; a listing never ends short without it.
        ValueError: where Beam has no filesystem for the URI.
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
    found = _remote("list", folder, _begin_with, join(folder, ""), limit)
    return [file.uri for file in _infos(found) if parsed.matches(file.uri)]


def find(uri: str) -> FileInfo | None:
    """A file of this very name, or None; its letters stand for themselves."""
    files = walk(Glob(escape(uri)), Seen()) if is_local(uri) else _named_remote(uri)
    return next(iter(files), None)


def _named_remote(uri: str) -> Iterator[FileInfo]:
    if exists(uri):
        yield _remote_file(_remote("look for", uri, _metadata, uri))


def _glob_remote(parsed: Glob, seen: Seen) -> Iterator[FileInfo]:
    if not parsed.has_wildcard:
        uri = parsed.prefix
        is_key = "/" in uri.partition("://")[2] and not uri.endswith("/") and "\n" not in uri
        found = list(_named_remote(uri)) if is_key else []
        if not found and _remote("list", uri, _begin_with, uri.rstrip("/") + "/", 1).num_rows:
            seen.folders.append(uri)
        yield from found
        return
    # All names that begin so: Beam's own matching has no way to write a bracket that is a letter.
    for file in _infos(_remote("list", parsed.pattern, _begin_with, parsed.prefix)):
        if file.uri.endswith("/"):
            seen.note_marker(parsed, file.uri)
        elif parsed.matches(file.uri):
            yield file
        else:
            seen.note_key(parsed, file.uri)


def _infos(objects: pa.Table) -> Iterator[FileInfo]:
    for piece in spill.pieces(objects):
        for uri, size, modified in zip(*(column.to_pylist() for column in piece.columns), strict=True):
            yield FileInfo(uri.decode("utf-8", "surrogatepass"), size, modified)


def _metadata(uri: str) -> Any:
    return _beam().get_filesystem(uri).metadata(uri)


def _begin_with(prefix: str, limit: int | None = None) -> pa.Table:
    """The objects whose names begin so, a table of `_OBJECTS`; on a filesystem with folders, those in one folder.

    It is whole before anybody sees it, so that a listing which fails on its way can be tried again.

    Raises:
        OSError: where the listing fails, or there is no such bucket.
    """
    filesystem = _beam().get_filesystem(prefix)
    if filesystem.has_dirs():
        prefix = prefix.rpartition("/")[0]
    prefix = prefix.partition("\n")[0]  # Beam takes no line break; what it lists is held against the glob
    try:
        files = map(_remote_file, islice(filesystem._list(prefix), limit))
        rows = ((file.uri.encode("utf-8", "surrogatepass"), file.size, file.modified) for file in files)
        found = spill.spilled(spill.in_chunks(rows, _OBJECTS), _OBJECTS)
    except Exception as error:
        if filesystem.scheme() == "gs" and re.search(r"\b404\b|does not exist|not ?found", str(error), re.IGNORECASE):
            raise _no_bucket(prefix) from error
        raise
    if not found.num_rows and filesystem.scheme() == "s3":
        _check_s3_bucket(filesystem, prefix)
    return found


def _check_s3_bucket(filesystem: Any, prefix: str) -> None:
    # Beam takes a bucket that is not there for an empty one.
    from apache_beam.io.aws import s3io
    from apache_beam.io.aws.clients.s3 import messages

    bucket, names = s3io.parse_s3_path(prefix, object_optional=True)
    try:
        s3io.S3IO(options=filesystem._options).client.list(messages.ListRequest(bucket=bucket, prefix=names))
    except messages.S3ClientError as error:
        if "NoSuchBucket" in str(error):
            raise _no_bucket(prefix) from error


def _no_bucket(uri: str) -> OSError:
    scheme, _, rest = uri.partition("://")
    return OSError(f"there is no bucket {scheme}://{rest.partition('/')[0]} (NoSuchBucket)")


def _remote_file(metadata: Any) -> FileInfo:
    return FileInfo(metadata.path, metadata.size_in_bytes, metadata.last_updated_in_seconds or 0.0)


def write_atomic(uri: str, data: bytes) -> None:
    """Writes a file in one atomic step: rename on local disk (fsynced), a single upload on object stores.

    Raises:
        CheckpointError: where it can't be written (disk full, no permission, no bucket).
    """
    with _as_checkpoint_errors(uri):
        if is_local(uri):
            _write_local(Path(uri), lambda stream: stream.write(data))
        else:
            _check_name(uri)
            _remote("write", uri, _write_remote, uri, data)


def write_stream(uri: str, write: Callable[[BinaryIO], None]) -> None:
    """Writes a file as `write_atomic` does, of any size: it is written to the stream that `write` is given.

    What goes to an object store lies in a temporary file first, so that an upload can be tried again.
    """
    with _as_checkpoint_errors(uri):
        if is_local(uri):
            _write_local(Path(uri), write)
            return
        _check_name(uri)
        with tempfile.TemporaryFile(prefix="vecbeam-") as file:
            write(file)
            _remote("write", uri, _upload, uri, file)


def _upload(uri: str, file: BinaryIO) -> None:
    file.seek(0)
    stream = _created(uri)
    shutil.copyfileobj(file, stream, UPLOAD_BYTES)
    stream.close()


@contextlib.contextmanager
def _as_checkpoint_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = "check that the folder exists and may be written"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            remedy = "free some space and run the same command again; what is written so far is kept"
        if isinstance(error, StorageError):
            raise CheckpointError(error.message, error.remedy) from error
        raise CheckpointError(f"can't write {uri}: {error.strerror or error}", remedy) from error


def _write_local(path: Path, write: Callable[[BinaryIO], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process is named so that a later run can tell a dead writer's leftover from a live one's.
    end = f".{socket.gethostname()}.{os.getpid()}.tmp"
    name = path.name
    if len(os.fsencode(f".{name}{end}")) > NAME_BYTES:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    temporary = path.parent / f".{name}{end}"
    try:
        with open(temporary, "wb") as stream:
            write(stream)
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
    stream = _created(uri)
    stream.write(data)
    stream.close()


def _created(uri: str) -> Any:
    return _beam().create(uri, mime_type="application/octet-stream", compression_type=_UNCOMPRESSED)


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
            _remote("look into", folder, _begin_with, join(folder, ""), 1)
    except StorageError as error:
        raise ConfigurationError(f"checkpoint: {error.message}", error.remedy) from error
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
            _remote("delete", uri, _delete_remote, uri)


def _delete_remote(uri: str) -> None:
    filesystem = _beam().get_filesystem(uri)
    if filesystem.scheme() == "gs":
        # Its own deleting takes the name for a glob, and deletes whatever that matches.
        filesystem._gcsIO().delete(uri)
    else:
        filesystem.delete([uri])


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
    rest, _, process = path.name.removesuffix(".tmp").rpartition(".")
    if not rest.endswith(f".{socket.gethostname()}") or not re.fullmatch(r"[0-9]{1,9}", process):
        return False
    if psutil.pid_exists(int(process)):
        return False
    path.unlink(missing_ok=True)
    return True
