"""What a run is about, known before the first byte is read: the files of the corpus, the model and the checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from pydantic import BaseModel

from pipelines import beam_runner
from schemas.config import Chunk, Config, Corpus
from schemas.globs import Glob
from schemas.identity import digest
from schemas.records import SCHEMA_VERSION
from transforms import filesystem
from transforms.checkpoint import Checkpoint, Snapshot
from transforms.chunk import Chunker
from transforms.diff.findings import LISTING_SCHEMA
from transforms.encoders import TextModel, resolve
from transforms.read import Own, SourceFile, list_corpus, rules
from transforms.read.items import partitions_of

_TOUCHES_NO_ROW = {"paths", "shard_bytes", "max_deleted"}
_ALWAYS_IN_DIGEST = {
    *("format", "id", "content", "metadata", "on_duplicate"),
    *("type", "max_bytes"),
    *("max_tokens", "overlap_tokens"),
}
"""Keys of version 0.1.0. Each later key counts only where it is set, so that an upgrade changes no digest."""


@dataclass(frozen=True)
class Entry:
    """A file of the corpus.

    Attributes:
        path: its name in the corpus, unique.
        size: in bytes.
        modified: seconds since the epoch.
        source: what to read; None where it is not looked at.
        kept: whether it is as the snapshot has it, and need not be read.
    """

    path: str
    size: int
    modified: float
    source: SourceFile | None
    kept: bool = False


@dataclass(frozen=True)
class Source:
    """The corpus of a run, its model and its checkpoint.

    Where it is `scoped`, its entries say already which files are kept. `notes` say what the listing left out. `anew`
    are the paths of the files that are read otherwise than version 0.1.0 read them.
    """

    entries: list[Entry]
    model: TextModel
    checkpoint: Checkpoint
    settings_digest: str
    scoped: bool = False
    notes: tuple[str, ...] = ()
    anew: frozenset[str] = frozenset()

    @property
    def corpus_digest(self) -> str:
        """Of all that the rows follow from; what has the same digest need not be read again."""
        listing = [
            (entry.path, entry.size, entry.modified, *((rules.RULES,) if entry.path in self.anew else ()))
            for entry in self.entries
        ]
        return digest([self.settings_digest, listing], 32)

    def against(self, base: Snapshot, reread: Iterable[str] = ()) -> Source:
        """The corpus with its files compared with a snapshot: kept are those that did not change.

        Args:
            reread: paths to be read whatever the listing says.
        """
        if base.settings_digest != self.settings_digest:
            return self
        known = {
            path: (size, modified)
            for path, size, modified, complete in zip(
                *(base.files.column(name).to_pylist() for name in ("path", "size", "modified", "complete")), strict=True
            )
            if complete
        }
        read = set(reread)
        if self.anew and read_by_first_rules(base):
            read |= self.anew
        entries = [
            replace(entry, kept=entry.path not in read and known.get(entry.path) == (entry.size, entry.modified))
            for entry in self.entries
        ]
        return replace(self, entries=entries)

    def rereading(self, positions: Iterable[int]) -> Source:
        """The corpus with some kept files to be read all the same."""
        read = set(positions)
        entries = [replace(entry, kept=entry.kept and at not in read) for at, entry in enumerate(self.entries)]
        return replace(self, entries=entries)

    @property
    def changed(self) -> list[SourceFile]:
        """The files to read, in corpus order."""
        return [entry.source for entry in self.entries if entry.source is not None and not entry.kept]

    def listing(self) -> pa.Table:
        """Table of `transforms.diff.findings.LISTING_SCHEMA`."""
        return pa.table(
            {
                "uri": [entry.source.shown if entry.source else "" for entry in self.entries],
                "path": [entry.path for entry in self.entries],
                "kept": [entry.kept for entry in self.entries],
            },
            schema=LISTING_SCHEMA,
        )


def read_by_first_rules(base: Snapshot) -> bool:
    """Whether a snapshot is of version 0.1.0, or of a corpus that it read as this version does."""
    columns = (base.files.column(name).to_pylist() for name in ("path", "size", "modified"))
    listing = [list(row) for row in zip(*columns, strict=True)]
    return base.corpus_digest == digest([base.settings_digest, listing], 32)


def prepare(config: Config, *, writing: bool = True) -> Source:
    """Checks all that can be checked without reading the corpus, and lists it.

    Args:
        writing: false where the checkpoint need not be writable.

    Raises:
        ConfigurationError: a glob that matches nothing, a model that can't be found, an option unknown to Beam.
        CheckpointError: a checkpoint that can't be written.
    """
    beam_runner.prepare_filesystems(config)
    notes: list[str] = []
    files = list_corpus(config.corpus, _own(config), notes)
    checkpoint, model = open_checkpoint(config)
    Chunker(config, model)
    if writing:
        filesystem.check_writable(checkpoint.root)
    entries = _entries(files)
    anew = frozenset(
        entry.path for entry in entries if entry.source is not None and rules.is_read_anew(entry.source, config.corpus)
    )
    settings = settings_digest(config, model)
    return Source(entries, model, checkpoint, settings, notes=tuple(notes), anew=anew)


def open_checkpoint(config: Config) -> tuple[Checkpoint, TextModel]:
    """The checkpoint of a configuration's space, and its model.

    Raises:
        ConfigurationError: a model that can't be found, an option unknown to Beam.
    """
    beam_runner.prepare_filesystems(config)
    model = resolve(config.encoder)
    return Checkpoint(config.checkpoint, config.name, model.space.id), model


def settings_digest(config: Config, model: TextModel) -> str:
    """Digest of the settings that rows follow from."""
    exclude = dict.fromkeys(_TOUCHES_NO_ROW, True) | {"metadata": {"__all__": {"default"}}}
    corpus = config.corpus.model_dump(exclude=exclude)
    corpus["metadata"] = {
        name: _set_keys(field, type(config.corpus.metadata[name])) for name, field in corpus["metadata"].items()
    }
    settings = [
        SCHEMA_VERSION,
        model.space.id,
        _set_keys(corpus, Corpus),
        _set_keys(config.chunk.model_dump(), Chunk) if config.chunk else False,
        config.collection.id_max_bytes,
    ]
    if any(field.partition is not None for field in config.corpus.metadata.values()):
        # Folders above the glob's root are not in the paths of the listing, and may be partitions.
        settings.append([partitions_of(Glob(path).root) for path in config.corpus.paths])
    return digest(settings, 32)


def _set_keys(values: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """The values without later keys that have their default."""
    defaults = {
        field.alias or name: field.get_default(call_default_factory=True, validated_data={})
        for name, field in model.model_fields.items()
        if not field.is_required()
    }
    return {
        key: value
        for key, value in values.items()
        if key in _ALWAYS_IN_DIGEST or key not in defaults or value != _plain(defaults[key])
    }


def _plain(value: Any) -> Any:
    return value.model_dump() if isinstance(value, BaseModel) else value


def _entries(files: list[SourceFile]) -> list[Entry]:
    # Two globs may each have a file of the same path; then only their whole uris tell them apart.
    counts = Counter(file.path for file in files)
    return [
        Entry(
            file.name if counts[file.path] == 1 else file.shown,
            file.size,
            file.modified,
            file,
        )
        for file in files
    ]


def _own(config: Config) -> Own:
    lite = config.collection.uri if config.collection.is_lite else ""
    return Own(filesystem.join(config.checkpoint, config.name), lite)


def settled(source: Source, config: Config) -> list[bool]:
    """Whether each file is still as it was listed, by a second listing."""
    now = (
        {file.uri: (file.size, file.modified) for file in list_corpus(config.corpus, _own(config))}
        if source.changed
        else {}
    )
    return [
        entry.kept or entry.source is None or now.get(entry.source.uri) == (entry.size, entry.modified)
        for entry in source.entries
    ]
