"""The input of a reader of a format, and its protocol."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from schemas.errors import ConfigurationError
from schemas.formats import format_named
from transforms.read.batch import Batch, BatchBuilder
from transforms.read.listing.files import SourceFile
from transforms.read.stream import RawStream


@dataclass(frozen=True)
class OpenFile:
    """A file of the corpus, open, and which part of it to read.

    Attributes:
        raw: its bytes as stored; `transforms.read.stream` decompresses them.
        start, end: the part, in the unit in which the format is split; 0 and 0 is all of it.
        quoted: of CSV, whether quotes make fields, if it was found out already.
    """

    raw: RawStream
    file: SourceFile
    start: int = 0
    end: int = 0
    quoted: bool | None = None


class Read(Protocol):
    """A reader: passes each item or reject of a file to the sink, and yields full batches."""

    def __call__(self, opened: OpenFile, sink: BatchBuilder) -> Iterator[Batch]: ...


@lru_cache(maxsize=64)
def reader_of(name: str) -> Read:
    """The reader of a format, imported when it is first used.

    Raises:
        ConfigurationError: if no such format is installed on this machine.
    """
    one = format_named(name)
    if one is None:
        raise ConfigurationError(
            f"the format {name!r} is not installed on this machine", "install its package on each worker"
        )
    module, _, function = one.reader.partition(":")
    found: Read = getattr(importlib.import_module(module), function)
    return found
