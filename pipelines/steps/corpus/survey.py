"""The comparison of a corpus with a snapshot: whether it is needed, what it reads, and its pipeline."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam

from pipelines.run.jobs import beam_job
from pipelines.run.session import Phase, Session
from pipelines.steps.corpus.source import Source
from schemas.config import Config
from transforms.checkpoint import Snapshot
from transforms.diff import FindChanges, Findings, SnapshotSide
from transforms.diff.comparison import buckets_for
from transforms.diff.find_changes import PART_GROUPS, PARTS, SAMPLED
from transforms.embed.int8_texts import needs_texts
from transforms.read import SHARD_RANGES, ShardRange
from transforms.support.storage import filesystem
from transforms.support.work_list import listed

BYTES_OF_AN_ITEM = 500
BYTES_OF_A_DIGEST = 80
SHARDS_OF_A_PIECE = 4_096
"""How many shards' findings are written into one file."""


@dataclass(frozen=True)
class Survey:
    """A comparison that is to be made.

    Attributes:
        config: the configuration.
        source: the corpus, with the files that are kept.
        base: the snapshot to compare with; None looks for duplicate ids alone.
        lost: positions of its parts that are missing or damaged.
        shards: what is read.
        findings: where the results go.
    """

    config: Config
    source: Source
    base: Snapshot | None
    lost: list[int]
    shards: list[ShardRange]
    findings: Findings

    @property
    def is_needed(self) -> bool:
        """Whether the listing does not say enough to embed the files."""
        if self.base is not None or not self.source.ids_are_paths:
            return True
        return needs_texts(self.config) and not filesystem.exists(self.source.checkpoint.sample_uri)

    @property
    def is_job(self) -> bool:
        """Whether it is one on other machines, by what it reads."""
        return not beam_job.runs_here(self.config, self.bytes_to_read)

    @property
    def bytes_to_read(self) -> int:
        """About how many bytes it reads: the files that changed, and the digests of the snapshot's items."""
        return self.source.changed_bytes + BYTES_OF_A_DIGEST * self._old_items

    @property
    def _old_items(self) -> int:
        return self.base.total("items") if self.base is not None else 0

    @property
    def side(self) -> SnapshotSide | None:
        """The snapshot as workers open it."""
        return SnapshotSide(self.source.checkpoint, self.base.name) if self.base is not None else None

    @contextlib.contextmanager
    def step(self, uri: str) -> Iterator[beam.PTransform]:
        """PCollection of `ShardRange` -> names of the files of the findings, for as long as the block lasts.

        Args:
            uri: of the file for a long list of parts.
        """
        gone = set(self.lost)
        parts = [at for at in range(self.base.parts.num_rows) if at not in gone] if self.base is not None else []
        groups = [tuple(parts[start : start + PARTS]) for start in range(0, len(parts), PARTS)]
        new_items = self.source.changed_bytes // BYTES_OF_AN_ITEM
        buckets = buckets_for(self._old_items + new_items)
        sampling = min(1.0, SAMPLED / max(1, new_items))
        pieces = 1 + len(self.shards) // SHARDS_OF_A_PIECE
        with listed(groups, PART_GROUPS, uri) as old:
            yield "FindChanges" >> FindChanges(self.config, self.findings, self.side, old, buckets, sampling, pieces)

    def run(self, session: Session) -> Counter[str]:
        """Compares, in a pipeline of its own; returns its counters."""
        session.progress.step("survey", counter="items_surveyed")
        with (
            Phase(session, "survey"),
            listed(self.shards, SHARD_RANGES, self.findings.uri("work/survey")) as work,
            self.step(self.findings.uri("work/parts")) as compare,
        ):
            counters = beam_job.run(
                self.config, lambda pipeline: pipeline | "Shards" >> work | compare, session, reads=self.bytes_to_read
            )
        session.add_counters(counters)
        return counters
