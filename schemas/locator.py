"""Where the bytes of a media item are: the column `@locator` of an item and its chunks, as text.

"" is the whole file of `@uri`. The others are JSON: bytes do not travel between the steps of a run, locators do.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pyarrow as pa


class Member(NamedTuple):
    """A member of a tar.

    Attributes:
        offset: of its first byte in the tar.
        length: in bytes.
        name: in the tar.
    """

    offset: int
    length: int
    name: str


class Target(NamedTuple):
    """A file elsewhere, which a record names.

    Attributes:
        uri: absolute: a local path, or a URI of an object store or a web server.
        below: the folder, or the prefix of `corpus.allow_uris`, that allows it; whoever opens it checks that again.
    """

    uri: str
    below: str


class Cell(NamedTuple):
    """Bytes in a Parquet file.

    Attributes:
        group: position of the row group.
        row: position in it.
        column: of bytes, by its dotted name.
        number: of the row in the file, from 1 on.
    """

    group: int
    row: int
    column: str
    number: int


class PdfPage(NamedTuple):
    """A page of a PDF, as an image.

    Attributes:
        number: from 0 on.
        dpi: pixels per inch with which it is drawn.
    """

    number: int
    dpi: int


Locator = Member | Target | Cell | PdfPage
_KINDS: dict[str, type[Member] | type[Target] | type[Cell] | type[PdfPage]] = {
    "member": Member,
    "target": Target,
    "cell": Cell,
    "page": PdfPage,
}
_BETWEEN = "\0"
"""In an address, between the URI and the locator: no file's name has it."""


def as_text(locator: Locator) -> str:
    """The locator as `@locator` holds it.

    >>> as_text(Member(1536, 20, "a/0.jpg"))
    '["member",1536,20,"a/0.jpg"]'
    """
    kind = next(name for name, one in _KINDS.items() if isinstance(locator, one))
    return json.dumps([kind, *locator], separators=(",", ":"))


def from_text(text: str) -> Locator | None:
    """The inverse of `as_text`; None for "", the whole file."""
    if not text:
        return None
    kind, *values = json.loads(text)
    return _KINDS[kind](*values)


def address(uri: str, locator: str) -> str:
    """A URI and a locator as one text: what names the bytes of an item, for whoever opens them."""
    return f"{uri}{_BETWEEN}{locator}" if locator else uri


def parsed(address: str) -> tuple[str, Locator | None]:
    """The URI of an address, and the locator in it."""
    uri, _, locator = address.partition(_BETWEEN)
    return uri, from_text(locator)


def addresses(uris: pa.ChunkedArray, locators: pa.ChunkedArray) -> list[str]:
    """The addresses of the rows of two columns."""
    return [address(*row) for row in zip(uris.to_pylist(), locators.to_pylist(), strict=True)]


def shown(address: str) -> str:
    """The bytes of an address for people: the column `uri` of a row.

    >>> shown(address("s3://b/0.tar", as_text(Member(1536, 20, "a/0.jpg"))))
    's3://b/0.tar#a/0.jpg'
    """
    uri, locator = parsed(address)
    if isinstance(locator, Target):
        return locator.uri
    if isinstance(locator, Cell):
        return f"{uri}#row={locator.number}"
    if isinstance(locator, PdfPage):
        return f"{uri}#page={locator.number + 1}"
    return uri if locator is None else f"{uri}#{locator.name}"


def shown_column(uris: pa.ChunkedArray, locators: pa.ChunkedArray) -> pa.ChunkedArray:
    """`shown` of the rows of two columns."""
    import pyarrow as pa

    if not any(locators.to_pylist()):
        return uris
    return pa.chunked_array([pa.array(map(shown, addresses(uris, locators)), pa.string())])
