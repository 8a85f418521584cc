"""Recordings and films to windows of some seconds.

The files are opened for their length, and decoded where they are embedded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from schemas import locator
from schemas.config import Config
from schemas.errors import ConfigurationError
from schemas.identity import content_hash, row_id
from schemas.layout import LOCATOR, chunk_schema, item_facts
from schemas.modality import Modality
from schemas.rejects import Reject, rejects_table
from transforms.chunk.base import Chunked
from transforms.chunk.whole import id_too_long

MOST_WINDOWS = 100_000
"""Of one item: more is a configuration that nobody means, or a damaged header."""


class Timing(Protocol):
    """What a model says of its windows."""

    @property
    def name(self) -> str:
        """For messages."""
        ...

    @property
    def max_seconds(self) -> float:
        """The longest window."""
        ...

    @property
    def usual_seconds(self) -> float:
        """A window where the configuration does not say how long."""
        ...

    @property
    def shortest(self) -> float:
        """The shortest window, in seconds."""
        ...

    def borders(self, addresses: list[str]) -> Iterator[list[float] | tuple[str, str]]:
        """Of films: the beginnings of each one's scenes and its end, or the error and the reason; see `durations`."""
        ...

    def durations(self, addresses: list[str]) -> Iterator[float | tuple[str, str]]:
        """The seconds of each file, or the error and the reason why it can't be embedded.

        Args:
            addresses: see `schemas.locator`.
        """
        ...


class Window(NamedTuple):
    """Some seconds of a recording or film, and how many after them are in no window."""

    start: float
    end: float
    dropped: float = 0.0


class SecondsChunker:
    """Makes windows of recordings and films.

    With `chunk.seconds` they have so many seconds; without, as many as is usual for the model, and do not overlap. With
    `chunk: false` an item is one window, and what is over the model's limit is dropped and counted. With `chunk.scenes`
    each scene of a film is cut into windows, of `chunk.seconds` or as many as the model takes.

    Args:
        config: of which `chunk`, `corpus.metadata` and `collection.id_max_bytes` count.
        model: whose windows they are.
        modality: of the items.

    Raises:
        ConfigurationError: if `chunk.seconds` is more or less than the model takes.
    """

    def __init__(self, config: Config, model: Timing, modality: Modality = Modality.AUDIO) -> None:
        self._model = model
        self._metadata = config.corpus.column_types
        self._id_max_bytes = config.collection.id_max_bytes
        self._schema = chunk_schema(self._metadata, modality)
        self._noun = modality.noun
        self._is_whole = not config.chunk
        self._by_scene = modality is Modality.VIDEO and config.chunk is not False and config.chunk.scenes
        is_limit = self._is_whole or self._by_scene
        self._length, self._overlap = model.max_seconds if is_limit else model.usual_seconds, 0.0
        if config.chunk and config.chunk.seconds is not None:
            self._length, self._overlap = config.chunk.seconds, config.chunk.overlap_seconds or 0.0
            self._check_length()

    def _check_length(self) -> None:
        most, least = self._model.max_seconds, self._model.shortest
        if not least <= self._length <= most:
            far = f"more than the {most:g} s" if self._length > most else f"less than the {least:g} s"
            does = "takes at once" if self._length > most else "needs"
            raise ConfigurationError(
                f"chunk.seconds: {self._length:g} is {far} that {self._model.name} {does}",
                f"set chunk.seconds to {least:g} at least and {most:g} at most",
            )

    def chunk(self, items: pa.Table) -> Chunked:
        """See `Chunker.chunk`."""
        columns = items.select(["item_id", "@uri", "@place", "@content"]).to_pydict()
        rejects: list[Reject] = []
        rows: dict[str, list[Any]] = {
            name: [] for name in ("id", "item_id", "chunk", "uri", "start", "end", "content_hash", "seconds_dropped")
        }
        taken: list[int] = []
        addresses = locator.addresses(items.column("@uri"), items.column(LOCATOR))
        shown = [locator.shown(address) for address in addresses]
        found = self._model.borders(addresses) if self._by_scene else self._model.durations(addresses)
        for place, (item_id, uri, line, content, borders) in enumerate(zip(*columns.values(), found, strict=True)):
            if isinstance(borders, tuple):
                rejects.append(Reject(item_id, uri, line, "chunk", *borders))
                continue
            scenes = list(pairwise(borders)) if isinstance(borders, list) else [(0.0, borders)]
            reject = self._refused(item_id, uri, line, sum(self._count(end - start) for start, end in scenes))
            if reject is not None:
                rejects.append(reject)
                continue
            for number, window in enumerate(window for scene in scenes for window in self._of_scene(*scene)):
                taken.append(place)
                values = (
                    row_id(item_id, number),
                    item_id,
                    number,
                    shown[place],
                    window.start,
                    window.end,
                    content_hash(json.dumps([content, window.start, window.end])),
                    window.dropped,
                )
                for column, value in zip(rows.values(), values, strict=True):
                    column.append(value)
        of_items = items.take(pa.array(taken, pa.int64()))
        own = {name: of_items.column(name) for name in (*self._metadata, LOCATOR, *item_facts().names)}
        arrays = [
            pa.array(rows[field.name], field.type) if field.name in rows else own[field.name] for field in self._schema
        ]
        return Chunked(pa.table(arrays, schema=self._schema), rejects_table(rejects))

    def _of_scene(self, start: float, end: float) -> list[Window]:
        made = self.windows(end - start)
        if not start:
            return made
        moved = [Window(round(start + one.start, 3), round(start + one.end, 3), one.dropped) for one in made]
        return [*moved[:-1], moved[-1]._replace(end=end)]

    def windows(self, seconds: float) -> list[Window]:
        """The windows of an item of so many seconds. They begin at whole milliseconds.

        The last one may be shorter than the others. Where it would be shorter than the model needs, it begins earlier.
        """
        if self._is_whole:
            end = min(seconds, self._length)
            return [Window(0.0, end, seconds - end)]
        length, step = self._milliseconds
        count = self._count(seconds)
        made = [Window(place * step / 1000, (place * step + length) / 1000) for place in range(count)]
        start = min(made[-1].start, max(0.0, seconds - self._model.shortest))
        return [*made[:-1], Window(start, seconds)]

    @property
    def _milliseconds(self) -> tuple[int, int]:
        """Of a window, and from the beginning of one to that of the next."""
        return round(self._length * 1000), round((self._length - self._overlap) * 1000)

    def _count(self, seconds: float) -> int:
        length, step = self._milliseconds
        return 1 if self._is_whole else 1 + max(0, -(-(round(seconds * 1000) - length) // step))

    def _refused(self, item_id: str, uri: str, line: str, windows: int) -> Reject | None:
        if windows > MOST_WINDOWS:
            reason = f"The {self._noun} has {windows:,} windows, more than {MOST_WINDOWS:,}: raise chunk.seconds"
            return Reject(item_id, uri, line, "chunk", "TooManyWindows", reason)
        length = len(row_id(item_id, windows - 1).encode())
        if length > self._id_max_bytes:
            return id_too_long(item_id, uri, line, length, self._id_max_bytes)
        return None
