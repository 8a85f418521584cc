"""Items and rejects gathered into batches, whose boundaries follow from the corpus and the configuration alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from schemas.config import Corpus
from schemas.item_inputs import ItemContent
from schemas.layout import item_schema
from schemas.modality import Modality
from schemas.records import REJECT_SCHEMA, Key
from transforms.read.media_item import Checker
from transforms.read.rejected_item import MAX_REASON_CHARS, RejectedItemError
from transforms.support.storage.target_file import Named, TargetError, versions

STEP = "read"


@dataclass(frozen=True)
class Batch:
    """Items and rejects of a shard between two boundaries.

    `items` has `schemas.layout.item_schema`, `rejects` REJECT_SCHEMA: those since the previous batch. `items_read`
    is the number of rows of both; `bytes_read` counts bytes as stored.
    """

    key: Key
    items: pa.Table
    rejects: pa.Table
    items_read: int
    bytes_read: int


class BatchBuilder:
    """Gathers items and rejects; full at `batch_rows` items or rejects, or `batch_bytes` of content in UTF-8."""

    def __init__(self, shard: str, corpus: Corpus, batch_rows: int, batch_bytes: int) -> None:
        self.corpus = corpus
        self._shard = shard
        self._schema = item_schema(corpus.column_types, corpus.modality)
        self._is_mixed = corpus.modality is Modality.MIXED
        self._modality = corpus.modality
        self._no_metadata = (None,) * len(corpus.metadata)
        self._batch_rows = batch_rows
        self._batch_bytes = batch_bytes
        self._ordinal = 0
        self._bytes_of_closed_files = 0
        self._bytes_told = 0
        self._position: Callable[[], int] = lambda: 0
        self.uri = ""
        self._start()

    def _start(self) -> None:
        self._items: list[tuple[Any, ...]] = []
        self._rejects: list[tuple[str | None, str, str, str, str, str]] = []
        self._content_bytes = 0
        self._pending: dict[int, Named] = {}

    def open_file(self, uri: str, position: Callable[[], int], modality: Modality = Modality.TEXT) -> None:
        """Sets the file of the following items, their modality, and how many of its bytes were read so far."""
        self._bytes_of_closed_files += self._position()
        self.uri = uri
        self._modality = modality
        self._position = position

    def add(
        self,
        item_id: str,
        place: str,
        content: str | None,
        metadata: tuple[Any, ...] | None = None,
        locator: str | None = None,
        pending: Named | None = None,
    ) -> bool:
        """Adds an item; True if the batch is full.

        Args:
            content: see `schemas.layout.item_schema`; if it is pending None, or the texts, without a version of media.
            locator: of a media item, where in its file the bytes are; "" for the whole file.
            pending: the file whose version is the content: versions are looked up together, when the batch is taken.
        """
        if pending is not None:
            self._pending[len(self._items)] = pending
        referred: tuple[str, ...] = () if locator is None else (locator,)
        if self._is_mixed:
            referred = (self._modality, locator or "")
        values = self._no_metadata if metadata is None else metadata
        self._items.append((item_id, self.uri, place, *referred, content, *values))
        text = content or locator or ""
        self._content_bytes += len(text) if text.isascii() else len(text.encode())
        return len(self._items) >= self._batch_rows or self._content_bytes >= self._batch_bytes

    def reject(self, item_id: str | None, place: str, error: str, reason: str) -> bool:
        """Adds a reject; True if the batch is full."""
        self._rejects.append((item_id, self.uri, place, STEP, error, _shortened(reason)))
        return len(self._rejects) >= self._batch_rows

    def item(self, check: Checker, record: Any, place: str) -> Iterator[Batch]:
        """Adds a record as an item or a reject; yields the batch if it is full."""
        try:
            item_id, *found = check(record)
        except RejectedItemError as error:
            full = self.reject(error.item_id, place, error.error, error.reason)
        else:
            full = self.add(item_id, place, *found)
        if full:
            yield self.take()

    def take(self) -> Batch:
        """The current batch; the next one starts empty."""
        if self._pending:
            self._look_up()
        items = _table(self._items, self._schema)
        rejects = _table(self._rejects, REJECT_SCHEMA)
        total = self._bytes_of_closed_files + self._position()
        batch = Batch(
            key=Key(self._shard, self._ordinal),
            items=items,
            rejects=rejects,
            items_read=items.num_rows + rejects.num_rows,
            bytes_read=total - self._bytes_told,
        )
        self._bytes_told = total
        self._ordinal += 1
        self._start()
        return batch

    def _look_up(self) -> None:
        """Gives items that are files elsewhere their versions; those that are not there become rejects."""
        gone = set()
        at = self._schema.get_field_index("@content")
        for row, found in zip(self._pending, versions(self._pending.values()), strict=True):
            item = self._items[row]
            if isinstance(found, TargetError):
                item_id, uri, place = item[:3]
                reason = found.reason if item[at] is None else f"{self.corpus.media}: {found.reason}"
                self._rejects.append((item_id, uri, place, STEP, found.error, _shortened(reason)))
                gone.add(row)
            else:
                content = found if item[at] is None else ItemContent.from_text(item[at]).with_media(found).as_text()
                self._items[row] = (*item[:at], content, *item[at + 1 :])
        self._items = [item for row, item in enumerate(self._items) if row not in gone]

    def rest(self) -> Iterator[Batch]:
        """The last batch of the shard, if there is anything in it."""
        if self._items or self._rejects:
            yield self.take()


def _shortened(reason: str) -> str:
    reason = reason.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
    return reason if len(reason) <= MAX_REASON_CHARS else reason[: MAX_REASON_CHARS - 3] + "..."


def _table(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)
