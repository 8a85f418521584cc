"""Batches on which workers die: found by a durable marker, narrowed down to the item, which becomes a reject.

A process that is killed, by the system for its memory or by a fault in the code of a model, raises nothing. So a worker
writes a small file before it embeds a batch and deletes it afterwards: a worker that finds one knows that the one
before it died, and where. The first attempt embeds the whole batch, the second one pieces of the square root of its
items, the third one the items of the piece that killed the second; the fourth leaves out the item that killed the
third. Dataflow makes four attempts before a job fails.
"""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pyarrow as pa

from schemas.layout import SOURCE_ROW, Layout
from schemas.rejects import Reject, rejects_table
from transforms.checkpoint.embedded import EmbeddedBatch
from transforms.embed.rows import Filler, embed_table, nothing_embedded
from transforms.support import metrics
from transforms.support.storage import filesystem
from transforms.support.storage.sealed_json import sealed, unsealed

log = logging.getLogger("vecbeam")

DEATHS = 3
"""Workers that died one after the other, the last of them on one item alone, before the item is rejected."""

Span = tuple[int, int]
"""Items of a batch: the first, and the one after the last."""


@dataclass(frozen=True)
class History:
    """What earlier attempts at a batch tell.

    Attributes:
        deaths: of workers, each within `suspects` of the one before.
        suspects: the items among which the last worker died; None for all.
        accused: items that are left out.
        workers: the hosts on which workers died.
        at: the items that a worker is embedding, or died on; None if no worker is.
    """

    deaths: int = 0
    suspects: Span | None = None
    accused: tuple[int, ...] = ()
    workers: tuple[str, ...] = ()
    at: Span | None = None

    @classmethod
    def from_json(cls, data: bytes) -> History:
        """The history that a marker holds."""
        found = unsealed(data)
        spans = {name: tuple(found[name]) if found[name] else None for name in ("suspects", "at")}
        return cls(found["deaths"], spans["suspects"], tuple(found["accused"]), tuple(found["workers"]), spans["at"])

    def as_json(self) -> bytes:
        """The content of a marker."""
        return sealed(asdict(self))

    @property
    def is_clean(self) -> bool:
        """Whether no worker has died on the batch."""
        return not self.deaths and not self.accused

    def after_death(self) -> History:
        """The history with the death of the worker that was embedding `at`.

        >>> History(at=(0, 100)).after_death()
        History(deaths=1, suspects=(0, 100), accused=(), workers=(), at=None)
        >>> History(deaths=2, suspects=(10, 20), at=(13, 14)).after_death()
        History(deaths=1, suspects=None, accused=(13,), workers=(), at=None)
        """
        assert self.at is not None
        first, end = self.at
        is_within = self.suspects is None or (self.suspects[0] <= first and end <= self.suspects[1])
        deaths = self.deaths + 1 if is_within else 2
        alone = [item for item in range(first, end) if item not in self.accused]
        if len(alone) == 1 and deaths >= DEATHS:
            # Another item of the batch may be as bad: the others are not embedded as a whole again.
            return replace(self, deaths=1, suspects=None, accused=(*self.accused, *alone), at=None)
        return replace(self, deaths=deaths, suspects=self.at, at=None)

    def spans(self, items: int) -> Iterator[Span]:
        """The items of a batch in the pieces in which this attempt embeds them, in order.

        >>> list(History(deaths=2, suspects=(3, 6)).spans(9))
        [(0, 3), (3, 4), (4, 5), (5, 6), (6, 9)]
        """
        if self.is_clean:
            yield 0, items
            return
        step = math.isqrt(max(0, items - 1)) + 1
        for first in range(0, items, step):
            end = min(items, first + step)
            left = [item for item in range(first, end) if item not in self.accused]
            suspects = self.suspects or (0, 0)
            if self.deaths >= 2 and first < suspects[1] and suspects[0] < end:
                yield from ((item, item + 1) for item in left)
            elif left:
                yield first, end


class Attempts:
    """Embeds batches, with a marker in the store while it does.

    Args:
        uri_of: gives the place of the marker of a batch, by the name of its part.
    """

    def __init__(self, uri_of: Callable[[str], str]) -> None:
        self._uri_of = uri_of

    def embed(
        self,
        chunks: pa.Table,
        fillers: Sequence[Filler],
        layout: Layout,
        advance: Callable[[int], None] | None = None,
    ) -> EmbeddedBatch:
        """Embeds the chunks of a batch that have no source; see `transforms.embed.rows.embed_table`.

        Args:
            chunks: the whole batch, with the column `@source_row`, and the name of its part in the schema's metadata.
        """
        name = chunks.schema.metadata[b"part"].decode()
        uri = self._uri_of(name)
        history = self._found(uri, name)
        if history.is_clean:
            with _TURNS.together(), self._at(uri, history, (0, chunks.num_rows)):
                return embed_table(_waiting(chunks), fillers, layout, advance)
        metrics.count("embed_retries", 1)
        # What the process embeds at the same time could kill it as well.
        with _TURNS.alone():
            # A model that kills the process on any input shows here, where no item is blamed for it.
            for filler in fillers:
                filler.encoder.encode(filler.probe)
            return self._in_pieces(uri, history, chunks, fillers, layout, advance)

    def _found(self, uri: str, name: str) -> History:
        try:
            data, _ = filesystem.read_with_facts(uri)
            history = History.from_json(data)
        except (FileNotFoundError, ValueError, KeyError, TypeError):  # none, or not a marker
            return History()
        if history.at is None:
            return history
        history = history.after_death()
        # Before anything else can end this process, which would hide the death.
        filesystem.write_atomic(uri, history.as_json())
        said = f"leaving out {len(history.accused)} items" if history.accused else "embedding it in pieces"
        log.warning("a worker died while it embedded %s (the worker on %s); %s", name, _last(history), said)
        return history

    def _in_pieces(
        self,
        uri: str,
        history: History,
        chunks: pa.Table,
        fillers: Sequence[Filler],
        layout: Layout,
        advance: Callable[[int], None] | None,
    ) -> EmbeddedBatch:
        numbers = _item_numbers(chunks)
        is_waiting = chunks.column(SOURCE_ROW).to_numpy() < 0
        is_left = ~np.isin(numbers, history.accused)
        done = []
        for first, end in history.spans(int(numbers.max(initial=-1)) + 1):
            rows = np.flatnonzero(is_waiting & is_left & (numbers >= first) & (numbers < end))
            if len(rows):
                with self._at(uri, history, (first, end)):
                    done.append(embed_table(chunks.take(pa.array(rows)), fillers, layout, advance))
        accused = rejects_table(_reject(chunks, int(np.argmax(numbers == item)), history) for item in history.accused)
        return _joined([*done, nothing_embedded(chunks, layout)._replace(rejects=accused)])

    @contextlib.contextmanager
    def _at(self, uri: str, history: History, at: Span) -> Iterator[None]:
        """Marks the items that are embedded in a block; the process survives an error, which does not count."""
        here = replace(history, at=at, workers=(*history.workers, socket.gethostname())[-DEATHS:])
        filesystem.write_atomic(uri, here.as_json())
        try:
            yield
        finally:
            if history.is_clean:
                filesystem.delete([uri])
            else:
                filesystem.write_atomic(uri, history.as_json())


def _last(history: History) -> str:
    return history.workers[-1] if history.workers else "an unknown host"


def _waiting(chunks: pa.Table) -> pa.Table:
    return chunks.filter(pa.array(chunks.column(SOURCE_ROW).to_numpy() < 0))


def _item_numbers(chunks: pa.Table) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The position of each chunk's item among the items of a table, in which those of an item follow each other."""
    ids = np.array(chunks.column("item_id").to_pylist(), dtype=object)
    return np.cumsum(np.r_[0, ids[1:] != ids[:-1]][: len(ids)])


def _reject(chunks: pa.Table, row: int, history: History) -> Reject:
    item: Mapping[str, str] = chunks.slice(row, 1).select(["item_id", "@uri", "@place"]).to_pylist()[0]
    reason = (
        f"{DEATHS} workers died, the last one on {_last(history)} while it embedded this item alone: it needs more "
        "memory than a worker has, or it ends the process in the model's code"
    )
    return Reject(item["item_id"], item["@uri"], item["@place"], "embed", "WorkerDied", reason)


def _joined(batches: Sequence[EmbeddedBatch]) -> EmbeddedBatch:
    runtime = next((batch.runtime for batch in batches if batch.runtime), {})
    return EmbeddedBatch(
        pa.concat_tables([batch.rows for batch in batches]).combine_chunks(),
        pa.concat_tables([batch.rejects for batch in batches]),
        sum(batch.tokens_padded for batch in batches),
        runtime,
    )


class _Turns:
    """Blocks of a process that run at the same time, and ones that run alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._one = threading.Lock()
        self._running = 0
        self._is_alone = False

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._is_alone)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        with self._one:
            with self._changed:
                self._is_alone = True
                self._changed.wait_for(lambda: not self._running)
            try:
                yield
            finally:
                with self._changed:
                    self._is_alone = False
                    self._changed.notify_all()


_TURNS = _Turns()
