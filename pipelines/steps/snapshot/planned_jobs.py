"""The steps of a run that would be jobs on other machines, for a plan."""

from __future__ import annotations

from pipelines.run.jobs import beam_job
from pipelines.steps.corpus.changes import Changes
from pipelines.steps.corpus.survey import Survey
from pipelines.steps.snapshot.embedding import embedding_bytes
from pipelines.steps.snapshot.one_job import is_one_job
from schemas.config import Config
from schemas.run_report import LOAD_AND_VERIFY


def planned_jobs(config: Config, changes: Changes, bytes_to_write: int) -> list[str]:
    """Names of the steps that would be jobs: none where the runner is local, or where there is little to do.

    Args:
        bytes_to_write: of the parts that the run adds; it loads them.
    """
    source, base = changes.source, changes.base
    if config.runner.is_local:
        return []
    steps: list[tuple[str, int | None]] = []
    survey = Survey(config, source, base, changes.lost, changes.shards, changes.findings)
    if is_one_job(survey):
        steps.append(("embed", None))
    else:
        if survey.is_needed:
            steps.append(("survey", survey.bytes_to_read))
        if changes.shards:
            steps.append(("embed", embedding_bytes(config, changes)))
    # A job that loads continues with the comparison, unless an index is chosen between the two.
    if base is not None or (config.collection.load != "import" and config.collection.promise is None):
        steps.append((LOAD_AND_VERIFY, bytes_to_write))
    else:
        steps += [("load", bytes_to_write)] if config.collection.load != "import" else []
        steps.append(("verify", bytes_to_write))
    return [step for step, reads in steps if not beam_job.runs_here(config, reads)]
