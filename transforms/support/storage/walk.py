"""The files on a local disk that match a glob, and what was found next to them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from schemas.glob import Glob

SHOWN = 5
"""How many of the names that were left out are kept for messages."""


class FileInfo(NamedTuple):
    """A file in a listing.

    `modified` is seconds since the epoch; `version` is the ETag or the generation that an object store has for the
    content, "" where none is known.
    """

    uri: str
    size: int
    modified: float
    version: str = ""


@dataclass
class Names:
    """How many names there were, and the first few of them."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(name)


@dataclass
class Seen:
    """Names that a listing found and left out.

    Attributes:
        folders: folders whose own path matches the glob, as a file's would.
        hidden: paths of files and folders that match except for a leading dot.
        markers: keys of an object store that match and end in a slash.
    """

    folders: list[str] = field(default_factory=list)
    hidden: Names = field(default_factory=Names)
    markers: Names = field(default_factory=Names)

    def note_key(self, glob: Glob, uri: str) -> None:
        """Records an object that does not match."""
        names = glob.pattern.count("/") + 1
        above = uri.split("/", names)
        if len(above) > names and "**" not in glob.pattern and glob.matches(folder := "/".join(above[:-1])):
            if folder not in self.folders[-1:]:  # keys come in order
                self.folders.append(folder)
        elif "/." in uri and glob.regex_with_hidden.fullmatch(uri):
            self.hidden.add(uri)

    def note_marker(self, glob: Glob, uri: str) -> None:
        """Records an object whose key ends in a slash: usually an empty one that stands for a folder."""
        if glob.matches(uri):
            self.markers.add(uri)
        else:
            self.note_key(glob, uri)


class _Folder(NamedTuple):
    """A folder to search: `prefix` is its path with a slash, `depth` counts the glob's names down to it."""

    path: str
    prefix: str
    depth: int
    above: tuple[tuple[int, int], ...]


class _Level(NamedTuple):
    """What one folder's names are matched against.

    If it is `deep`, from a name with `**` on, all folders below are searched, and `glob` is matched against the path
    from the folder in which that began.
    """

    glob: Glob
    last: bool
    deep: bool


def walk(glob: Glob, seen: Seen) -> Iterator[FileInfo]:
    """Files that match, in no order.

    Beam's own local listing silently leaves out folders that it can't read: their items would look deleted.

    Raises:
        OSError: if a folder can't be read.
    """
    if not glob.has_wildcard:
        yield from _named(glob.prefix, seen)
        return
    root = glob.root
    folder = root or ("/" if glob.pattern.startswith("/") else ".")
    if not _is_folder_path(folder):
        return
    levels = _levels(glob.names)
    folders = [_Folder(folder, f"{root}/" if root or folder == "/" else "", 0, ())]
    while folders:
        at = folders.pop()
        level = levels[at.depth]
        if level.deep:
            yield from _walk_deep(at, level.glob, seen)
        elif level.glob.has_wildcard:
            yield from _walk_level(at, level, seen, folders)
        elif level.last:
            yield from _named(at.prefix + level.glob.prefix, seen)
        else:
            path = at.prefix + level.glob.prefix
            if _is_folder_path(path):
                folders.append(_Folder(path, path + "/", at.depth + 1, at.above))


def _levels(names: list[str]) -> list[_Level]:
    levels: list[_Level] = []
    for depth, name in enumerate(names):
        if "**" in name:
            return [*levels, _Level(Glob("/".join(names[depth:])), True, True)]
        levels.append(_Level(Glob(name), depth == len(names) - 1, False))
    return levels


def _named(path: str, seen: Seen) -> Iterator[FileInfo]:
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISLNK(status.st_mode):
        status = _followed(path) or status
    if stat.S_ISDIR(status.st_mode):
        seen.folders.append(path)
    else:
        yield _file(path, status)


def _walk_level(at: _Folder, level: _Level, seen: Seen, folders: list[_Folder]) -> Iterator[FileInfo]:
    """Files of one folder that match; matching folders are searched later, if more names follow."""
    match = level.glob.regex.fullmatch
    prefix = at.prefix
    with os.scandir(at.path) as entries:
        for entry in entries:
            name = entry.name
            if not match(name):
                if name[0] == "." and level.glob.regex_with_hidden.fullmatch(name):
                    seen.hidden.add(prefix + name)
            elif is_folder(entry):
                path = prefix + name
                if level.last:
                    seen.folders.append(path)
                else:
                    folders.append(_Folder(path, path + "/", at.depth + 1, ()))
            elif level.last:
                yield _entry_file(prefix + name, entry)


def _walk_deep(start: _Folder, glob: Glob, seen: Seen) -> Iterator[FileInfo]:
    match = glob.regex.fullmatch
    hidden_named = any(name.startswith(".") for name in glob.names[1:])
    skip = len(start.prefix)
    folders = [start]
    while folders:
        at = folders.pop()
        status = os.stat(at.path)
        here = (status.st_dev, status.st_ino)
        if here in at.above:  # a link back to a folder above
            continue
        above = (*at.above, here)
        prefix = at.prefix
        relative = prefix[skip:]
        with os.scandir(at.path) as entries:
            for entry in entries:
                name = entry.name
                if is_folder(entry):
                    path = prefix + name
                    if name[0] == "." and not hidden_named:
                        seen.hidden.add(path + "/")
                        continue
                    if match(relative + name):
                        seen.folders.append(path)
                    folders.append(_Folder(path, path + "/", 0, above))
                elif match(relative + name):
                    yield _entry_file(prefix + name, entry)
                elif name[0] == "." and glob.regex_with_hidden.fullmatch(relative + name):
                    seen.hidden.add(prefix + name)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; a link to itself is not."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        if entry.is_symlink():
            return False
        raise


def _is_folder_path(path: str) -> bool:
    status = _followed(path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def _followed(path: str) -> os.stat_result | None:
    """The target of a path; None if it does not exist. One that may not be read raises."""
    try:
        return os.stat(path)
    except OSError as error:
        if isinstance(error, PermissionError):
            raise
        return None


def _entry_file(path: str, entry: os.DirEntry[str]) -> FileInfo:
    try:
        return _file(path, entry.stat())
    except PermissionError:
        raise
    except OSError:  # a dangling link, or a file that has just been deleted
        return FileInfo(path, 0, 0.0)


def _file(path: str, status: os.stat_result) -> FileInfo:
    if not stat.S_ISREG(status.st_mode):
        return FileInfo(path, 0, 0.0 if stat.S_ISLNK(status.st_mode) else status.st_mtime)
    return FileInfo(path, status.st_size, status.st_mtime)
