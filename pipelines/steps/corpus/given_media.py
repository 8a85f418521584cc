"""Media that a program holds in memory: bytes of a file, a PIL image, or an array of pixels."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from schemas.errors import ConfigurationError


class Pixels(Protocol):
    """A PIL image, or an array of pixels."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...


def is_one(value: object) -> bool:
    """Whether a value is one text, record or media file, and not several."""
    return not isinstance(value, Iterable) or (
        isinstance(value, (str, bytes, bytearray, memoryview, Mapping)) or hasattr(value, "__array_interface__")
    )


def is_in_memory(value: object) -> bool:
    """Whether `bytes_of` takes a value."""
    return isinstance(value, (bytes, bytearray, memoryview)) or hasattr(value, "__array_interface__")


def bytes_of(value: Any) -> bytes:
    """The bytes of a file: those that are given, or a PNG file of pixels.

    Args:
        value: bytes; a PIL image; or an array of pixels, uint8[height, width] or uint8[height, width, 3 or 4].

    Raises:
        ConfigurationError: for an array that is not of pixels.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    import numpy as np
    from PIL import Image

    if not hasattr(value, "save"):
        array = np.asarray(value)
        if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
            raise ConfigurationError(
                f"the array is {array.dtype}{list(array.shape)}",
                "give pixels as uint8[height, width], or with 3 or 4 numbers for each pixel",
            )
        value = Image.fromarray(array)
    stream = io.BytesIO()
    value.save(stream, "PNG")
    return stream.getvalue()
