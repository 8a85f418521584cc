"""A plan as text: a page for people, or one line."""

from __future__ import annotations

from collections.abc import Iterator

from schemas.modality import Modality, shown_rate
from schemas.run_plan import Plan


def text(found: Plan) -> str:
    """Returns the plan as text."""
    items = found.items
    lines = [
        f"items       {items.new:,} new, {items.changed:,} changed, {items.moved:,} moved, "
        f"{items.unchanged:,} unchanged, {items.deleted:,} to delete"
        + (f", {items.rejected:,} rejected" if items.rejected else "")
    ]
    lines += [*_rejects(found), *_fits(found), *_work(found)]
    lines += [f"workers     {found.workers}"] if found.workers else []
    collection = found.milvus
    lines.append(
        f"index       {collection.index}, {collection.rows:,} rows, {collection.index_bytes:,} bytes of memory"
    )
    lines += [f"            {one}" for one in collection.candidates]
    name = collection.collection or "a new collection"
    change = {
        "nothing": f"nothing: {found.name} serves {collection.served}",
        "backfill": f"{name}, and the alias {found.name} for it",
        "sync": f"{name} in place, behind the alias {found.name}",
        "reindex": f"{name}, then the alias {found.name} moves from {collection.served} to it",
    }[found.action]
    lines.append(f"in Milvus   {change}" + (f" ({'; '.join(collection.reasons)})" if collection.reasons else ""))
    lines += [f"gate        {found.vectors}"] if found.vectors else []
    lines += [f"gate        {found.quality}"] if found.quality else []
    lines += [f"warning     {warning}" for warning in found.warnings]
    return "\n".join([*lines, *_end(found)])


def line(found: Plan) -> str:
    """Returns the plan in one line, which `--quiet` prints."""
    items, error = found.items, found.outcome.error
    counted = (
        ("new", items.new),
        ("changed", items.changed),
        ("moved", items.moved),
        ("unchanged", items.unchanged),
        ("to delete", items.deleted),
        ("rejected", items.rejected),
    )
    parts = ["items " + (", ".join(f"{count:,} {what}" for what, count in counted if count) or "none")]
    parts += [f"to fit {fit.model} on {fit.items:,} items" for fit in found.fits]
    if found.chunks.value:
        most = "at most " if found.at_most else ""
        parts.append(f"to embed {most}{found.chunks.value:,} chunks{_amount(found)}, {_duration(found.seconds.total)}")
    parts += [f"warning {warning}" for warning in found.warnings]
    if error is not None:
        parts.append(f"exit code {found.outcome.exit_code}, {error.kind}: {error.message}")
    return f"plan: {'; '.join([*parts, *_next(found)])}"


def _rejects(found: Plan) -> Iterator[str]:
    if found.rejects:
        yield "rejects     " + ", ".join(f"{count:,} {error}" for error, count in found.rejects.items())
        yield from (f"            {reject}" for reject in found.rejected)


def _fits(found: Plan) -> Iterator[str]:
    for fit in found.fits:
        yield f"to fit      {fit.model} on {fit.items:,} items, before anything is embedded"


def _work(found: Plan) -> Iterator[str]:
    tokens, seconds, dropped = found.tokens, found.seconds, found.dropped
    most = "at most " if found.at_most else ""
    if found.chunks.value:
        yield (
            f"to embed    {most}{found.chunks.value:,} chunks (±{found.chunks.error:.1%})"
            + (f"{_amount(found)} (±{tokens.error:.1%})" if tokens.value else "")
            + (f", estimated from {found.sampled:,} items" if tokens.error else "")
        )
        if dropped.value:
            share = dropped.value / (tokens.value + dropped.value)
            over = dropped.value // found.modality.per_unit
            what = f"{over:,} {found.modality.unit} over the encoder's limit or not known"
            yield f"dropped     {what} (±{dropped.error:.1%}), {share:.2%}"
        yield f"checkpoint  {found.checkpoint_bytes:,} bytes to write"
        rate = f"{shown_rate(seconds.per_second)} {found.modality.unit}/s by {seconds.measured}"
        yield (
            f"time here   {most}{_duration(seconds.total)}: {_duration(seconds.embed)} to embed ({rate}), "
            f"{_duration(seconds.other)} for the rest"
        )
        if found.usd is not None:
            yield f"cost        {found.usd:,.2f} USD for the embedding server"
    elif seconds.total:
        yield f"time here   {_duration(seconds.total)}, {seconds.measured}"
    yield from job_lines(found)
    if found.pool is not None:
        pool = found.pool
        yield f"time there  {_duration(pool.seconds)} on {pool.workers} such workers, {pool.usd:,.2f} USD"


def job_lines(found: Plan) -> Iterator[str]:
    """What a plan says about jobs on other machines; nothing where the runner is local."""
    if found.runner in ("", "local", "DirectRunner"):
        return
    if found.jobs:
        yield f"jobs        {len(found.jobs)} on {found.runner}: {', '.join(found.jobs)}"
    else:
        yield f"jobs        none on {found.runner}: each step reads less than runner.local_below, and runs here"


def _amount(found: Plan) -> str:
    """What is embedded in addition to the number of chunks; "" for images."""
    if found.modality is Modality.IMAGE:
        return ""
    return f", {found.tokens.value // found.modality.per_unit:,} {found.modality.unit}"


def _end(found: Plan) -> Iterator[str]:
    error = found.outcome.error
    if error is not None:
        yield f"outcome     exit code {found.outcome.exit_code}, {error.kind}: {error.message}"
        if error.remedy:
            yield f"remedy      {error.remedy}"
    yield from _next(found)


def _next(found: Plan) -> Iterator[str]:
    if not found.has_work:
        yield "nothing to do"
    elif found.outcome.served:
        yield f"run: {found.command}"
    else:
        yield f"only after that: {found.command}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
