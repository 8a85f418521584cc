"""The bytes that a row of an encoder's inputs refers to."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from schemas.errors import CorpusError
from schemas.layout import LOCATOR
from transforms.encoders.base import MEDIA_BYTES
from transforms.support.storage import filesystem

MAX_BYTES = 512 << 20
"""A media file that is read whole may have so many bytes: an image, or a recording."""


class RefusedError(Exception):
    """One input can't be embedded, and its item becomes a reject.

    Args:
        error: CamelCase and countable.
        reason: a sentence.
    """

    def __init__(self, error: str, reason: str) -> None:
        super().__init__(error, reason)
        self.error = error
        self.reason = reason


def contents(inputs: pa.Table) -> Iterator[tuple[str, bytes | None]]:
    """The URI of each row, and its bytes if they are in memory already.

    Args:
        inputs: with the columns `@uri` and `@locator`, and maybe `@bytes`; see `transforms.encoders.base.media_inputs`.
    """
    uris = inputs.column("@uri").to_pylist()
    known = inputs.column(MEDIA_BYTES) if MEDIA_BYTES in inputs.column_names else None
    for row, uri in enumerate(uris):
        assert not inputs.column(LOCATOR)[row].as_py(), "members of containers are not read yet"
        yield uri, None if known is None else known[row].as_py()


def read(uri: str, most: int = MAX_BYTES) -> bytes:
    """All bytes of a file.

    Raises:
        RefusedError: `UnreadableMedia` where it does not exist or may not be read, `MediaTooLarge` above `most` bytes.
        CorpusError: any other failure of the storage; the run ends, and the same command resumes it.
    """
    try:
        with filesystem.open_binary(uri) as stream:
            data: bytes = stream.read(most + 1)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise RefusedError("UnreadableMedia", f"The file can't be opened: {error.strerror or error}") from error
    except Exception as error:
        raise CorpusError(
            f"can't read {filesystem.as_text(uri)}: {error}",
            "run the same command again once the storage answers; nothing was lost",
        ) from error
    if len(data) > most:
        raise RefusedError("MediaTooLarge", f"The file has more than {most >> 20} MiB")
    return data
