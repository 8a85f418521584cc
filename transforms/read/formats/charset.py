"""Encodings of text files: of the byte order mark, else of the configuration, else UTF-8.

The callers of this module see UTF-8. Bytes that are not valid in the file's encoding become bytes that are not valid
UTF-8 either, so that the reader rejects just that record or file.
"""

from __future__ import annotations

import codecs
import functools
from collections.abc import Iterator

from transforms.read.rejected_item import RejectedItemError

UTF_8 = "utf-8"
MARKS = (
    (codecs.BOM_UTF8, UTF_8),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte order marks, and the encoding of each."""
MARK_BYTES = 4
"""Length of the longest mark."""
_UNDECODABLE = "vecbeam.undecodable"


def _undecodable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\udcff", error.end  # a lone surrogate, which is not valid UTF-8 when it is encoded


codecs.register_error(_UNDECODABLE, _undecodable)


def marked(beginning: bytes) -> tuple[str, int]:
    """Encoding of a file's byte order mark, and the mark's length; "" and 0 if there is none."""
    for mark, encoding in MARKS:
        if beginning.startswith(mark):
            return encoding, len(mark)
    return "", 0


def of_file(beginning: bytes, configured: str | None) -> str:
    """The encoding of a file: Python's own name of the codec.

    Args:
        beginning: its first MARK_BYTES bytes, or more.
        configured: the encoding in the configuration; None for UTF-8.
    """
    encoding = marked(beginning)[0] or codecs.lookup(configured or UTF_8).name
    # The file has no mark. Without one, UTF-16 is little-endian, as in the web's standard.
    return {"utf-8-sig": UTF_8, "ascii": UTF_8, "utf-16": "utf-16-le", "utf-32": "utf-32-le"}.get(encoding, encoding)


@functools.cache
def is_splittable(encoding: str) -> bool:
    """Whether line ends, quotes and delimiters have their bytes of ASCII, which are never part of other characters."""
    if encoding == UTF_8:
        return True
    try:
        each = [bytes([byte]).decode(encoding, "replace") for byte in range(256)]
    except (UnicodeError, LookupError):
        return False
    whole = bytes(range(256)).decode(encoding, "replace")
    return "".join(each[:128]) == bytes(range(128)).decode("ascii") and list(whole) == each


def to_utf8(data: bytes, encoding: str) -> bytes:
    """Text in some encoding as UTF-8; as bytes that are not valid UTF-8 if it is not text."""
    if encoding == UTF_8:
        return data
    return data.decode(encoding, _UNDECODABLE).encode(UTF_8, "surrogatepass")


def recoded(blocks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """Blocks of text in some encoding as blocks of UTF-8, without a byte order mark."""
    decoder = codecs.getincrementaldecoder(encoding)(_UNDECODABLE)
    first = True
    for block in blocks:
        text = decoder.decode(block)
        if first and text:
            text, first = text.removeprefix("\ufeff"), False
        if text:
            yield text.encode(UTF_8, "surrogatepass")
    if text := decoder.decode(b"", True):
        yield text.encode(UTF_8, "surrogatepass")


OTHER_ENCODING = "convert the files to UTF-8, or set corpus.encoding, for example to windows-1252"
"""The remedy for files in another encoding."""


def bad_text(what: str, data: bytes, error: UnicodeDecodeError, encoding: str, before: int = 0) -> RejectedItemError:
    """The reject of a record or file that is not text in its encoding.

    Args:
        what: begins the sentence, such as "The line".
        data: in UTF-8, which `error` refuses.
        before: bytes of the record before `data`.
    """
    if encoding == UTF_8:
        reason = f"{what} is not valid UTF-8 at its byte {error.start + before}: 0x{data[error.start]:02x}"
        return RejectedItemError("InvalidUtf8", reason)
    return RejectedItemError("InvalidEncoding", f"{what} has bytes that are not {encoding}")
