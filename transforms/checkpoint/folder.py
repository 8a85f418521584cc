"""The folder of a checkpoint: where spaces, parts and rejects are, and how each is written and found again."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from schemas.canaries import without_canaries
from schemas.config import Config
from schemas.errors import NEW_VERSION, SpaceMismatchError
from schemas.identity import digest
from schemas.layout import Space
from schemas.records import ITEM_SCHEMA, SCHEMA_VERSION, Key, PartRecord, RejectRecord
from transforms.checkpoint.embedded import EmbeddedBatch
from transforms.checkpoint.snapshot import LivePart
from transforms.checkpoint.snapshot_folder import SnapshotFolder, space_in
from transforms.support.amounts import amounts_of
from transforms.support.storage import filesystem
from transforms.support.storage.parquet_file import (
    facts_of,
    null_columns,
    parquet,
    read_footer,
    read_schema,
    read_table,
)
from transforms.support.storage.watched_file import damaged, opened

_COUNTS = ("rows", "items", "tokens", "tokens_dropped", "tokens_padded")


@dataclass(frozen=True)
class Checkpoint(SnapshotFolder):
    """The place of the parts of one space of one corpus, and of the snapshots over them.

    Args:
        folder: the configuration's `checkpoint`.
        name: the configuration's `name`.
        space_id: fingerprint of the space.
    """

    def part_uri(self, name: str) -> str:
        return filesystem.join(self.root, self.space_id, "parts", name)

    def items_uri(self, name: str) -> str:
        return filesystem.join(self.root, self.space_id, "items", name)

    def rejects_uri(self, name: str) -> str:
        return filesystem.join(self.root, self.space_id, "rejects", name)

    def attempt_uri(self, name: str) -> str:
        """Uri of the marker of a part that a worker is embedding; see `transforms.embed.attempts`."""
        return filesystem.join(self.attempts_folder, f"{name.removesuffix('.parquet')}.json")

    @property
    def attempts_folder(self) -> str:
        return filesystem.join(self.root, self.space_id, "attempts")

    @property
    def sample_uri(self) -> str:
        """Uri of the texts from which int8 determines its ranges; a JSON file next to it has the loss."""
        return filesystem.join(self.root, self.space_id, "int8-sample.parquet")

    def index_choice_uri(self, identity: str) -> str:
        """Uri of the index that was chosen for a snapshot and a promise, whose digest names the file."""
        return filesystem.join(self.root, self.space_id, f"index-choice-{identity}.json")

    def write_space(self, space: Space) -> None:
        """Writes space.json, unless it exists.

        Raises:
            SpaceMismatchError: if the fingerprint's folder describes another space.
        """
        uri = filesystem.join(self.root, self.space_id, "space.json")
        with contextlib.suppress(FileNotFoundError):
            found = json.loads(filesystem.read_with_facts(uri)[0])
            recorded = Space(found.get("space") or {})
            if recorded.id == space.id and (drift := space.drift(recorded)):
                raise SpaceMismatchError(f"the model has changed since {uri} was written: {drift}", NEW_VERSION)
            if without_canaries(recorded.facts) != without_canaries(json.loads(space.as_json())):
                raise SpaceMismatchError(
                    f"{uri} describes another space", "move that folder away; someone changed it manually"
                )
            return
        described = {"schema_version": SCHEMA_VERSION, "space_id": self.space_id, "space": dict(space.facts)}
        filesystem.write_atomic(uri, json.dumps(described, indent=2).encode())

    def read_space(self) -> Space:
        """The space that space.json describes.

        Raises:
            CheckpointError: if it is missing or damaged.
        """
        uri = filesystem.join(self.root, self.space_id, "space.json")
        with opened(uri) as stream:
            data = stream.read()
        try:
            space = Space(dict(json.loads(data)["space"]))
            if space.id != self.space_id:
                raise ValueError(f"it describes the space {space.id}")
            return space
        except (ValueError, KeyError, TypeError) as error:
            raise damaged(uri, error) from error

    def spaces(self) -> Iterator[Space]:
        """The spaces of the snapshots, that of the newest snapshot first. One whose space.json is gone is left out."""
        seen: set[str] = set()
        for name in reversed(self.snapshots()):
            if space_in(name) in seen:
                continue
            seen.add(space_in(name))
            uri = filesystem.join(self.root, "snapshots", name)
            space_id = str(facts_of(read_schema(uri).metadata, uri)["space_id"])
            if filesystem.exists(filesystem.join(self.root, space_id, "space.json")):
                yield replace(self, space_id=space_id).read_space()

    # Parts

    def part_sizes(self) -> dict[str, int]:
        """Size in bytes of each part that has its file of items, of this snapshot or of others, by name."""
        sizes = self._listed("parts")
        return {name: sizes[name] for name in sizes.keys() & self._listed("items").keys()}

    def _listed(self, folder: str) -> dict[str, int]:
        files = filesystem.list_files(filesystem.join(self.root, self.space_id, folder), "*.parquet")
        return {file.uri.rsplit("/", 1)[-1]: file.size for file in files}

    def runtime(self, name: str) -> dict[str, str]:
        """Engine, device, precision and versions that embedded a part."""
        facts, _ = read_footer(self.part_uri(name), self.space_id)
        return {str(key): str(value) for key, value in facts["runtime"].items()}

    def find_part(self, key: Key, name: str) -> PartRecord | None:
        """The facts in the footer of a part, or None if it or its file of items does not exist."""
        uri = self.part_uri(name)
        if not (filesystem.exists(uri) and filesystem.exists(self.items_uri(name))):
            return None
        facts, size = read_footer(uri, self.space_id)
        rejects = tuple(
            RejectRecord(key, str(r["name"]), tuple((str(u), str(e), int(n)) for u, e, n in r["errors"]))
            for r in facts["rejects"]
        )
        rows, items, tokens, dropped, padded = (int(facts[fact]) for fact in _COUNTS)
        return PartRecord(key, name, rows, items, tokens, dropped, padded, size, embedded=False, rejects=rejects)

    def write_part(self, key: Key, name: str, batch: EmbeddedBatch, items: pa.Table) -> PartRecord:
        """Writes a batch as a part; what belongs to it first, so that an existing part is complete.

        Args:
            items: table of `schemas.records.ITEM_SCHEMA`, in the order of the rows.

        Raises:
            CheckpointError: if it can't be written; then nothing has its name.
        """
        rejects = self.write_rejects(key, "embed", batch.rejects)
        tokens, dropped = (int(amount.sum()) for amount in amounts_of(batch.rows))
        counts = (batch.rows.num_rows, items.num_rows, tokens, dropped, batch.tokens_padded)
        facts = {
            "schema_version": SCHEMA_VERSION,
            "space_id": self.space_id,
            "shard": key.shard,
            "ordinal": key.ordinal,
            **dict(zip(_COUNTS, counts, strict=True)),
            "rejects": [{"name": r.name, "errors": r.errors} for r in rejects],
            "runtime": dict(batch.runtime),
        }
        filesystem.write_atomic(self.items_uri(name), parquet(items, {**facts, "runtime": {}, "rejects": []}))
        data = parquet(batch.rows, facts)
        filesystem.write_atomic(self.part_uri(name), data)
        return PartRecord(key, name, *counts, len(data), embedded=True, rejects=rejects)

    def read_part(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows of a part, or some of their columns.

        Raises:
            CheckpointError: if it is missing or damaged.
        """
        return read_table(self.part_uri(name), columns)

    def null_columns(self, name: str) -> set[str]:
        """Names of the columns of a part that are null in each of its rows, by its footer.

        Raises:
            CheckpointError: if it is missing or damaged.
        """
        return null_columns(self.part_uri(name))

    def part_schema(self, name: str) -> pa.Schema:
        """The columns of a part."""
        return read_schema(self.part_uri(name))

    def part_columns(self, name: str) -> list[str]:
        """Names of the columns of a part."""
        names: list[str] = self.part_schema(name).names
        return names

    def read_live(self, part: LivePart, columns: Sequence[str] | None = None) -> pa.Table:
        """The live rows of a part, or some of their columns."""
        return part.keep(self.read_part(part.name, columns))

    def read_items(self, name: str) -> pa.Table:
        """The items of a part, a table of `schemas.records.ITEM_SCHEMA`."""
        return read_table(self.items_uri(name)).cast(ITEM_SCHEMA)

    def delete_parts(self, names: Sequence[str]) -> None:
        """Deletes parts, and their files of items and of thumbnails."""
        folders = ("parts", "items", "thumbnails")
        filesystem.delete(
            [filesystem.join(self.root, self.space_id, folder, name) for name in names for folder in folders]
        )

    # Rejects

    def write_rejects(self, key: Key, step: str, rejects: pa.Table) -> tuple[RejectRecord, ...]:
        """Writes the rejects of one step of a batch, unless they exist; returns its record, if any."""
        if rejects.num_rows == 0:
            return ()
        name = f"{key.shard}-{key.ordinal:05d}-{step}-{digest(rejects.to_pylist())}.parquet"
        uri = self.rejects_uri(name)
        if not filesystem.exists(uri):
            facts = {"schema_version": SCHEMA_VERSION, "space_id": self.space_id, "rows": rejects.num_rows}
            filesystem.write_atomic(uri, parquet(rejects, facts))
        counts = Counter(zip(rejects.column("uri").to_pylist(), rejects.column("error").to_pylist(), strict=True))
        return (RejectRecord(key, name, tuple((uri, error, count) for (uri, error), count in sorted(counts.items()))),)

    def read_rejects(self, name: str) -> pa.Table:
        """A file of rejects as a table of `schemas.records.REJECT_SCHEMA`."""
        return read_table(self.rejects_uri(name))


def spaces_of(config: Config) -> Iterator[Space]:
    """See `Checkpoint.spaces`."""
    return Checkpoint(config.checkpoint, config.name, "").spaces()


def part_name(key: Key, digest_of_rows: str) -> str:
    """File name of a part: its key, and a digest of its space and of all columns of its rows except vectors.

    >>> part_name(Key("docs-0000", 3), "00ff00ff00ff00ff")
    'docs-0000-00003-00ff00ff00ff00ff.parquet'
    """
    return f"{key.shard}-{key.ordinal:05d}-{digest_of_rows}.parquet"


def part_key(name: str) -> Key:
    """The key of a part, by its file name.

    >>> part_key("docs-0000-00003-00ff00ff00ff00ff.parquet")
    Key(shard='docs-0000', ordinal=3)
    """
    shard, ordinal, _ = name.rsplit("-", 2)
    return Key(shard, int(ordinal))


def iterate_parts(
    checkpoint: Checkpoint, parts: Sequence[LivePart], columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """The live rows of some parts, one part after the other."""
    for part in parts:
        yield checkpoint.read_live(part, columns)
