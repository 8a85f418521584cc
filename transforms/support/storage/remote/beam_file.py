"""Files of stores on Beam's filesystems: GCS's emulators, keys that obstore can't hold, and stores of other schemes."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from itertools import islice
from typing import Any, BinaryIO

from transforms.support import beam_filesystems
from transforms.support.storage.remote.answer import AnswerError, ConditionError, UnconditionalError
from transforms.support.storage.walk import FileInfo

UPLOAD_BYTES = 1 << 23
_UNCOMPRESSED = "uncompressed"
"""Beam's `CompressionTypes.UNCOMPRESSED`."""


def beam() -> Any:
    """Beam's filesystems, loaded when they are first needed: Beam takes seconds to import."""
    from apache_beam.io.filesystems import FileSystems

    beam_filesystems.register()
    if os.environ.get("STORAGE_EMULATOR_HOST"):
        _need_no_credentials()
    return FileSystems


def _need_no_credentials() -> None:
    """Skips the search for credentials for an emulator, which takes half a minute if there are none."""
    try:
        from apache_beam.internal.gcp.auth import _Credentials
    except ImportError:
        return
    if not os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
        _Credentials._credentials_init = True


def open_file(uri: str) -> Any:
    """Opens a file for reading, as stored."""
    stream = beam().open(uri, compression_type=_UNCOMPRESSED)
    if (blob := getattr(stream, "_blob", None)) is not None:
        # Google's client quotes the name itself where the store gives no address; stand-ins give one with bare letters.
        blob._properties.pop("mediaLink", None)
    return stream


def exists(uri: str) -> bool:
    """Whether a file exists."""
    return bool(beam().exists(uri))


def facts(uri: str) -> FileInfo:
    """The facts of a file."""
    return _info(beam().get_filesystem(uri).metadata(uri))


def write(uri: str, data: bytes | BinaryIO) -> None:
    """Writes a file whole."""
    stream = beam().create(uri, mime_type="application/octet-stream", compression_type=_UNCOMPRESSED)
    try:
        # Closing publishes the object, so it happens only after every byte was taken.
        if isinstance(data, bytes):
            stream.write(data)
        else:
            data.seek(0)
            shutil.copyfileobj(data, stream, UPLOAD_BYTES)
        stream.close()
    except BaseException:
        _abandon(stream)
        raise


class _NoUpload:
    """What takes the place of an upload that failed."""

    def put(self, data: Any) -> None: ...

    def finish(self) -> None: ...


def _abandon(stream: Any) -> None:
    """Keeps a file from being published after its write failed.

    Python closes a file that it collects, at any time and on any thread. Google's client and Beam's uploads then
    publish what they have: a part of the bytes, or all of them after the store had refused them.
    """
    if (buffer := getattr(stream, "_buffer", None)) is not None:  # Google's BlobWriter
        buffer.close()
    raw: Any = getattr(stream, "raw", None)
    if hasattr(raw, "_uploader"):  # Beam's UploaderStream, of all other stores
        raw._uploader = _NoUpload()


def generation(uri: str) -> str:
    """The generation of an object of GCS, which each write changes; "" in another store.

    Raises:
        FileNotFoundError: if it does not exist.
    """
    blob = _blob(uri)
    if blob is None:
        return ""
    if (found := blob.bucket.get_blob(blob.name)) is None:
        raise FileNotFoundError(errno.ENOENT, "not found", uri)
    return str(found.generation)


def write_if(uri: str, data: bytes, before: str) -> str:
    """Writes an object of GCS if it has not changed; returns its generation.

    Args:
        before: the generation that it has; "" if there must be none.

    Raises:
        ConditionError: if it has changed.
        UnconditionalError: if it is in another store.
    """
    blob = _blob(uri)
    if blob is None:
        raise UnconditionalError(f"{uri} has no version that a write could depend on")
    from google.api_core.exceptions import PreconditionFailed

    try:
        blob.upload_from_string(data, if_generation_match=int(before or 0))
    except PreconditionFailed as error:
        raise ConditionError(str(error)) from error
    return str(blob.generation)


def _blob(uri: str) -> Any:
    filesystem = beam().get_filesystem(uri)
    if filesystem.scheme() != "gs":
        return None
    bucket, _, key = uri.partition("://")[2].partition("/")
    return filesystem._gcsIO().client.bucket(bucket).blob(key)


def delete(uri: str) -> None:
    """Deletes an existing file."""
    filesystem = beam().get_filesystem(uri)
    if filesystem.scheme() == "gs":
        # Its own deletion reads the name as a glob, and deletes whatever that matches.
        filesystem._gcsIO().delete(uri)
    else:
        filesystem.delete([uri])


def begin_with(prefix: str, limit: int | None = None) -> Iterator[FileInfo]:
    """The objects whose names begin so; on a filesystem with folders, those in one folder.

    Raises:
        OSError: if the listing fails, or there is no such bucket.
    """
    filesystem = beam().get_filesystem(prefix)
    if filesystem.has_dirs():
        prefix = prefix.rpartition("/")[0]
    prefix = prefix.partition("\n")[0]  # Beam does not support a line break; what it lists is matched against the glob
    try:
        for metadata in islice(filesystem._list(prefix), limit):
            yield _info(metadata)
    except Exception as error:
        if filesystem.scheme() == "gs" and re.search(r"\b404\b|does not exist|not ?found", str(error), re.IGNORECASE):
            scheme, _, rest = prefix.partition("://")
            raise AnswerError(f"there is no bucket {scheme}://{rest.partition('/')[0]} (NoSuchBucket)") from error
        raise


def _info(metadata: Any) -> FileInfo:
    return FileInfo(metadata.path, metadata.size_in_bytes, metadata.last_updated_in_seconds or 0.0)
