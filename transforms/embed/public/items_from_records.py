"""Records from any source (dicts, rows of Beam) to batches of items with deterministic keys."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput

from schemas.config import Config
from schemas.config.loader import as_config
from transforms.diff import chunking_of
from transforms.embed.work import BATCH_BYTES, with_facts
from transforms.read.batch import Batch, BatchBuilder
from transforms.read.item import ItemChecker
from transforms.read.media_item import checker_of
from transforms.read.rejected_item import RejectedItemError
from transforms.support import metrics
from transforms.support.outputs import Outputs
from transforms.support.versioned_dofn import VersionedDoFn


@dataclass(eq=False)
class ItemsFromRecords(beam.PTransform):  # type: ignore[misc]
    """PCollection of records -> PCollection of `(Key, items)`, and `.rejects`.

    A record is a dict, or anything with `_asdict` such as a `beam.Row` or a NamedTuple; `corpus.id`, `corpus.content`
    and `corpus.metadata` say what its fields are. Records are shuffled into `shards` shards by the hash of their id and
    sorted by id in each, so the same records give the same keys, whatever order they come in. A worker holds one shard
    in memory: choose `shards` so that each has some ten thousand records at most. For bounded, globally windowed input.

    Attributes:
        config: a configuration, or the path of its file.
        shards: how many; another number gives other keys, and so other parts.
        name: of the shards, before their numbers; items and rejects have it as their `@uri`.

    Of several records with one id the first in the order of their JSON is kept; the others are rejects, `DuplicateId`.
    """

    config: Config | str
    shards: int = 16
    name: str = "records"

    def expand(self, records: beam.PCollection) -> Outputs:
        config = as_config(self.config)
        found = (
            records
            | "Shard" >> beam.ParDo(_Shard(config, self.shards))
            | "Group" >> beam.GroupByKey()
            | "Items" >> beam.ParDo(_Items(config, self.name)).with_outputs("rejects", main="batches")
        )
        return Outputs(found.batches, found.rejects)


class _Shard(VersionedDoFn):
    def __init__(self, config: Config, shards: int) -> None:
        self._corpus = config.corpus
        self._shards = shards

    def process(self, record: Any) -> Iterator[tuple[int, dict[str, Any]]]:
        fields = as_mapping(record)
        identity = ItemChecker(self._corpus).known_id(fields)
        name = repr(sorted(fields.items(), key=_name)) if identity is None else identity
        yield zlib.crc32(name.encode("utf-8", "backslashreplace")) % self._shards, fields


class _Items(VersionedDoFn):
    def __init__(self, config: Config, name: str) -> None:
        self._config = config
        self._name = name
        self._chunking = chunking_of(config)

    def process(self, group: tuple[int, Iterable[dict[str, Any]]]) -> Iterator[Any]:
        number, records = group
        for batch in batches_of(records, self._config, f"{self._name}-{number:05d}", uri=self._name):
            metrics.count("items_read", batch.items_read)
            if batch.rejects.num_rows:
                yield TaggedOutput("rejects", (batch.key, batch.rejects))
            if batch.items.num_rows:
                yield batch.key, with_facts(batch.items, self._chunking)


def batches_of(records: Iterable[Mapping[str, Any]], config: Config, shard: str, *, uri: str) -> Iterator[Batch]:
    """The records of a shard as batches, in the order of their ids, with the ordinals 0, 1, ...

    Args:
        records: held in memory.
        shard: its name, unique within a pipeline.
        uri: where items and rejects say they are from.

    >>> from schemas.config.loader import parse_config
    >>> values = {"name": "a", "corpus": {"paths": "-", "metadata": {"year": "int"}}, "checkpoint": "c"}
    >>> config = parse_config({**values, "encoder": {"model": "fake"}, "collection": {"uri": "./m.db"}})
    >>> records = [{"id": "b", "text": "Two"}, {"id": "a", "text": "One", "year": 2024}, {"id": "c"}]
    >>> [batch] = batches_of(records, config, "mine-0", uri="mine")
    >>> batch.key, batch.items.column("item_id").to_pylist(), batch.rejects.column("error").to_pylist()
    (Key(shard='mine-0', ordinal=0), ['a', 'b'], ['MissingField'])
    """
    check = checker_of(config.corpus, None)
    builder = BatchBuilder(shard, config.corpus, config.batch_rows, BATCH_BYTES)
    builder.open_file(uri, lambda: 0)
    seen: set[str] = set()
    for record in sorted(
        records, key=lambda record: (check.known_id(record) or "", repr(sorted(record.items(), key=_name)))
    ):
        try:
            item_id, *found = check(record)
            if item_id in seen:
                raise RejectedItemError("DuplicateId", "another record has the same id", item_id)
            seen.add(item_id)
            is_full = builder.add(item_id, "", *found)
        except RejectedItemError as error:
            is_full = builder.reject(error.item_id, "", error.error, error.reason)
        if is_full:
            yield builder.take()
    yield from builder.rest()


def as_mapping(record: Any) -> dict[str, Any]:
    """A record as a dict, rows within it too.

    >>> as_mapping(beam.Row(id="a", of=beam.Row(year=2024)))
    {'id': 'a', 'of': {'year': 2024}}
    """
    fields = record if isinstance(record, Mapping) else record._asdict()
    return {name: as_mapping(value) if hasattr(value, "_asdict") else value for name, value in fields.items()}


def _name(field: tuple[str, Any]) -> str:
    return str(field[0])
