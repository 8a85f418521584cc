"""Media files that are one item each: referred to here, and opened where they are embedded.

The item's id is the file's path under its glob's root. Its version is the ETag or generation that the store gives, or
the size and modification time: a file that does not change is never read again, and one that does is read once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from transforms.read.batch import Batch, BatchBuilder
from transforms.read.item import ItemChecker
from transforms.read.listing.files import SourceFile
from transforms.read.open_file import OpenFile
from transforms.read.rejected_item import RejectedItemError


def read(opened: OpenFile, sink: BatchBuilder) -> Iterator[Batch]:
    """Refers to a file as one item, or rejects an empty or compressed one. Nothing is opened."""
    file = opened.file
    try:
        if not file.size:
            raise RejectedItemError("EmptyFile", "The file has no bytes")
        if file.compression:
            raise RejectedItemError(
                "CompressedMedia", f"The file is compressed with {file.compression}; media files are read as they are"
            )
        metadata = ItemChecker(sink.corpus, file.shown).metadata({}, file.name)
    except RejectedItemError as error:
        full = sink.reject(file.name, "", error.error, error.reason)
    else:
        full = sink.add(file.name, "", json.dumps(version_of(file)), metadata, locator="")
    if full:
        yield sink.take()


def version_of(file: SourceFile) -> list[str | int | float]:
    """What changes if a file does. The path belongs to it: two files of one size and time are not the same file."""
    return [file.name, file.version] if file.version else [file.name, file.size, file.modified]
