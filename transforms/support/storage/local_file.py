"""Files on a local disk: whole or not at all, and never a pipe."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import psutil

NAME_BYTES = 255
"""The longest name on usual filesystems."""
_KINDS = {
    stat.S_IFIFO: "a named pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


class NotRegularFileError(OSError):
    """The file is a pipe, a socket or a device."""


def open_file(path: str) -> BinaryIO:
    """Opens a file for reading.

    Raises:
        NotRegularFileError: if it is a pipe, a socket or a device, whose reading may never end.
        OSError: if it can't be opened.
    """
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
    """What a file that is not regular is, from its mode."""
    return _KINDS.get(stat.S_IFMT(mode), "a special file")


def write(path: Path, content: Callable[[BinaryIO], object]) -> None:
    """Writes a file under a temporary name, and renames it once all of it is on the disk.

    Args:
        content: writes it to the stream that it is given.

    Raises:
        OSError: if it can't be written; then nothing has its name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process is named so that a later run can tell a dead writer's leftover from a live one's.
    end = f".{socket.gethostname()}.{os.getpid()}.tmp"
    name = path.name
    if len(os.fsencode(f".{name}{end}")) > NAME_BYTES:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    temporary = path.parent / f".{name}{end}"
    try:
        with open(temporary, "wb") as stream:
            content(stream)
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


def remove_empty_folders(folder: str, above: str) -> None:
    """Removes a local folder and the ones above it, below `above`, while they are empty."""
    while folder != above and Path(folder).is_dir() and not any(Path(folder).iterdir()):
        Path(folder).rmdir()
        folder = str(Path(folder).parent)


def delete_folder(folder: str) -> None:
    """Deletes a local folder with all that is below it; ignores a missing one. Links are not followed."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def sweep_temporaries(folder: str) -> int:
    """Removes what killed writers left behind below a local folder; returns how many files that were."""
    return sum(_remove_if_dead(path) for path in _temporaries(folder))


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
