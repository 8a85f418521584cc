"""Files that records name: opened and looked up where they are, each time with the prefix that allows it."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple, cast

from schemas.allowed_uris import WEB
from schemas.errors import StorageError
from schemas.locator import Target
from transforms.support.storage import filesystem, web_file
from transforms.support.storage.storage_errors import is_forbidden
from transforms.support.storage.web_file import TargetError as TargetError

AT_ONCE = 32
"""Requests for the facts of files in object stores and on web servers that run at once."""
IN_MEMORY = 8 << 20
"""A larger file of a web server is in a temporary file while it is decoded."""


class Named(NamedTuple):
    """A file that a record names.

    Attributes:
        target: where it is.
        name: for its version; two files of one name are the same file.
    """

    target: Target
    name: str


def versions(files: Iterable[Named]) -> Iterator[str | TargetError]:
    """What changes if a file does: JSON of its name with the ETag, else with size and time; why there is none.

    Those of local files come from the disk, all others from requests in parallel.

    Raises:
        StorageError: if an object store fails.
    """
    some = list(files)
    if all(filesystem.is_local(one.target.uri) for one in some):
        yield from map(_version, some)
        return
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="version") as pool:
        yield from pool.map(_version, some)


def _version(file: Named) -> str | TargetError:
    try:
        return json.dumps([file.name, *_facts(file.target)])
    except TargetError as error:
        return error


def _facts(target: Target) -> list[str | int | float]:
    uri = target.uri
    if _is_web(uri):
        return web_file.facts(uri, target.below)
    if not filesystem.is_local(uri):
        with _allowed(uri):
            found = filesystem.find(uri)
        if found is None:
            raise TargetError("UnreadableMedia", f"There is no {uri}")
        size, modified, version = found.size, found.modified, found.version
    else:
        try:
            status = os.stat(real_path(target))
        except OSError as error:
            raise TargetError("UnreadableMedia", f"{uri} can't be opened: {error.strerror or error}") from error
        if not stat.S_ISREG(status.st_mode):
            raise TargetError("UnreadableMedia", f"{uri} is not a regular file")
        size, modified, version = status.st_size, status.st_mtime, ""
    if not size:
        raise TargetError("EmptyFile", f"{uri} has no bytes")
    return [version] if version else [size, modified]


def real_path(target: Target) -> str:
    """The path of a local file without links.

    Raises:
        TargetError: `UriNotAllowed` if links lead out of the folder that allows it.
    """
    path, folder = os.path.realpath(target.uri), os.path.realpath(target.below)
    if not path.startswith(folder.rstrip("/") + "/"):
        raise TargetError(
            "UriNotAllowed",
            f"{target.uri} is a link to {path}, which is not below {folder}; list its folder in corpus.allow_uris",
        )
    return path


def open_target(target: Target, most: int) -> BinaryIO:
    """Opens a file for reading, seekable.

    Args:
        most: bytes that are read of a web server; its files are read whole first.

    Raises:
        TargetError: if it may not be opened, or a web server does not give it.
        OSError: if it can't be opened.
    """
    if filesystem.is_local(target.uri):
        return filesystem.open_binary(real_path(target))
    if not _is_web(target.uri):
        with _allowed(target.uri):
            return filesystem.open_binary(target.uri)
    stream = cast(BinaryIO, tempfile.SpooledTemporaryFile(IN_MEMORY, prefix="vecbeam-"))  # noqa: SIM115
    try:
        web_file.download(target.uri, target.below, stream, most)
        stream.seek(0)
    except BaseException:
        stream.close()
        raise
    return stream


@contextmanager
def _allowed(uri: str) -> Iterator[None]:
    """Makes the refusal of one object by a store that of its item: some say no more of an object that is missing."""
    try:
        yield
    except StorageError as error:
        if not is_forbidden(error):
            raise
        raise TargetError("UnreadableMedia", f"{uri} does not exist, or may not be read: {error.message}") from error


def _is_web(uri: str) -> bool:
    return uri.partition("://")[0] in WEB
