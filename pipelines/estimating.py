"""What a run expects of itself before it embeds, so that its report can hold plan against fact."""

from __future__ import annotations

from pipelines.changes import Changes
from pipelines.report import reports
from pipelines.session import Session
from schemas.config import Config
from schemas.plan import PlannedItems
from schemas.records import Kind
from schemas.report import Expected

ENOUGH_TOKENS = 200_000
"""Tokens of an earlier run from which its rate is taken."""

SAMPLED = 500
"""Items that a run's own expectation of its tokens is taken from."""


def planned_items(changes: Changes) -> PlannedItems:
    """Items by what a diff found."""
    return PlannedItems(
        new=changes.count(Kind.NEW),
        changed=changes.count(Kind.CHANGED),
        moved=changes.count(Kind.MOVED),
        unchanged=changes.count(Kind.UNCHANGED) + changes.count(Kind.RELOCATED),
        deleted=changes.deleted,
    )


def earlier_rate(config: Config) -> tuple[float, str] | None:
    """Tokens per second of the last run that embedded enough with this model and precision, and its name."""
    for report in reports(config):
        same = report.runtime.get("precision") == config.encoder.precision and report.model == config.encoder.model
        if same and report.tokens.embedded >= ENOUGH_TOKENS and report.seconds.embed:
            return report.tokens.embedded / report.seconds.embed, f"run {report.run_id}"
    return None


def expect(session: Session, changes: Changes) -> None:
    """Puts into the report what the run expects to embed; the facts stand beside it in the end."""
    from transforms.estimating import chunk_sample

    items = planned_items(changes)
    expected = Expected(items=items.model_dump())
    sample = changes.findings.sample.slice(0, SAMPLED)
    if sample.num_rows and items.new + items.changed:
        chunked = chunk_sample(sample, changes.surveyed, session.config, changes.source.model)
        expected.chunks = round(chunked.chunks_per_byte.value * changes.bytes_to_embed)
        expected.tokens = round(chunked.tokens_per_byte.value * changes.bytes_to_embed)
        if rate := earlier_rate(session.config):
            expected.embed_seconds = round(expected.tokens / rate[0], 1)
    session.report.plan = expected
