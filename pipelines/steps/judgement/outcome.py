"""How a plan expects a run to end: what it would be refused for, and with which exit code."""

from __future__ import annotations

import pyarrow.compute as pc

from pipelines.steps.corpus.changes import Changes
from pipelines.steps.judgement.limits import (
    check_deletions,
    check_shrinking,
    costs_nothing,
    excess,
    named,
    over_limits,
    remedy,
)
from pipelines.steps.judgement.standing import Standing
from schemas.config import Config
from schemas.errors import RejectsError, VecbeamError
from schemas.run_plan import Outcome, Plan
from schemas.run_report import Failure
from transforms.checkpoint import Snapshot


def foresee_unchanged(base: Snapshot, config: Config, standing: Standing) -> Outcome:
    """The outcome over a corpus that is as the snapshot has it."""
    over = excess(base, config)
    lossless = not standing.collection or standing.snapshot == base.id
    return _outcome(RejectsError(over, remedy(over, lossless=lossless)), served=True) if over else Outcome()


def foresee(changes: Changes, config: Config, standing: Standing, found: Plan, *, allow_deletes: bool) -> Outcome:
    """The outcome of a run over changes; what only the encoder rejects is not included.

    Args:
        standing: what is served.
        found: the plan, with its items, tokens and rejects.
        allow_deletes: whether the run has it.
    """
    items = found.items
    left = items.new + items.changed + items.moved + items.unchanged
    try:
        check_deletions(changes, config, standing, allowed=allow_deletes)
        if left and changes.base is None and not allow_deletes:
            rows = round(found.chunks.value * (1 + found.chunks.error))
            check_shrinking(left, standing, config.corpus.max_deleted, rows=rows)
    except VecbeamError as error:
        return _outcome(error, served=False)
    if not left:
        nothing = f"no item could be embedded: {items.rejected} rejects ({named(found.rejects)}); {standing}"
        example = f"; the first: {found.rejected[0]}" if found.rejected else ""
        return _outcome(
            RejectsError(nothing + example, "fix the corpus, or corpus.id and corpus.content"), served=False
        )
    dropped, tokens = found.dropped.value, found.tokens.value
    if changes.base is not None:
        dead = changes.findings.dead
        gone = {name: pc.sum(dead.column(name)).as_py() or 0 for name in ("tokens", "tokens_dropped")}
        dropped += changes.base.total("tokens_dropped") - gone["tokens_dropped"]
        tokens += changes.base.total("tokens") - gone["tokens"]
    over = over_limits(config, found.rejects, left + items.rejected, dropped, tokens + dropped)
    if not over:
        return Outcome()
    # As the run decides: a first corpus with rejects is a beginning, and a served one is not replaced by it.
    first = not standing.collection and (changes.base is None or bool(excess(changes.base, config)))
    says = "the good rows would be published all the same" if first else str(standing)
    return _outcome(
        RejectsError(f"{over}; {says}", remedy(over, lossless=costs_nothing(changes, standing))), served=first
    )


def _outcome(error: VecbeamError, *, served: bool) -> Outcome:
    return Outcome(exit_code=error.exit_code, error=Failure.model_validate(error.facts()), served=served)
