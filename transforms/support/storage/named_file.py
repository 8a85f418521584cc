"""Files that a person names in an option or a key of the configuration."""

from __future__ import annotations

from collections.abc import Iterator

from schemas.errors import ConfigurationError
from transforms.support.storage import filesystem


def read_named(path: str, key: str) -> bytes:
    """The bytes of a small file.

    Args:
        key: the option or key that names it, for messages.

    Raises:
        ConfigurationError: if it can't be read.
    """
    try:
        return filesystem.read_bytes(path)
    except FileNotFoundError:
        raise ConfigurationError(f"{key}: there is no file {path}", "check the path") from None
    except IsADirectoryError:
        raise ConfigurationError(f"{key}: {path} is a folder", "name the file in it") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{key}: can't read {path}: {error}", "check the file") from None


def lines_of(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The number, from 1, and the bytes of each line of a file that is not blank; a byte order mark is left out.

    >>> list(lines_of(b"a\\r\\n\\nb"))
    [(1, b'a\\r'), (3, b'b')]
    """
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if line.strip():
            yield number, line
