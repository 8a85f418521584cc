"""Parts to a collection: upserted part by part, each acknowledged in a ledger, so that a killed load can resume.

The ledger is `<checkpoint>/<name>/loads/<collection>-<load id>/<part>.json`, one small file per part, written after
Milvus has acknowledged all its rows. The load id is in the collection's properties too: a collection that was dropped
and made again has another one, and starts with an empty ledger.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam
import pyarrow as pa

from schemas.config import Collection, Config
from schemas.milvus import CollectionSpec
from schemas.records import Key
from transforms import milvus
from transforms.checkpoint import Checkpoint, LivePart, spaces_of
from transforms.encoders.models import Described, configured
from transforms.load.specification import collection_spec
from transforms.load.writers import DealToWriters, writing
from transforms.support import metrics, stop
from transforms.support.memory import give_back
from transforms.support.storage import filesystem
from transforms.support.versioned_dofn import VersionedDoFn


@dataclass(frozen=True)
class Ledger:
    """Which parts a collection has acknowledged."""

    checkpoint: Checkpoint
    collection: str
    load_id: str

    @property
    def folder(self) -> str:
        return filesystem.join(self.checkpoint.root, "loads", f"{self.collection}-{self.load_id}")

    def acknowledged(self) -> set[str]:
        """Names of the parts that are in the collection."""
        files = filesystem.list_files(self.folder, "*.json")
        return {file.uri.rsplit("/", 1)[-1].removesuffix(".json") for file in files}

    def acknowledge(self, part: str, rows: int) -> None:
        """Records that all rows of a part are in the collection."""
        filesystem.write_atomic(filesystem.join(self.folder, f"{part}.json"), json.dumps({"rows": rows}).encode())

    def forget(self, parts: Sequence[str]) -> None:
        """Removes parts, so that they are loaded again."""
        filesystem.delete([filesystem.join(self.folder, f"{part}.json") for part in parts])

    @property
    def import_broke_off(self) -> bool:
        """Whether an import began and did not end: see `transforms.load.import_jobs`."""
        return bool(filesystem.list_files(self.folder, "*.job")) or self.has_import_mark

    @property
    def has_import_mark(self) -> bool:
        """Whether release 0.1.0 began an import: it noted no jobs."""
        return filesystem.exists(self._import_mark)

    @property
    def _import_mark(self) -> str:
        return filesystem.join(self.folder, "import.begun")

    def close(self) -> None:
        """Removes the ledger of a collection that is complete, or gone."""
        filesystem.delete_folder(self.folder)
        filesystem.remove_empty_folders(self.folder.rpartition("/")[0], self.checkpoint.root)


@dataclass(eq=False)
class LoadParts(beam.PTransform):  # type: ignore[misc]
    """PCollection of `LivePart` -> PCollection of (part name, rows), each after its acknowledgement.

    At most `writers` parts are written at once, over all workers. A part that the ledger has is left out, so that a
    bundle that Beam retries continues where it failed.

    Attributes:
        config: the collection's section of the configuration.
        spec: the collection.
        ledger: records acknowledgements.
        flush_bytes: see `transforms.milvus.flush_step`.
        writers: most parts at once; by default those of the configuration.
    """

    config: Collection
    spec: CollectionSpec
    ledger: Ledger
    flush_bytes: int = 0
    writers: int | None = None

    def expand(self, parts: beam.PCollection) -> beam.PCollection:
        deal = DealToWriters(self.writers or self.config.most_writers, _name_of)
        return parts | "Writers" >> deal | "Upsert" >> beam.ParDo(_Upsert(self))


def _name_of(part: LivePart) -> str:
    return part.name


class _Upsert(VersionedDoFn):
    def __init__(self, given: LoadParts) -> None:
        self._config, self._spec, self._ledger = given.config, given.spec, given.ledger
        self._flush_bytes = given.flush_bytes
        self._unflushed = 0
        self._connection: Any = None

    def setup(self) -> None:
        self._connection = milvus.connect(self._config)

    def process(self, group: tuple[int, Iterable[LivePart]]) -> Iterator[tuple[str, int]]:
        acknowledged = self._ledger.acknowledged()
        for part in group[1]:
            if part.name not in acknowledged:
                yield from self._load(part)

    def _load(self, part: LivePart) -> Iterator[tuple[str, int]]:
        stop.check()
        rows = self._ledger.checkpoint.read_live(part)
        with metrics.timed("load"):
            loaded = milvus.upsert(self._connection, self._spec, rows)
            self._flush(rows.nbytes)
        self._ledger.acknowledge(part.name, loaded)
        metrics.count("chunks_loaded", loaded)
        yield part.name, loaded

    def _flush(self, wrote: int) -> None:
        self._unflushed += wrote
        if self._flush_bytes and self._unflushed >= self._flush_bytes:
            milvus.flush(self._connection, self._spec.name)
            self._unflushed = 0
            give_back()

    def teardown(self) -> None:
        if self._connection is not None:
            self._connection.close()


@dataclass(eq=False)
class UpsertParts(beam.PTransform):  # type: ignore[misc]
    """PCollection of `(Key, rows)` -> the same, each once Milvus has acknowledged its rows.

    It creates a missing collection, with the fields of the configuration. It builds no index and sets no
    alias: the caller does so after the last row. An upsert that Beam retries writes the same rows once
    more. Milvus Lite supports one worker process. At most `collection.writers` tables are written at once in each
    process; no row is shuffled, so a runner with many workers has that many writers in each.

    Attributes:
        config: a configuration, or the path of its file.
        collection: the collection's name, not an alias; one of another space or other fields is refused.
        models: what the encoders are; by default found when the pipeline is built.
    """

    config: Config | str
    collection: str
    models: Described | None = None

    def expand(self, rows: beam.PCollection) -> beam.PCollection:
        config, (layout, _) = configured(self.config, self.models, spaces_of)
        # An alias that no collection has: `check_free` needs to distinguish the two.
        spec = replace(collection_spec(config, None, layout), name=self.collection, alias=f"{self.collection}_alias")
        return rows | "Upsert" >> beam.ParDo(_UpsertRows(config.collection, spec))


class _UpsertRows(VersionedDoFn):
    def __init__(self, config: Collection, spec: CollectionSpec) -> None:
        self._config, self._spec = config, spec
        self._connection: milvus.Milvus | None = None

    def setup(self) -> None:
        self._connection = milvus.connect(self._config)
        milvus.check_free(self._connection, self._spec)
        if not milvus.exists(self._connection, self._spec.name):
            milvus.create(self._connection, self._spec, self._spec.name)

    def process(self, batch: tuple[Key, pa.Table]) -> Iterator[tuple[Key, pa.Table]]:
        assert self._connection is not None
        stop.check()
        with writing(self._config), metrics.timed("load"):
            loaded = milvus.upsert(self._connection, self._spec, batch[1])
        metrics.count("chunks_loaded", loaded)
        yield batch

    def teardown(self) -> None:
        if self._connection is not None:
            self._connection.close()
