"""The expectation of a run before it embeds, so that its report can compare plan and fact."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pyarrow.compute as pc

from pipelines.run.report_store import reports
from pipelines.run.session import Session
from pipelines.steps.corpus.changes import Changes
from schemas.config import Config
from schemas.records import Kind
from schemas.run_plan import PlannedItems
from schemas.run_report import Expected, Rejected
from transforms.checkpoint.embedded import precisions
from transforms.checkpoint.snapshot import with_any
from transforms.diff.digest_sides import ID_TOO_LONG

LOOKED_AT = 200
"""Earlier runs that are looked at for a rate, the newest."""

ENOUGH_TOKENS = 200_000
"""Tokens of an earlier run from which its rate is taken."""

NAMED = 5
"""Rejects that are named before the run."""

SAMPLED = 500
"""Items that a run's own expectation of its tokens is taken from."""


def planned_items(changes: Changes) -> PlannedItems:
    """Items by what a diff found."""
    errors = changes.findings.errors
    # They are new to the snapshot before each time, and the chunker rejects them each time.
    too_long = errors.get(ID_TOO_LONG, 0) if changes.base is not None else 0
    return PlannedItems(
        new=changes.count(Kind.NEW) - too_long,
        changed=changes.count(Kind.CHANGED),
        moved=changes.count(Kind.MOVED),
        unchanged=changes.count(Kind.UNCHANGED) + changes.count(Kind.RELOCATED),
        deleted=changes.deleted,
        rejected=sum(foreseen_rejects(changes).values()),
    )


def foreseen_rejects(changes: Changes) -> dict[str, int]:
    """Rejects of the whole corpus by error: of the files that were read, and of those that did not change."""
    found = Counter(changes.findings.errors)
    if changes.findings.duplicates.num_rows:
        found["DuplicateId"] += changes.findings.duplicates.num_rows
    if changes.base is not None:
        files = with_any(changes.base.files.select(["path", "errors"]), "errors")
        kept = changes.source.kept(files.column("path"))
        files = files.filter(pc.is_in(files.column("path"), value_set=kept))
        for errors in files.column("errors").to_pylist():
            found.update({entry["error"]: entry["count"] for entry in errors})
    return dict(sorted(found.items()))


def first_rejects(changes: Changes) -> list[Rejected]:
    """The first rejects of the files that were read."""
    return [
        Rejected(file=row["uri"], place=row["place"], id=row["id"], error=row["error"], reason=row["reason"])
        for row in changes.findings.first_rejects.slice(0, NAMED).to_pylist()
    ]


def earlier_rate(config: Config) -> tuple[float, str] | None:
    """Tokens per second of the last run that embedded enough with this model and precision, and its name."""
    for report in islice(reports(config), LOOKED_AT):
        same = precisions(report.runtime) == config.precisions and report.model == config.model_names
        if same and report.tokens.embedded >= ENOUGH_TOKENS and report.seconds.embed:
            return report.tokens.embedded / report.seconds.embed, f"run {report.run_id}"
    return None


def expect(session: Session, changes: Changes) -> None:
    """Puts into the report what the run expects to embed, next to the later facts."""
    from transforms.embed.estimate import chunk_sample

    expected = Expected(items=planned_items(changes).model_dump())
    sample, population = changes.sample_to_embed(SAMPLED)
    to_embed, size = changes.items_to_embed, changes.bytes_to_embed
    if sample.num_rows and to_embed:
        chunked = chunk_sample(sample, population, session.config, changes.source.models)
        expected.chunks = chunked.chunks.total(to_embed, size).value
        expected.tokens = chunked.tokens.total(to_embed, size).value
        if rate := earlier_rate(session.config):
            expected.embed_seconds = round(expected.tokens / rate[0], 1)
    session.report.plan = expected
