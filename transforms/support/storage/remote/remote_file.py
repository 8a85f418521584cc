"""Files of any store that is not a local disk; every error is an OSError with a remedy."""

from __future__ import annotations

import contextlib
import errno
import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

import pyarrow as pa

from schemas.errors import VecbeamError
from transforms.support.retry import retrying
from transforms.support.storage import spill
from transforms.support.storage.remote import beam_file, object_store
from transforms.support.storage.remote.address import is_served, parse
from transforms.support.storage.remote.answer import ConditionError, OddKeyError, UnconditionalError
from transforms.support.storage.remote.object_cache import OBJECT_BYTES, ObjectCache, cache_of
from transforms.support.storage.remote.object_store import OBJECTS, ObjectFacts
from transforms.support.storage.remote.stored_file import StoredFile
from transforms.support.storage.storage_errors import is_missing, storage_error
from transforms.support.storage.walk import FileInfo

BUFFER_BYTES = 64 << 10


def is_obstores(uri: str) -> bool:
    """Whether obstore supports a file; if not, Beam's filesystem is used."""
    return is_served(uri) and parse(uri).is_plain


@contextlib.contextmanager
def storage_errors(what: str, uri: str) -> Iterator[None]:
    """Makes an error of a store a StorageError, except for a missing file.

    Raises:
        StorageError: for all other errors.
    """
    try:
        yield
    except (VecbeamError, ConditionError, UnconditionalError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and is_missing(error):
            raise
        raise storage_error(what, uri, error) from error


def _by_beam(what: str, uri: str, function: Callable[..., Any], *args: Any) -> Any:
    with storage_errors(what, uri):
        return retrying(f"{what} {uri}")(function, *args)


def open_file(uri: str) -> BinaryIO:
    """Opens a file for reading, as stored, seekable.

    Raises:
        FileNotFoundError: if it does not exist.
        StorageError: if it can't be opened.
    """
    if not is_obstores(uri):
        stream: BinaryIO = _by_beam("open", uri, beam_file.open_file, uri)
        return stream
    cache = cache_of(uri)
    if cache is None:
        with storage_errors("open", uri):
            return io.BufferedReader(StoredFile(uri), BUFFER_BYTES)
    if (data := cache.content(uri)) is not None:
        return io.BytesIO(data)
    since = cache.changes
    with storage_errors("open", uri):
        file = StoredFile(uri)
    if (whole := file.whole) is not None:
        cache.keep_read(uri, whole, since)
    return io.BufferedReader(file, BUFFER_BYTES)


def read_range(uri: str, start: int, length: int) -> bytes:
    """Some bytes of a file; fewer at its end.

    Raises:
        FileNotFoundError: if it does not exist.
        StorageError: if it can't be read.
    """
    if not is_obstores(uri):
        with open_file(uri) as stream:
            stream.seek(start)
            return stream.read(length)
    with storage_errors("read", uri):
        return object_store.read(uri, start, length)[0]


def exists(uri: str) -> bool:
    """Whether a file exists."""
    if (cache := cache_of(uri)) is not None and cache.content(uri) is not None:
        return True
    return find(uri) is not None if is_obstores(uri) else bool(_by_beam("look for", uri, beam_file.exists, uri))


def find(uri: str) -> FileInfo | None:
    """A file of this very name, or None."""
    if not is_obstores(uri):
        found: FileInfo | None = _by_beam("look for", uri, beam_file.facts, uri) if exists(uri) else None
        return found
    with storage_errors("look for", uri):
        try:
            facts = object_store.head(uri)
        except FileNotFoundError:
            return None
    return FileInfo(uri, facts.size, facts.modified, facts.version or facts.e_tag)


def write(uri: str, data: bytes | BinaryIO) -> None:
    """Writes a file whole, in one step of the store.

    Raises:
        OSError: if it can't be written.
    """
    with _changed(uri) as cache:
        if not is_obstores(uri):
            _by_beam("write", uri, beam_file.write, uri, data)
            return
        with storage_errors("write", uri):
            object_store.write(uri, data)
    if cache is not None and (written := _small(data)) is not None:
        cache.keep_written(uri, written)


@contextlib.contextmanager
def _changed(uri: str) -> Iterator[ObjectCache | None]:
    """Forgets the copy of an object that the block writes or deletes."""
    cache = cache_of(uri)
    try:
        yield cache
    finally:
        if cache is not None:
            cache.forget(uri)


def _small(data: bytes | BinaryIO) -> bytes | None:
    """All of it if it is small enough for a cache."""
    if isinstance(data, bytes):
        return data
    size = data.seek(0, io.SEEK_END)
    data.seek(0)
    return data.read() if size <= OBJECT_BYTES else None


def read_with_facts(uri: str) -> tuple[bytes, ObjectFacts]:
    """The content of a small file, and its facts; by Beam without an ETag, and of GCS alone with a generation.

    Raises:
        FileNotFoundError: if it does not exist.
    """
    if is_obstores(uri):
        with storage_errors("read", uri):
            return object_store.read(uri)
    found = find(uri)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, "not found", uri)
    # The generation first: should the object change meanwhile, a write on that condition is refused.
    version: str = _by_beam("look for", uri, beam_file.generation, uri)
    with open_file(uri) as stream:
        return stream.read(), ObjectFacts(found.size, found.modified, "", version)


def write_if(uri: str, data: bytes, before: ObjectFacts | None) -> ObjectFacts:
    """Writes a file if it has not changed; see `object_store.write_if`.

    Raises:
        ConditionError: if it has changed.
        UnconditionalError: if the store can't do it.
    """
    if not is_obstores(uri) and (before is None or before.version):
        with _changed(uri):
            version: str = _by_beam("write", uri, beam_file.write_if, uri, data, before.version if before else "")
            return ObjectFacts(len(data), 0.0, "", version)
    if not is_obstores(uri) or (before is not None and not before.e_tag):
        raise UnconditionalError(f"{uri} has no version that a write could depend on")
    with _changed(uri), storage_errors("write", uri):
        return object_store.write_if(uri, data, before)


def delete(uris: list[str]) -> None:
    """Deletes files; ignores missing ones."""
    by_bucket: dict[str, list[str]] = {}
    for uri in uris:
        if is_obstores(uri):
            by_bucket.setdefault(parse(uri).root, []).append(uri)
        elif exists(uri):
            with _changed(uri):
                _by_beam("delete", uri, beam_file.delete, uri)
    for some in by_bucket.values():
        with contextlib.ExitStack() as changed, storage_errors("delete", some[0]):
            for uri in some:
                changed.enter_context(_changed(uri))
            object_store.delete(some)


def delete_below(folder: str) -> None:
    """Deletes the files whose names begin so, by one listing.

    Args:
        folder: with a slash at its end.
    """
    found = begin_with("list", folder)
    for piece in spill.pieces(found):
        delete([uri.decode("utf-8", "surrogatepass") for uri in piece.column("uri").to_pylist()])


def begin_with(what: str, prefix: str, limit: int | None = None) -> pa.Table:
    """The objects whose names begin so, a table of `object_store.OBJECTS`.

    It is complete before anyone sees it: a failed listing returns nothing.

    Args:
        what: the operation, for an error: "list", ...
        limit: how many are enough.

    Raises:
        StorageError: if the listing fails, or there is no such bucket.
        ValueError: if Beam has no filesystem for the URI.
    """
    if is_served(prefix):
        cache = cache_of(prefix) if limit is None else None
        if cache is not None and (kept := cache.listing(prefix)) is not None:
            return kept
        since = cache.changes if cache is not None else 0
        with storage_errors(what, prefix):
            try:
                table = spill.spilled(object_store.listed(prefix, limit), OBJECTS)
            except OddKeyError:
                pass
            else:
                if cache is not None:
                    cache.keep_listing(prefix, table, since)
                return table
    beam_file.beam().get_filesystem(prefix)
    found: pa.Table = _by_beam(what, prefix, _spilled_by_beam, prefix, limit)
    return found


def _spilled_by_beam(prefix: str, limit: int | None) -> pa.Table:
    def rows() -> Iterable[tuple[object, ...]]:
        for file in beam_file.begin_with(prefix, limit):
            yield file.uri.encode("utf-8", "surrogatepass"), file.size, file.modified, ""

    return spill.spilled(spill.in_chunks(rows(), OBJECTS), OBJECTS)


def infos(objects: pa.Table) -> Iterator[FileInfo]:
    """The rows of a table of `object_store.OBJECTS`."""
    for piece in spill.pieces(objects):
        for uri, *facts in zip(*(column.to_pylist() for column in piece.columns), strict=True):
            yield FileInfo(uri.decode("utf-8", "surrogatepass"), *facts)


def is_marker(file: FileInfo) -> bool:
    """Whether a file of a listing is an object whose key ends in a slash: obstore lists it without that.

    Raises:
        StorageError: if the store fails.
    """
    if file.size or not is_obstores(file.uri):
        return False
    found = find(file.uri)
    return found is None or found.size > 0  # a file and a marker of the same name
