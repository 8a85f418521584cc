"""Files that a person names in an option or a key of the configuration."""

from __future__ import annotations

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
