"""The comparison of a corpus and its embedding as one job on other machines.

Embedding waits within the job until everything is compared, and embeds nothing where the process that starts the run
has something to decide: ids that are not unique, unchanged files that must be read too, more deletions than are
allowed. That process then continues as after a comparison alone. So parts have the names that they have everywhere, and
a run that is refused has embedded nothing.
"""

from __future__ import annotations

from collections import Counter

import apache_beam as beam

from pipelines.run.jobs import beam_job
from pipelines.run.session import Session
from pipelines.steps.corpus.survey import Survey
from pipelines.steps.judgement.limits import deletion_bounds
from pipelines.steps.judgement.standing import Standing
from schemas.errors import InterruptedRunError, JobEndedError
from transforms.embed.int8_texts import needs_texts
from transforms.embed.once_compared import OnceCompared
from transforms.embed.record import pieces_of
from transforms.embed.stage import Embedding, EmbedShards, WriteRecords
from transforms.read import SHARD_RANGES
from transforms.support.storage import filesystem
from transforms.support.work_list import listed


def is_one_job(survey: Survey) -> bool:
    """Whether comparing and embedding are one job.

    Not where lost parts are to be deleted between the two.
    """
    return survey.is_job and survey.is_needed and bool(survey.shards) and not survey.lost


class OneJob:
    """Compares and embeds: a `pipelines.steps.corpus.changes.CombinedComparison`.

    Args:
        salt: distinguishes parts that are embedded again on purpose.
        standing: what is served.
        allow_deletes: lifts `corpus.max_deleted`.

    Attributes:
        records: folder with the records of all parts, if everything was embedded; else "".
    """

    def __init__(self, session: Session, salt: str, standing: Standing, *, allow_deletes: bool) -> None:
        self._session = session
        self._salt = salt
        self._standing = standing
        self._allow_deletes = allow_deletes
        self.records = ""

    def fits(self, survey: Survey) -> bool:
        """Whether it is the way to make a comparison."""
        return is_one_job(survey)

    def run(self, survey: Survey, of: str) -> Counter[str]:
        """Compares, writes the findings and embeds; returns the counters of the job."""
        session, findings, shards = self._session, survey.findings, survey.shards
        session.progress.step("embed")
        records, chunks = session.uri("records"), session.uri("chunks")
        embedding = Embedding(
            session.config,
            survey.source.models.layout,
            survey.source.models.cutting,
            survey.source.checkpoint,
            findings.files_uri,
            survey.side,
            self._salt,
            survey.source.checkpoint.sample_uri if needs_texts(session.config) else "",
            chunks,
        )
        bounds = deletion_bounds(survey.base, session.config, self._standing, allowed=self._allow_deletes)
        with (
            listed(shards, SHARD_RANGES, session.uri("work/shards.parquet")) as work,
            survey.step(session.uri("work/parts.parquet")) as compare,
            session.resumable(
                "embed", of, diff=findings.folder, records=records, chunks=chunks, work=session.uri("work")
            ),
        ):

            def build(pipeline: beam.Pipeline) -> None:
                ranges = pipeline | "Shards" >> work
                _ = (
                    ranges
                    | "OnceCompared" >> OnceCompared(ranges | compare, findings, embedding, bounds)
                    | "EmbedShards" >> EmbedShards(embedding)
                    | "WriteRecords" >> WriteRecords(records, pieces_of(len(shards)))
                )

            try:
                counters = beam_job.run(session.config, build, session)
            except (InterruptedRunError, JobEndedError):
                embedding.forget_attempts()
                raise
        session.add_counters(counters)
        if filesystem.list_files(records, "*/*.parquet"):
            embedding.remove_leftovers()
            self.records = records
        else:
            session.progress.note("nothing is embedded yet: what was found must be looked at before")
        return counters
