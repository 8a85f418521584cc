"""What changed: the corpus compared with the current snapshot, before anything is embedded."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Protocol

import pyarrow as pa

from pipelines.run.session import Session
from pipelines.steps.corpus.source import Source
from pipelines.steps.corpus.survey import Survey
from schemas.errors import CheckpointError, CorpusError
from schemas.identity import digest
from schemas.records import Kind
from transforms.checkpoint import Checkpoint, Snapshot
from transforms.checkpoint.snapshot import with_any
from transforms.diff import Findings, SnapshotSide
from transforms.read import ShardFiles, ShardRange, plan_ranges, read_shard
from transforms.support.storage import filesystem
from transforms.support.storage.stored_table import write_rows

NAMED = 5
ENOUGH_DRAWN = 100
"""Items to embed from which their sizes are estimated; where a sample has fewer, all items that were read tell more."""


class CombinedComparison(Protocol):
    """Another way to compare, with something that follows in the same pipeline."""

    def fits(self, survey: Survey) -> bool:
        """Whether it is the way to make a comparison."""

    def run(self, survey: Survey, of: str) -> Counter[str]:
        """Compares and writes the findings; returns the counters of the pipeline.

        Args:
            of: see `Changes.of`.
        """


@dataclass(frozen=True)
class Changes:
    """The corpus against a snapshot.

    Attributes:
        source: the corpus, with the files that are kept.
        base: the snapshot; None before the first one, or if everything is embedded again.
        lost: positions of its parts that are missing or damaged.
        shards: what must be read.
        findings: what to do with each item of those.
        surveyed: items that were read to find out; 0 if that was not needed.
        bytes_surveyed: bytes of their content.
        of: digest of what this depends on; "" where no other run can continue from here.
    """

    source: Source
    base: Snapshot | None
    lost: list[int]
    shards: list[ShardRange]
    findings: Findings
    surveyed: int
    bytes_surveyed: int
    of: str = ""

    @property
    def rules_changed(self) -> bool:
        """Whether the snapshot was cut or typed otherwise, so that any of its vectors may be of no use now."""
        return self.base is not None and self.base.settings_digest != self.source.settings_digest

    @property
    def items_to_embed(self) -> int:
        """Items that are new or changed, without those that can take the vectors of an item with the same content."""
        if self.base is None or self.rules_changed:
            return self.count(Kind.NEW) + self.count(Kind.CHANGED)
        return self.findings.amounts.other_content

    def sample_to_embed(self, most: int | None = None) -> tuple[pa.Table, int]:
        """Returns some of the items to embed, and how many items they were drawn from.

        Where the sample has too few of them to judge by, these are some of all items that were read.

        Args:
            most: items to return.
        """
        if self.base is not None:
            drawn = self.findings.sample_to_embed(same_content=self.rules_changed)
            if drawn.num_rows >= min(ENOUGH_DRAWN, self.items_to_embed):
                return drawn.slice(0, most), self.items_to_embed
        return self.findings.sample.slice(0, most), self.surveyed

    @property
    def bytes_to_embed(self) -> int:
        """Bytes of the content of `items_to_embed`, as far as they were surveyed."""
        if self.base is None:
            return self.bytes_surveyed
        return self.findings.amounts.bytes if self.rules_changed else self.findings.amounts.other_bytes

    @property
    def deleted(self) -> int:
        return self.findings.deleted

    def count(self, kind: Kind) -> int:
        """Items of a kind; unchanged ones in files that were not read count as well."""
        if self.base is None:
            left_out = self.findings.duplicates.num_rows + sum(self.findings.errors.values())
            return self.surveyed - left_out if kind is Kind.NEW else 0
        if kind is not Kind.UNCHANGED:
            return self.findings.counts[kind]
        replaced = sum(self.findings.counts[other] for other in (Kind.CHANGED, Kind.MOVED, Kind.RELOCATED))
        return self.base.total("items") - self.deleted - replaced

    def side(self) -> SnapshotSide | None:
        return SnapshotSide(self.source.checkpoint, self.base.name) if self.base else None


def is_unchanged(source: Source, base: Snapshot | None) -> bool:
    """Whether a snapshot is of this corpus as it is listed now, with all its parts there."""
    same = base is not None and base.corpus_digest == source.corpus_digest and base.complete
    if source.refers_elsewhere:
        return False  # what the records name may have changed
    return same and base is not None and not lost_parts(source.checkpoint, base)


def lost_parts(checkpoint: Checkpoint, base: Snapshot) -> list[int]:
    """Positions of the parts of a snapshot that are missing, or have another size than they were written with."""
    sizes = checkpoint.part_sizes()
    written = base.parts.column("bytes").to_pylist()
    return [at for at, name in enumerate(base.part_names) if sizes.get(name) != written[at]]


def find_changes(
    session: Session,
    source: Source,
    base: Snapshot | None,
    folder: str,
    *,
    here: str = "",
    survey: bool = False,
    salt: str = "",
    combined: CombinedComparison | None = None,
) -> Changes:
    """Compares the corpus with a snapshot; writes nothing but the findings in `folder`.

    Args:
        here: a folder of this machine, which has the findings where no other machine compares.
        survey: reads the changed files even where their listing says enough to embed them.
        salt: distinguishes parts that are embedded again on purpose.
        combined: compares where it fits.

    Raises:
        CorpusError: two items with one id, where the configuration says `on_duplicate: error`.
    """
    config = session.config
    lost = lost_parts(source.checkpoint, base) if base else []
    if base is not None and not source.scoped:
        source = source.against(base, _files_of(source.checkpoint, base, lost) | _files_with_duplicates(base))
    of = "" if survey else _described(session, source, base, lost, salt)
    findings = _found_before(session, of)
    surveyed, size = findings.surveyed if findings is not None else (0, 0)
    shards = list(plan_ranges(source.changed, config.corpus))
    while findings is None or findings.conflicts:
        if findings is not None:
            # An id of a changed file is in an unchanged one too: the order of the items in that file decides which one
            # counts. No other run can begin here.
            source, of = source.rereading(findings.conflicts), ""
            shards = list(plan_ranges(source.changed, config.corpus))
            session.forget_left()
            findings.remove()
        given = Survey(config, source, base, lost, shards, Findings(folder))
        if here and not given.is_job:
            given = replace(given, findings=Findings(here))
        findings = given.findings
        findings.remove()
        write_rows(findings.files_uri, source.to_read())
        if base is not None:
            write_rows(findings.listing_uri, source.listing(), by="name")
        counters: Counter[str] = Counter()
        if combined is not None and combined.fits(given):
            counters = combined.run(given, of)
        elif survey or given.is_needed:
            with session.resumable("survey", of, diff=folder):
                counters = given.run(session)
        surveyed, size = counters["items_surveyed"], counters["content_bytes"]
    if config.corpus.on_duplicate == "error" and findings.duplicates.num_rows:
        raise _duplicates_error(session, source, shards, findings)
    return Changes(source, base, lost, shards, findings, surveyed, size, of)


def _described(session: Session, source: Source, base: Snapshot | None, lost: list[int], salt: str) -> str:
    """Digest of all that a comparison and the embedding after it depend on."""
    name = base.name if base is not None else ""
    read = int(source.is_read.to_numpy().sum())
    facts = [session.report.command, session.report.versions["vecbeam"], source.models.space.id, name, lost, read, salt]
    return digest(
        [
            *facts,
            source.corpus_digest,
            source.settings_digest,
            session.config.batch_rows,
            session.config.corpus.shard_bytes,
        ],
        32,
    )


def _found_before(session: Session, of: str) -> Findings | None:
    """What a job of a run that is gone has found about the same files; None if there was none."""
    left = session.left
    if left is None or not of:
        return None
    if left.of == of and (folder := left.folders.get("diff", "")):
        findings = Findings(folder)
        if filesystem.exists(findings.files_uri):
            session.progress.note(f"using the results of the {left.job}, which run {left.run_id} started")
            return findings
    # The corpus is another one by now, or this command does something else.
    session.discard_left()
    return None


def _files_of(checkpoint: Checkpoint, base: Snapshot, lost: list[int]) -> set[str]:
    """Paths of the files whose items were in lost parts; all files, if that is not known any more."""
    paths: set[str] = set()
    for position in lost:
        try:
            paths.update(checkpoint.read_items(base.part_names[position]).column("path").to_pylist())
        except CheckpointError:
            return set(base.files.column("path").to_pylist())
    return paths


def _files_with_duplicates(base: Snapshot) -> set[str]:
    """Paths of the files with items that were left out for another's sake: those may be gone by now."""
    files = with_any(base.files.select(["path", "errors"]), "errors")
    pairs = zip(files.column("path").to_pylist(), files.column("errors").to_pylist(), strict=True)
    return {path for path, errors in pairs if any(entry["error"] == "DuplicateId" for entry in errors)}


def _duplicates_error(session: Session, source: Source, shards: list[ShardRange], findings: Findings) -> CorpusError:
    config, duplicates = session.config, findings.duplicates
    files = ShardFiles(findings.files_uri)
    named = []
    for row in duplicates.slice(0, NAMED).to_pylist():
        batches = read_shard(files.open(shards[row["shard"]]), config.corpus, batch_rows=config.batch_rows)
        items = next(batch.items for batch in batches if batch.key.ordinal == row["ordinal"])
        item = items.slice(row["row"], 1).to_pylist()[0]
        kept = f"{source.shown(row['kept_file'])} {row['kept_place']}".strip()
        named.append(f"{item['item_id']!r} at {kept} and {item['@uri']} {item['@place']}".strip())
    more = f", and {duplicates.num_rows - NAMED} more" if duplicates.num_rows > NAMED else ""
    return CorpusError(
        f"ids that more than one item has: {duplicates.num_rows}; {'; '.join(named)}{more}",
        "make ids unique, or choose which counts with corpus.on_duplicate: first (or last)",
    )


def drops_by_shard(changes: Changes) -> dict[int, dict[tuple[int, int], str]]:
    """For each shard (by index) the items to leave out: (ordinal, row) -> place of the kept item."""
    drops: dict[int, dict[tuple[int, int], str]] = {}
    for row in changes.findings.duplicates.to_pylist():
        kept = f"{changes.source.shown(row['kept_file'])} {row['kept_place']}".strip()
        drops.setdefault(row["shard"], {})[row["ordinal"], row["row"]] = kept
    return drops
