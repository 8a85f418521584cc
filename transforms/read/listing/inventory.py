"""The files at the given place of a corpus; for those that can't be embedded, the reason."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from schemas.errors import ConfigurationError
from schemas.formats import COMPRESSION_OF_SUFFIX, format_of_suffix, suffixes
from schemas.glob import Glob
from transforms.read.listing.files import SourceFile
from transforms.support.storage import filesystem
from transforms.support.storage.walk import is_folder

MEDIA = {
    **dict.fromkeys((".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".svg"), "image"),
    **dict.fromkeys((".wav", ".mp3", ".flac", ".ogg", ".m4a", ".aac", ".opus", ".wma"), "sound"),
    **dict.fromkeys((".mp4", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m4v"), "film"),
}
_ARCHIVES = (".zip", ".7z", ".rar")
_OFFICE = (".doc", ".docx", ".xls", ".xlsx", ".ppt", ".pptx", ".odt", ".epub", ".rtf")


@dataclass(frozen=True)
class Entry:
    """A file, or a folder that is left out as a whole.

    Attributes:
        path: absolute, or a URI; a folder's ends with a slash.
        argument: position of the path that the user named.
        size: in bytes; 0 for a folder.
        why: why it is left out; "" if it is read.
        source: the file for the reader; None if its suffix does not tell the format.
    """

    path: str
    argument: int
    size: int = 0
    why: str = ""
    source: SourceFile | None = None

    def without(self, why: str) -> Entry:
        """The same, left out."""
        return replace(self, why=why)

    @property
    def kind(self) -> str:
        """Its format and compression; its suffix if that tells no format."""
        suffix, compression = suffixes(self.path)
        format = format_of_suffix().get(suffix, suffix or "no suffix")
        return format + (f" ({COMPRESSION_OF_SUFFIX[compression]})" if compression else "")


def inventory(paths: list[str]) -> list[Entry]:
    """All files of some files, folders or globs, each once, in order.

    Args:
        paths: local ones are absolute.

    Raises:
        ConfigurationError: if a path matches nothing.
    """
    found: dict[str, Entry] = {}
    for argument, path in enumerate(paths):
        entries = list(_entries(path, argument))
        if not entries:
            raise ConfigurationError(f"{path} matches no file", "correct the path or glob")
        for entry in entries:
            found.setdefault(entry.path, entry)
    return list(found.values())


def _entries(path: str, argument: int) -> Iterator[Entry]:
    if not filesystem.is_local(path):
        yield from _remote(path, argument)
    elif Path(path).is_dir():
        yield from _folder(path.rstrip("/") or "/", argument, ())
    elif Path(path).exists():
        yield _classified(path, argument, os.stat(path))
    else:
        for file in filesystem.glob(path):
            yield _looked_at(file.uri, argument)


def _remote(path: str, argument: int) -> Iterator[Entry]:
    try:
        files = []
        if not path.endswith("/") and (named := filesystem.find(path)) is not None:
            files = [named]
        files = files or filesystem.list_files(path, "**")
        if not files and Glob(path).has_wildcard:
            files = filesystem.glob(path)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{path} could not be listed: {error}",
            "check the address, the credentials, and vecbeam[gcp] or vecbeam[s3]",
        ) from error
    for file in files:
        if not file.uri.endswith("/"):
            yield _file(file.uri, argument, file.size, file.modified)


def _folder(folder: str, argument: int, above: tuple[tuple[int, int], ...]) -> Iterator[Entry]:
    try:
        status = os.stat(folder)
        with os.scandir(folder) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except OSError as error:
        yield Entry(f"{folder}/", argument, why=f"can't be read: {error.strerror}")
        return
    here = (status.st_dev, status.st_ino)
    if here in above:  # a link back to a folder above
        return
    for entry in entries:
        path = f"{folder.rstrip('/')}/{entry.name}"
        if not is_folder(entry):
            yield _looked_at(path, argument)
        elif why := _why_no_corpus(path):
            yield Entry(f"{path}/", argument, why=why)
        else:
            yield from _folder(path, argument, (*above, here))


def _looked_at(path: str, argument: int) -> Entry:
    try:
        return _classified(path, argument, os.stat(path))
    except OSError as error:  # a dangling link, for example
        return Entry(path, argument, why=f"can't be read: {error.strerror}")


def _why_no_corpus(folder: str) -> str:
    """Why a whole folder is left out, or ""."""
    name = posixpath.basename(folder)
    if name.startswith("."):
        return "hidden: its name begins with a dot"
    if name.endswith(".db"):
        return "a database of Milvus Lite"
    if is_checkpoint(folder):
        return "a checkpoint of vecbeam"
    return ""


def is_checkpoint(folder: str) -> bool:
    """Whether a local folder is a checkpoint: it has a folder of a corpus, and that has snapshots or a space."""
    try:
        corpora = [entry.path for entry in os.scandir(folder) if entry.is_dir()]
        return any(
            Path(corpus, "snapshots").is_dir() or any(Path(corpus).glob("*/space.json")) for corpus in corpora[:100]
        )
    except OSError:
        return False


def _classified(path: str, argument: int, status: os.stat_result) -> Entry:
    if not stat.S_ISREG(status.st_mode):
        return Entry(path, argument, why="not a regular file")
    return _file(path, argument, status.st_size, status.st_mtime)


def _file(path: str, argument: int, size: int, modified: float) -> Entry:
    if posixpath.basename(path).startswith("."):
        return Entry(path, argument, size, "hidden: its name begins with a dot")
    suffix, compression = suffixes(path)
    format = format_of_suffix().get(suffix)
    if format is None:
        return Entry(path, argument, size, _unknown(suffix, compression))
    source = SourceFile(path, path.lstrip("/"), size, modified, format, COMPRESSION_OF_SUFFIX.get(compression, ""))
    return Entry(path, argument, size, source=source)


def _unknown(suffix: str, compression: str) -> str:
    if suffix in MEDIA:
        return f"{MEDIA[suffix]}: not a format that vecbeam reads"
    if suffix == ".json":
        return "JSON, but not JSON Lines: write one object per line into a .jsonl file"
    if suffix in _ARCHIVES:
        return "an archive: unpack it"
    if suffix in _OFFICE:
        return "not a text format: export it as text, PDF or CSV"
    if not suffix:
        return "no suffix that tells its format" + (f" before {compression}" if compression else "")
    return f"{suffix} is not a format that vecbeam reads"
