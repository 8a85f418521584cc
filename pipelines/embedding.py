"""Corpus to snapshot: the survey, the fused stage that embeds, and the snapshot over its parts."""

from __future__ import annotations

from dataclasses import dataclass

import apache_beam as beam
import pyarrow as pa

from pipelines import beam_runner
from pipelines.session import Phase, Session
from schemas.config import Config
from schemas.errors import CheckpointError, RejectsError
from schemas.identity import digest
from schemas.records import SCHEMA_VERSION
from transforms import filesystem
from transforms.batches import EmbedShards, ShardWork, WriteBatchRecords
from transforms.checkpoint import Checkpoint, Snapshot, read_table
from transforms.chunk import Chunker
from transforms.encoders import TextModel, resolve
from transforms.read import Shard, SourceFile, list_corpus, plan_shards
from transforms.read.listing import RECORD_FORMATS
from transforms.survey import FindDuplicates, drops_by_shard, refuse_duplicates


@dataclass(frozen=True)
class Source:
    """What a run is about, known before the first byte is read: files, model and checkpoint."""

    files: list[SourceFile]
    model: TextModel
    checkpoint: Checkpoint
    corpus_digest: str


def prepare(config: Config) -> Source:
    """Checks all that can be checked without reading the corpus.

    Raises:
        ConfigurationError: a glob that matches nothing, a model that can't be found, an option unknown to Beam.
        CheckpointError: a checkpoint that can't be written.
    """
    beam_runner.prepare_filesystems(config)
    files = list_corpus(config.corpus)
    model = resolve(config.encoder)
    Chunker(config, model)
    checkpoint = Checkpoint(config.checkpoint, config.name, model.space.id)
    filesystem.check_writable(checkpoint.root)
    return Source(files, model, checkpoint, _corpus_digest(config, files, model))


def _corpus_digest(config: Config, files: list[SourceFile], model: TextModel) -> str:
    """Of all that the batches follow from; what has the same digest need not be read again."""
    return digest(
        [
            SCHEMA_VERSION,
            model.space.id,
            config.corpus.model_dump(exclude={"paths": True, "metadata": {"__all__": {"default"}}}),
            config.chunk.model_dump() if config.chunk else False,
            config.batch_rows,
            config.collection.id_max_bytes,
            [(file.path, file.size, file.modified, file.format) for file in files],
        ],
        32,
    )


def bring_up_to_date(session: Session, source: Source) -> Snapshot:
    """Embeds what the checkpoint lacks and returns the snapshot of the corpus as it is now.

    Nothing is read where the corpus and the configuration are those of the current snapshot.

    Raises:
        CorpusError: two items with one id, where the configuration says `on_duplicate: error`.
        RejectsError: where not one item could be embedded.
    """
    current = source.checkpoint.current_snapshot()
    same = current and (current.corpus_digest, current.space_id) == (source.corpus_digest, source.checkpoint.space_id)
    if current and same and not set(current.parts) - source.checkpoint.parts():
        session.progress.note(f"unchanged since snapshot {current.name}: nothing to read or embed")
        _report(session, source.checkpoint, current.batches, read=False)
        return current
    filesystem.sweep_temporaries(source.checkpoint.root)
    source.checkpoint.write_space(source.model.space)
    shards = plan_shards(source.files, session.config.corpus)
    work = _survey(session, shards)
    batches = _embed(session, source, work)
    _report(session, source.checkpoint, batches, read=True)
    snapshot = source.checkpoint.write_snapshot(batches, source.corpus_digest)
    session.report.snapshot = snapshot.id
    if not snapshot.parts:
        raise RejectsError(
            f"not one item could be embedded: {session.report.items.rejected} rejects ({_named(snapshot.errors())})",
            f"read the files below {source.checkpoint.rejects_uri('')} and mend the corpus, or corpus.id and content",
        )
    return snapshot


def _survey(session: Session, shards: list[Shard]) -> list[ShardWork]:
    records = [shard for shard in shards if shard.files[0].format in RECORD_FORMATS]
    if not records and _paths_are_unique(shards):
        return [ShardWork(shard, {}) for shard in shards]
    session.progress.step("survey", counter="items_surveyed")
    uri = session.uri("duplicates.parquet")

    def build(pipeline: beam.Pipeline) -> None:
        _ = (
            pipeline
            | "Shards" >> beam.Create(shards)
            | "Spread" >> beam.Reshuffle()
            | "FindDuplicates" >> FindDuplicates(session.config, uri)
        )

    with Phase(session, "survey"):
        counters = beam_runner.run(session.config, build)
    session.add_counters(counters)
    duplicates = read_table(uri)
    filesystem.delete([uri])
    if session.config.corpus.on_duplicate == "error":
        refuse_duplicates(duplicates)
    drops = drops_by_shard(duplicates)
    return [ShardWork(shard, drops.get(shard.index, {})) for shard in shards]


def _paths_are_unique(shards: list[Shard]) -> bool:
    paths = [file.path for shard in shards for file in shard.files]
    return len(paths) == len(set(paths))


def _embed(session: Session, source: Source, work: list[ShardWork]) -> pa.Table:
    session.progress.step("embed", total=session.counter("items_surveyed") or len(source.files))
    uri = session.uri("batches.parquet")

    def build(pipeline: beam.Pipeline) -> None:
        _ = (
            pipeline
            | "Shards" >> beam.Create(work)
            | "Spread" >> beam.Reshuffle()
            | "EmbedShards" >> EmbedShards(session.config, source.model, source.checkpoint)
            | "WriteRecords" >> WriteBatchRecords(uri)
        )

    session.add_counters(beam_runner.run(session.config, build))
    if not filesystem.exists(uri):
        raise RejectsError("the corpus holds no item at all", "check the files that corpus.paths names")
    batches = read_table(uri)
    # The snapshot holds the same rows for good.
    filesystem.delete([uri])
    return _in_corpus_order(batches, work)


def _in_corpus_order(batches: pa.Table, work: list[ShardWork]) -> pa.Table:
    index = {item.shard.name: item.shard.index for item in work}
    if len(index) != len(work):
        raise CheckpointError("two shards have one name", "report this with the list of files")
    positions = pa.array([index[name] for name in batches.column("shard").to_pylist()], pa.int64())
    ordered = batches.append_column("position", positions).sort_by(
        [("position", "ascending"), ("ordinal", "ascending")]
    )
    return ordered.drop_columns(["position"])


def _report(session: Session, checkpoint: Checkpoint, batches: pa.Table, *, read: bool) -> None:
    report = session.report
    rows = batches.select(
        ["part", "embedded", "items", "rows", "tokens", "tokens_dropped", "tokens_padded", "bytes"]
    ).to_pylist()
    done = [row for row in rows if row["embedded"]] if read else []
    report.items.read = sum(batches.column("items_read").to_pylist())
    report.items.new = sum(row["items"] for row in done)
    report.items.unchanged = sum(row["items"] for row in rows) - report.items.new
    report.rejects = _errors(batches)
    report.items.rejected = sum(report.rejects.values())
    report.chunks.embedded = sum(row["rows"] for row in done)
    report.chunks.reused = sum(row["rows"] for row in rows) - report.chunks.embedded
    report.tokens.embedded = sum(row["tokens"] for row in done)
    report.tokens.padded = sum(row["tokens_padded"] for row in done)
    report.tokens.dropped = sum(row["tokens_dropped"] for row in rows)
    report.bytes.read = sum(batches.column("bytes_read").to_pylist()) if read else 0
    report.bytes.checkpoint = sum(row["bytes"] for row in rows)
    if done:
        first = next(row["part"] for row in done)
        report.runtime = checkpoint.runtime(first)


def _errors(batches: pa.Table) -> dict[str, int]:
    return Snapshot("", "", "", "", batches).errors()


def _named(errors: dict[str, int]) -> str:
    return ", ".join(f"{count} {error}" for error, count in errors.items()) or "none"
