"""The first comparison of a corpus and its embedding as one job on other machines.

A first run compares ids only: no item may have the id of another one. Embedding waits for that within the job, and
embeds nothing where the ids are not unique. The run then continues as after a comparison alone: it refuses the corpus,
or embeds it in another job without the items that it leaves out. So parts have the names that they have everywhere.
"""

from __future__ import annotations

from collections import Counter

import apache_beam as beam

from pipelines.run import beam_job
from pipelines.run.session import Session
from pipelines.steps.corpus.changes import comparison_of, survey_bytes
from pipelines.steps.corpus.int8_sample import needs_sample
from pipelines.steps.corpus.source import Source
from schemas.config import Config
from schemas.errors import InterruptedRunError, JobEndedError
from transforms.checkpoint import Snapshot
from transforms.diff import Findings
from transforms.diff.find_changes import PART_GROUPS
from transforms.embed.record import pieces_of
from transforms.embed.stage import Embedding, EmbedShards, WriteRecords
from transforms.embed.unless_duplicates import UnlessDuplicates
from transforms.read import SHARD_RANGES, ShardRange
from transforms.support.storage import filesystem
from transforms.support.work_list import listed


def is_one_job(config: Config, source: Source, base: Snapshot | None) -> bool:
    """Whether comparing and embedding are one job.

    Not where workers with an accelerator would wait while others compare, nor where int8 takes its ranges from what
    the comparison found.
    """
    return (
        base is None
        and not source.ids_are_paths
        and config.accelerator is None
        and not needs_sample(config)
        and not beam_job.runs_here(config, survey_bytes(source, None))
    )


class OneJob:
    """Compares and embeds, in the place of `pipelines.steps.corpus.changes.survey`.

    Attributes:
        records: folder with the records of all parts, if everything was embedded; else "".
    """

    def __init__(self, session: Session, salt: str) -> None:
        self._session = session
        self._salt = salt
        self.records = ""

    def __call__(self, source: Source, shards: list[ShardRange], findings: Findings, of: str) -> Counter[str]:
        session = self._session
        session.progress.step("embed")
        records, chunks = session.uri("records"), session.uri("chunks")
        embedding = Embedding(
            session.config,
            source.models.layout,
            source.models.cutting,
            source.checkpoint,
            findings.files_uri,
            salt=self._salt,
            scratch=chunks,
        )
        with (
            listed(shards, SHARD_RANGES, session.uri("work/shards.parquet")) as work,
            listed([], PART_GROUPS, session.uri("work/parts.parquet")) as none,
            session.resumable(
                "embed", of, diff=findings.folder, records=records, chunks=chunks, work=session.uri("work")
            ),
        ):

            def build(pipeline: beam.Pipeline) -> None:
                ranges = pipeline | "Shards" >> work
                found = ranges | "FindChanges" >> comparison_of(
                    session.config, source, None, findings, len(shards), none
                )
                _ = (
                    ranges
                    | "UnlessDuplicates" >> UnlessDuplicates(found)
                    | "EmbedShards" >> EmbedShards(embedding)
                    | "WriteRecords" >> WriteRecords(records, pieces_of(len(shards)))
                )

            try:
                counters = beam_job.run(session.config, build, session)
            except (InterruptedRunError, JobEndedError):
                embedding.forget_attempts()
                raise
        session.add_counters(counters)
        if findings.duplicates.num_rows:
            session.progress.note("ids are not unique: nothing is embedded yet")
        elif filesystem.list_files(records, "*/*.parquet"):
            embedding.remove_leftovers()
            self.records = records
        return counters
