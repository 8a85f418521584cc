"""From a record to an item whose media another file has: its id, where the bytes are, and its typed metadata."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

from schemas.allowed_uris import AllowedUris, NotAllowedError, is_relative
from schemas.config import Corpus
from schemas.locator import Cell, as_text
from transforms.read.item import MISSING, ItemChecker, lookup
from transforms.read.listing.files import SourceFile
from transforms.read.rejected_item import BadUtf8, RejectedItemError, bad_utf8, shown
from transforms.support.storage.target_file import Named

MEDIA: Any = object()
"""Key of a record with media that are not a path or URI of it: a `StoredBytes`, or what its own field has."""


class StoredBytes(NamedTuple):
    """Bytes that a file of records has.

    Attributes:
        version: changes if they do.
        cell: where they are.
        size: how many.
    """

    version: str
    cell: Cell
    size: int


def version_of_bytes(data: bytes) -> str:
    """A hash of bytes, as the version of an item."""
    return f"blake2b {blake2b(data, digest_size=16).hexdigest()}"


class MediaChecker:
    """Turns records that name media, and may have texts to embed in addition, into items.

    Args:
        corpus: which fields are id, media, texts and metadata, and what a record may name.
        file: that the records are from; None for records that are in no file.
    """

    def __init__(self, corpus: Corpus, file: SourceFile | None = None) -> None:
        assert corpus.media is not None
        self._items = ItemChecker(corpus, file.shown if file is not None else "")
        self._field = corpus.media
        self._folder = posixpath.dirname(file.name) if file is not None else ""
        self._allowed = AllowedUris(corpus.allow_uris, posixpath.dirname(file.uri) if file is not None else "")

    def __call__(self, record: Mapping[str, Any]) -> tuple[str, str | None, tuple[Any, ...], str, Named | None]:
        """Gives (item_id, content, metadata values, locator, pending): see `transforms.read.batch.BatchBuilder.add`.

        Raises:
            RejectedItemError: if the record is not an item, or names what it may not.
        """
        stored = record.get(MEDIA)
        if isinstance(stored, StoredBytes):
            record = {**record, self._field: stored.version}  # for an id that is made from it
        item_id = self._items.item_id(record)
        metadata = self._items.metadata(record, item_id)
        texts = self._items.inputs(record, item_id) if self._items.has_text_inputs else None
        value = record[MEDIA] if MEDIA in record else lookup(record, self._field)
        if isinstance(value, StoredBytes):
            if not value.size:
                raise RejectedItemError("EmptyFile", f"The media field {self._field!r} has no bytes", item_id)
            version = value.version if texts is None else texts.with_media(value.version).as_text()
            return item_id, version, metadata, as_text(value.cell), None
        found = self._target(value, item_id)
        return item_id, None if texts is None else texts.as_text(), metadata, as_text(found.target), found

    def known_id(self, record: Mapping[str, Any]) -> str | None:
        """The id of a broken record, if it can be found."""
        return self._items.known_id(record)

    def _target(self, value: object, item_id: str) -> Named:
        if value is MISSING:
            raise RejectedItemError(
                "MissingField", f"There is no field {self._field!r}, which corpus.media names", item_id
            )
        if value is None or (isinstance(value, str) and not value.strip()):
            kind = "null" if value is None else "empty"
            raise RejectedItemError("NoMedia", f"The media field {self._field!r} is {kind}", item_id)
        if isinstance(value, BadUtf8):
            raise RejectedItemError("InvalidUtf8", bad_utf8(f"The media field {self._field!r}", value), item_id)
        if not isinstance(value, str):
            raise RejectedItemError(
                "WrongType",
                f"The media field {self._field!r} is not a path or URI: {shown(value)}",
                item_id,
            )
        try:
            target = self._allowed.target(value)
        except NotAllowedError as error:
            reason = f"{shown(value, 80)} may not be opened: {error}; see corpus.allow_uris"
            raise RejectedItemError("UriNotAllowed", reason, item_id) from error
        # A relative name, as that of a file that is an item, stays the same if the whole corpus moves.
        name = posixpath.normpath(posixpath.join(self._folder, value)) if is_relative(value) else target.uri
        return Named(target, name)


Checker = ItemChecker | MediaChecker


def checker_of(corpus: Corpus, file: SourceFile | None) -> Checker:
    """What turns the records of a file, or of none, into items."""
    if corpus.refers_elsewhere:
        return MediaChecker(corpus, file)
    return ItemChecker(corpus, file.shown if file is not None else "")
