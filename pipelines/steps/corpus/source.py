"""The source of a run, known before the first byte is read: the files of the corpus, the model, the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.run.jobs.beam_options import prepare_filesystems
from pipelines.steps.corpus.corpus_digests import digest_of, read_by_first_rules, settings_digest
from pipelines.steps.corpus.known_spaces import known_spaces
from schemas.config import Config, Corpus
from schemas.formats import holds_records
from transforms.checkpoint import Checkpoint, Snapshot
from transforms.diff.findings import LISTING_SCHEMA
from transforms.encoders.models import Models
from transforms.read import FileRows, Own, SourceFile, list_files
from transforms.read.listing import upgrade
from transforms.read.listing.files import FILE_ROWS, name_of, shown_column
from transforms.read.shard import TO_READ
from transforms.support.storage import filesystem, spill
from transforms.support.storage.parquet_bytes import holds_all_bytes

FOOTERS_AT_ONCE = 16
_DESCRIBED = ["name", "size", "modified", "version", "by_later_rules"]
SOURCE_SCHEMA = pa.schema(
    [
        # One row per file, in corpus order.
        pa.field("name", pa.large_string(), nullable=False),  # in the corpus, unique
        *FILE_ROWS,
        pa.field("there", pa.bool_(), nullable=False),  # false: of the snapshot, and not looked at
        pa.field("kept", pa.bool_(), nullable=False),  # as the snapshot has it: it need not be read
        pa.field("by_later_rules", pa.bool_(), nullable=False),  # read differently from version 0.1.0
    ]
)


@dataclass(frozen=True)
class Source:
    """The corpus of a run, its models and its checkpoint.

    Where it is `scoped`, its files say already which of them are kept. `notes` say what the listing left out. Files
    that are `referring` have records that name files elsewhere: an unchanged one says nothing of those, so it is read
    again.

    Attributes:
        files: table of `SOURCE_SCHEMA`.
    """

    files: pa.Table
    models: Models
    checkpoint: Checkpoint
    settings_digest: str
    scoped: bool = False
    referring: spill.Mask | None = None
    notes: tuple[str, ...] = ()

    @cached_property
    def corpus_digest(self) -> str:
        """Digest of everything that determines rows; files with the same digest need not be read again."""
        return digest_of(self.settings_digest, self.files.select(_DESCRIBED))

    def against(self, base: Snapshot, reread: Iterable[str] = ()) -> Source:
        """The corpus with its files compared with a snapshot: kept are those that did not change.

        Args:
            reread: paths to be read whatever the listing says.
        """
        if base.settings_digest != self.settings_digest:
            return self
        columns = ["name", "size", "modified", "version", "complete"]
        known = base.files.rename_columns({"path": "name"}).select(columns)
        kept = _as_before(self.files, known, "name")
        if self.referring is not None:
            kept &= ~self.referring
        if again := pa.array(sorted(set(reread)), pa.large_string()):
            kept &= ~self._each(lambda files: pc.is_in(files.column("name"), value_set=again))
        if self.any_by_later_rules and read_by_first_rules(base):
            kept &= ~self.files.column("by_later_rules").to_numpy()
        return self._keeping(kept)

    def _each(self, test: Callable[[pa.Table], pa.ChunkedArray]) -> spill.Mask:
        """A test of each file, a piece at a time."""
        return np.concatenate([test(piece).to_numpy() for piece in spill.pieces(self.files)])

    def rereading(self, positions: Iterable[int]) -> Source:
        """The corpus with some kept files to be read anyway."""
        kept = self.files.column("kept").to_numpy().copy()
        kept[list(positions)] = False
        return self._keeping(kept)

    def _keeping(self, kept: spill.Mask) -> Source:
        at = SOURCE_SCHEMA.get_field_index("kept")
        return replace(self, files=self.files.set_column(at, SOURCE_SCHEMA.field("kept"), pa.array(kept)))

    @property
    def refers_elsewhere(self) -> bool:
        """Whether any file has records that name files elsewhere."""
        return self.referring is not None and bool(self.referring.any())

    @property
    def is_read(self) -> pa.ChunkedArray:
        """Whether each file is to be read."""
        return pc.and_not(self.files.column("there"), self.files.column("kept"))

    @cached_property
    def changed(self) -> FileRows:
        """The files to read, in corpus order."""
        return FileRows(spill.filtered(self.files, self.is_read.to_numpy()))

    @property
    def changed_bytes(self) -> int:
        """Bytes of the files to read."""
        return pc.sum(self.changed.table.column("size")).as_py() or 0

    @property
    def listed(self) -> FileRows:
        """All files that exist."""
        return FileRows(spill.filtered(self.files, self.files.column("there").to_numpy()))

    @property
    def any_by_later_rules(self) -> bool:
        """Whether some files are read differently from version 0.1.0."""
        return bool(pc.any(self.files.column("by_later_rules")).as_py())

    @property
    def any_kept(self) -> bool:
        """Whether some files need not be read."""
        return bool(pc.any(self.files.column("kept")).as_py())

    def kept(self, names: pa.ChunkedArray) -> pa.ChunkedArray:
        """Those of some names whose files are kept."""
        wanted = names.cast(pa.large_string())
        found = self._each(lambda files: pc.is_in(files.column("name"), value_set=wanted))
        found &= self.files.column("kept").to_numpy()
        return spill.filtered(self.files.select(["name"]), found).column("name").cast(names.type)

    @property
    def ids_are_paths(self) -> bool:
        """Whether each file to read is an item, and no two of them have one path."""
        formats = {format for format, _ in self.changed.kinds()}
        repeats = (len(rows) for rows, _ in spill.repeats(self.changed.table, "path"))
        return not any(map(holds_records, formats)) and not any(repeats)

    def shown(self, position: int) -> str:
        """A file for people: its uri, or its name where it does not exist."""
        row = self.files.slice(position, 1)
        return (
            filesystem.as_text(name_of(row.column("uri")[0].as_py()))
            if row.column("there")[0].as_py()
            else str(row["name"][0])
        )

    def to_read(self) -> Iterator[pa.Table]:
        """Tables of `transforms.read.shard.TO_READ`."""
        for piece in spill.numbered(self.files, "position"):
            is_read = pc.and_not(piece.column("there"), piece.column("kept"))
            yield piece.select(TO_READ.names).filter(is_read).cast(TO_READ)

    def listing(self) -> Iterator[pa.Table]:
        """Tables of `transforms.diff.findings.LISTING_SCHEMA`, by name."""
        files = spill.numbered(self.files.select(["name", "kept"]), "position")
        tables = (piece.select(LISTING_SCHEMA.names).cast(LISTING_SCHEMA) for piece in files)
        return spill.sorted_pieces(tables, ["name"])


def _as_before(files: pa.Table, before: pa.Table, by: str) -> spill.Mask:
    """Whether each file is what it was before, bool[n].

    It has the size that it had, and the version; if one of the two versions is not known, the modification time.

    Args:
        before: columns size, modified, version and `by`; if it has the column complete, that must be true as well.
    """

    def masks() -> Iterator[pa.ChunkedArray]:
        columns = files.select([by, "size", "modified", "version"])
        for now, then in zip(spill.pieces(columns), spill.beside(columns, before, by), strict=True):
            sizes, times, versions = (
                pc.equal(now.column(name), then.column(name)) for name in ("size", "modified", "version")
            )
            known = pc.and_(*(pc.not_equal(pc.fill_null(side.column("version"), ""), "") for side in (now, then)))
            equal = pc.and_(sizes, pc.if_else(known, versions, times))
            yield pc.and_(equal, then.column("complete")) if "complete" in then.column_names else equal

    return np.concatenate([pc.fill_null(mask, False).to_numpy() for mask in masks()])


def prepare(config: Config, *, writing: bool = True, refit: bool = False) -> Source:
    """Checks all that can be checked without reading the corpus, and lists it.

    Args:
        writing: false if the checkpoint need not be writable.
        refit: leaves out the fitted models that there are.

    Raises:
        ConfigurationError: a glob that matches nothing, a model that can't be found, an option unknown to Beam.
        CheckpointError: a checkpoint that can't be written.
    """
    prepare_filesystems(config)
    notes: list[str] = []
    files = list_files(config.corpus, Own.of(config), notes)
    checkpoint, models = open_checkpoint(config, refit=refit)
    models.chunker(config)
    if writing:
        filesystem.check_writable(checkpoint.root)
    settings = settings_digest(config, models)
    named = _named(files, config.corpus)
    return Source(named, models, checkpoint, settings, referring=_referring(named, config.corpus), notes=tuple(notes))


def open_checkpoint(config: Config, *, refit: bool = False) -> tuple[Checkpoint, Models]:
    """The checkpoint of a configuration's space, and its models.

    A model that is fitted on the corpus is the one that made what is served, else that of the newest snapshot; see
    `transforms.encoders.fitted`.

    Args:
        refit: leaves out the fitted models that there are.

    Raises:
        ConfigurationError: a model that can't be found, an option unknown to Beam.
    """
    prepare_filesystems(config)
    models = Models.of(config, lambda: known_spaces(config), refit=refit)
    return Checkpoint(config.checkpoint, config.name, models.space.id), models


def with_models(source: Source, config: Config, models: Models) -> Source:
    """The source with other models: the same files, another space."""
    checkpoint = Checkpoint(config.checkpoint, config.name, models.space.id)
    return replace(source, models=models, checkpoint=checkpoint, settings_digest=settings_digest(config, models))


def _referring(files: pa.Table, corpus: Corpus) -> spill.Mask | None:
    """Whether each file has records that name files elsewhere, bool[n]; None if none has.

    Parquet files with a column of bytes have none: of those the footer is read to find out.
    """
    media = corpus.media
    if not corpus.refers_elsewhere or media is None:
        return None

    def refers(file: SourceFile) -> bool:
        return file.format != "parquet" or bool(file.compression) or not holds_all_bytes(file.uri, media)

    with ThreadPoolExecutor(FOOTERS_AT_ONCE, thread_name_prefix="footer") as pool:
        return np.fromiter(pool.map(refers, FileRows(files)), bool, files.num_rows)


def _named(listed: FileRows, corpus: Corpus) -> pa.Table:
    """Files as a table of `SOURCE_SCHEMA`."""
    # Two globs may each have a file of the same path; then only their whole uris tell them apart.
    twice = np.zeros(len(listed), bool)
    for rows in spill.repeats(listed.table, "path"):
        twice[np.concatenate(rows)] = True

    def named() -> Iterator[pa.Table]:
        for files in spill.numbered(listed.table):
            same = pa.array(twice[files.column("row").to_numpy()])
            names = shown_column(files.column("path"))
            if same.true_count:
                names = pc.if_else(same, shown_column(files.column("uri")), names)
            yes, no = (pa.array(np.full(files.num_rows, value)) for value in (True, False))
            later = np.fromiter(
                (upgrade.is_read_by_later_rules(file, corpus) for file in FileRows(files)), bool, files.num_rows
            )
            columns = {"name": names, **{name: files.column(name) for name in FILE_ROWS.names}}
            yield pa.table(
                {**columns, "there": yes, "kept": no, "by_later_rules": pa.array(later)}, schema=SOURCE_SCHEMA
            )

    return spill.spilled(named(), SOURCE_SCHEMA)


def settled(source: Source, config: Config) -> spill.Mask:
    """Whether each file is still as it was listed, bool[n], by a second listing."""
    found: spill.Mask = ~source.is_read.to_numpy()
    if not found.all():
        now = list_files(config.corpus, Own.of(config)).table.select(["uri", "size", "modified", "version"])
        found |= _as_before(source.files, now, "uri")
    return found
