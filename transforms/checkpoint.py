"""The checkpoint: immutable Parquet parts of one space of one corpus, rejects, and the snapshots over them.

    <checkpoint>/<name>/<space id>/space.json
    <checkpoint>/<name>/<space id>/parts/*.parquet
    <checkpoint>/<name>/<space id>/rejects/*.parquet
    <checkpoint>/<name>/snapshots/<number>-<snapshot id>.parquet     the highest number is current
    <checkpoint>/<name>/runs/<run id>/report.json

docs/checkpoint.md describes the files for those who read them with other tools.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.errors import CheckpointError, SpaceMismatchError
from schemas.identity import Space, digest
from schemas.records import BATCH_SCHEMA, SCHEMA_VERSION, Key, PartRecord, RejectRecord
from transforms import filesystem
from transforms.embed import EmbeddedBatch

METADATA_KEY = b"vecbeam"
SNAPSHOT_DIGITS = 6


@dataclass(frozen=True)
class Checkpoint:
    """Where the parts of one space of one corpus lie.

    Args:
        folder: the configuration's `checkpoint`.
        name: the configuration's `name`.
        space_id: fingerprint of the space.
    """

    folder: str
    name: str
    space_id: str

    @property
    def root(self) -> str:
        return filesystem.join(self.folder, self.name)

    def part_uri(self, name: str) -> str:
        return filesystem.join(self.root, self.space_id, "parts", name)

    def rejects_uri(self, name: str) -> str:
        return filesystem.join(self.root, self.space_id, "rejects", name)

    def run_uri(self, run_id: str, name: str) -> str:
        return filesystem.join(self.root, "runs", run_id, name)

    def write_space(self, space: Space) -> None:
        """Writes space.json, unless it is there.

        Raises:
            SpaceMismatchError: where another space lies under this fingerprint.
        """
        uri = filesystem.join(self.root, self.space_id, "space.json")
        if filesystem.exists(uri):
            found = json.loads(filesystem.read_bytes(uri))
            if found.get("space") != json.loads(json.dumps(asdict(space))):
                raise SpaceMismatchError(
                    f"{uri} describes another space", "move that folder away; it was changed by hand"
                )
            return
        described = {"schema_version": SCHEMA_VERSION, "space_id": self.space_id, "space": asdict(space)}
        filesystem.write_atomic(uri, json.dumps(described, indent=2).encode())

    # Parts

    def parts(self) -> set[str]:
        """Names of all parts that are there, of this snapshot or of others."""
        files = filesystem.glob(filesystem.join(self.root, self.space_id, "parts", "*.parquet"))
        return {file.uri.rsplit("/", 1)[-1] for file in files}

    def runtime(self, name: str) -> dict[str, str]:
        """What a part was embedded with: engine, device, precision and versions."""
        facts, _ = _footer(self.part_uri(name), self.space_id)
        return {str(key): str(value) for key, value in facts["runtime"].items()}

    def find_part(self, key: Key, name: str) -> PartRecord | None:
        """What the footer of a part says, or None where the part is not there."""
        uri = self.part_uri(name)
        if not filesystem.exists(uri):
            return None
        facts, size = _footer(uri, self.space_id)
        rejects = tuple(
            RejectRecord(key, str(r["name"]), tuple((str(e), int(n)) for e, n in r["errors"])) for r in facts["rejects"]
        )
        counts = {field: int(facts[field]) for field in ("rows", "items", "tokens", "tokens_dropped", "tokens_padded")}
        return PartRecord(key, name, **counts, bytes=size, embedded=False, rejects=rejects)

    def write_part(self, key: Key, name: str, batch: EmbeddedBatch) -> PartRecord:
        """Writes a batch as a part, its rejects first, so that a part that is there has all that belongs to it.

        Raises:
            CheckpointError: where it can't be written; then nothing is there under its name.
        """
        rejects = self.write_rejects(key, "embed", batch.rejects)
        rows = batch.rows
        counts = {
            "rows": rows.num_rows,
            "items": pc.count_distinct(rows.column("item_id")).as_py(),
            "tokens": pc.sum(rows.column("tokens")).as_py() or 0,
            "tokens_dropped": pc.sum(rows.column("tokens_dropped")).as_py() or 0,
            "tokens_padded": batch.tokens_padded,
        }
        facts = {
            "schema_version": SCHEMA_VERSION,
            "space_id": self.space_id,
            "shard": key.shard,
            "ordinal": key.ordinal,
            **counts,
            "rejects": [{"name": r.name, "errors": r.errors} for r in rejects],
            "runtime": dict(batch.runtime),
        }
        data = _parquet(rows, facts)
        filesystem.write_atomic(self.part_uri(name), data)
        return PartRecord(key, name, **counts, bytes=len(data), embedded=True, rejects=rejects)

    def read_part(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of a part, or some of their columns.

        Raises:
            CheckpointError: where it is missing or damaged.
        """
        return _read(self.part_uri(name), columns)

    # Rejects

    def write_rejects(self, key: Key, step: str, rejects: pa.Table) -> tuple[RejectRecord, ...]:
        """Writes the rejects of one step of a batch, unless they are there; returns its record, if any."""
        if rejects.num_rows == 0:
            return ()
        name = f"{key.shard}-{key.ordinal:05d}-{step}-{digest(rejects.to_pylist())}.parquet"
        uri = self.rejects_uri(name)
        if not filesystem.exists(uri):
            facts = {"schema_version": SCHEMA_VERSION, "space_id": self.space_id, "rows": rejects.num_rows}
            filesystem.write_atomic(uri, _parquet(rejects, facts))
        counts = pc.value_counts(rejects.column("error")).to_pylist()
        return (RejectRecord(key, name, tuple(sorted((str(c["values"]), int(c["counts"])) for c in counts))),)

    def read_rejects(self, name: str) -> pa.Table:
        """A file of rejects as a table of `schemas.records.REJECT_SCHEMA`."""
        return _read(self.rejects_uri(name), None)

    # Snapshots

    def snapshots(self) -> list[str]:
        """Names of the snapshots, oldest first."""
        files = filesystem.glob(filesystem.join(self.root, "snapshots", "*.parquet"))
        return sorted(file.uri.rsplit("/", 1)[-1] for file in files)

    def current_snapshot(self) -> Snapshot | None:
        """The newest snapshot, or None before the first run has ended."""
        names = self.snapshots()
        return self.read_snapshot(names[-1]) if names else None

    def read_snapshot(self, name: str) -> Snapshot:
        """A snapshot by its file name.

        Raises:
            CheckpointError: where it is damaged or of a newer format.
        """
        uri = filesystem.join(self.root, "snapshots", name)
        table = _read(uri, None)
        facts = _facts(table.schema.metadata, uri)
        return Snapshot(name, str(facts["snapshot_id"]), str(facts["space_id"]), str(facts["corpus_digest"]), table)

    def write_snapshot(self, batches: pa.Table, corpus_digest: str) -> Snapshot:
        """Makes batches the current snapshot, unless they are already.

        Args:
            batches: table of `schemas.records.BATCH_SCHEMA` in corpus order.
            corpus_digest: of the listing and of the configuration that the batches follow from.
        """
        # What a run did itself (embedded) is no part of what the corpus is.
        embedded = pa.array([False] * batches.num_rows)
        batches = batches.set_column(
            batches.schema.get_field_index("embedded"), BATCH_SCHEMA.field("embedded"), embedded
        )
        current = self.current_snapshot()
        identity = [self.space_id, batches.column("part").to_pylist(), batches.column("rejects").to_pylist()]
        snapshot_id = digest(identity)
        if current and (current.id, current.corpus_digest, current.space_id) == (
            snapshot_id,
            corpus_digest,
            self.space_id,
        ):
            return current
        number = int(current.name[:SNAPSHOT_DIGITS]) + 1 if current else 1
        name = f"{number:0{SNAPSHOT_DIGITS}d}-{snapshot_id}.parquet"
        facts = {
            "schema_version": SCHEMA_VERSION,
            "snapshot_id": snapshot_id,
            "space_id": self.space_id,
            "corpus_digest": corpus_digest,
        }
        filesystem.write_atomic(filesystem.join(self.root, "snapshots", name), _parquet(batches, facts))
        return Snapshot(name, snapshot_id, self.space_id, corpus_digest, batches)


@dataclass(frozen=True)
class Snapshot:
    """Which parts are the corpus as of one run.

    Attributes:
        name: file name below snapshots/.
        id: digest of its parts and rejects.
        batches: table of `schemas.records.BATCH_SCHEMA`, in corpus order.
    """

    name: str
    id: str
    space_id: str
    corpus_digest: str
    batches: pa.Table

    @property
    def parts(self) -> list[str]:
        """Names of the parts that hold rows, in corpus order."""
        return [row["part"] for row in self.batches.select(["part", "rows"]).to_pylist() if row["rows"]]

    def total(self, column: str) -> int:
        """Sum of a column over all batches."""
        return int(pc.sum(self.batches.column(column)).as_py() or 0)

    def errors(self) -> dict[str, int]:
        """Rejects by error."""
        counts: dict[str, int] = {}
        for batch in self.batches.column("errors").to_pylist():
            for entry in batch:
                counts[entry["error"]] = counts.get(entry["error"], 0) + entry["count"]
        return dict(sorted(counts.items()))

    def rejects(self) -> list[str]:
        """Names of the files of rejects, in corpus order."""
        return [name for names in self.batches.column("rejects").to_pylist() for name in names]


def part_name(key: Key, digest_of_rows: str) -> str:
    """File name of a part: its key, and a digest of its space and of all that its rows hold but vectors.

    >>> part_name(Key("docs-0000", 3), "00ff00ff00ff00ff")
    'docs-0000-00003-00ff00ff00ff00ff.parquet'
    """
    return f"{key.shard}-{key.ordinal:05d}-{digest_of_rows}.parquet"


def _parquet(table: pa.Table, facts: Mapping[str, Any]) -> bytes:
    metadata = {METADATA_KEY: json.dumps(facts).encode()}
    buffer = io.BytesIO()
    dictionary = [name for name in table.column_names if name in ("uri", "error", "step")]
    pq.write_table(
        table.replace_schema_metadata(metadata),
        buffer,
        compression="zstd",
        use_dictionary=dictionary or False,
        row_group_size=65536,
    )
    return buffer.getvalue()


def write_table(uri: str, table: pa.Table) -> None:
    """Writes a small table of the run's own bookkeeping as a Parquet file."""
    filesystem.write_atomic(uri, _parquet(table, {"schema_version": SCHEMA_VERSION}))


def read_table(uri: str) -> pa.Table:
    """A table written by `write_table`."""
    return _read(uri, None)


def _read(uri: str, columns: Sequence[str] | None) -> pa.Table:
    try:
        with filesystem.open_binary(uri) as stream:
            return pq.ParquetFile(stream).read(columns=columns)
    except (FileNotFoundError, pa.ArrowException, OSError) as error:
        raise _damaged(uri, error) from error


def _footer(uri: str, space_id: str) -> tuple[dict[str, Any], int]:
    try:
        with filesystem.open_binary(uri) as stream:
            schema = pq.read_schema(stream)
            size = stream.seek(0, io.SEEK_END)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(uri, error) from error
    facts = _facts(schema.metadata, uri)
    if facts["space_id"] != space_id:
        raise SpaceMismatchError(
            f"{uri} is of space {facts['space_id']}, its folder of space {space_id}", "move the file back where it was"
        )
    return facts, size


def _facts(metadata: Mapping[bytes, bytes] | None, uri: str) -> dict[str, Any]:
    if not metadata or METADATA_KEY not in metadata:
        raise CheckpointError(f"{uri} is no file of vecbeam", "move it out of the checkpoint")
    facts: dict[str, Any] = json.loads(metadata[METADATA_KEY])
    if facts["schema_version"] > SCHEMA_VERSION:
        raise CheckpointError(
            f"{uri} is of schema version {facts['schema_version']}, this vecbeam reads up to {SCHEMA_VERSION}",
            "install the vecbeam that wrote it, or a newer one",
        )
    return facts


def _damaged(uri: str, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"can't read {uri}: {type(error).__name__}: {error}", "delete that file and run the same command again"
    )


def iterate_parts(
    checkpoint: Checkpoint, parts: Sequence[str], columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """The tables of some parts, one after the other."""
    for name in parts:
        yield checkpoint.read_part(name, columns)
