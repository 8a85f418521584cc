"""`vecbeam plan CONFIG`: what a run would do, how long it would take and what it would cost. It writes nothing."""

from __future__ import annotations

import shlex
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.run.progress import Progress
from pipelines.run.report_store import reports
from pipelines.run.session import Session
from pipelines.steps.collection.served import find_served, misfits, with_index
from pipelines.steps.collection.server import check_server, check_vectors
from pipelines.steps.collection.vector_checks import limit_words
from pipelines.steps.corpus.changes import Changes, find_changes, is_unchanged
from pipelines.steps.corpus.int8_sample import sample_texts
from pipelines.steps.corpus.source import Source, prepare
from pipelines.steps.judgement.forecast import LOOKED_AT, earlier_rate, first_rejects, foreseen_rejects, planned_items
from pipelines.steps.judgement.limits import Standing, check_fields, standing
from pipelines.steps.judgement.null_columns import foreseen, unfilterable
from pipelines.steps.judgement.outcome import foresee, foresee_unchanged
from pipelines.steps.publish.index_candidates import candidate_words, candidates
from pipelines.steps.quality.quality_gate import check_gate, gate_words
from pipelines.steps.snapshot.planned_jobs import planned_jobs
from schemas.config import Config
from schemas.config.gpu_workers import gpu_words
from schemas.layout import Layout, Space
from schemas.milvus import STATE_READY, index_bytes, index_words
from schemas.modality import Modality, shown_rate
from schemas.run_plan import Estimate, Plan, PlannedCollection, PlannedFit, PlannedItems, PlannedPool, PlannedSeconds
from transforms import milvus
from transforms.checkpoint import Checkpoint, Snapshot
from transforms.encoders.models import Models
from transforms.load.specification import collection_spec, vector_column

CALIBRATED_S = 6.0
ENOUGH_ROWS = 1000
FITTED_ITEMS = 2000
"""Items on which a plan fits a model that is not fitted yet, to measure its speed."""
NOTHING_TO_EMBED = "nothing to embed"
SECONDS_A_ROW = 0.0008
"""Checkpoint, load, index and verify of a row of 384 dimensions on Milvus Lite, where no earlier run tells."""


def plan(
    config: Config, progress: Progress | None = None, *, allow_deletes: bool = False, words: Sequence[str] = ()
) -> Plan:
    """Compares corpus, checkpoint and collection.

    What a run would be refused for (deletions, rejects, dropped tokens) is not an error of the plan, but its `outcome`.

    Args:
        allow_deletes: plans for a run with this option.
        words: of the command line after the command's name, for the command that the plan recommends.

    Raises:
        ConfigurationError: if no record has a field that the configuration names.
        CorpusError: two items with one id, where the configuration says `on_duplicate: error`.
    """
    with progress or Progress(quiet=True) as shown, tempfile.TemporaryDirectory(prefix="vecbeam-plan-") as folder:
        session = Session("plan", config, shown)
        shown.step("prepare")
        check_server(config.collection)
        source = prepare(config, writing=False)
        check_vectors(config, source.models.layout)
        judged = check_gate(config, source.models.layout)
        base = source.checkpoint.current_snapshot()
        served = _served(config)
        found = Plan(name=config.name, modality=source.models.modality)
        if not source.models.to_fit:  # a model that is not fitted yet has no space
            found.space = source.models.space.id
        found.warnings += source.notes
        startup = session.seconds_so_far()
        stands = standing(config, served, source.checkpoint)
        if base is not None and is_unchanged(source, base):
            found.items.unchanged = base.total("items")
            found.rejects = base.errors()
            found.items.rejected = sum(found.rejects.values())
            found.outcome = foresee_unchanged(base, config, stands)
            rows = base.total("rows")
        else:
            where = folder if config.runner.is_local else session.uri("diff")
            rows = _plan_rows(session, found, source, base, stands, where, startup, allow_deletes=allow_deletes)
        _plan_milvus(config, found, source.models.layout, base, rows, served)
        if found.action in ("backfill", "reindex") and not found.seconds.total:
            # From the checkpoint alone.
            other = round(startup + rows * _earlier_row(config), 1)
            found.seconds = PlannedSeconds(total=other, other=other, measured=NOTHING_TO_EMBED)
        if found.has_work and judged is not None:
            found.quality = gate_words(config, len(judged.queries))
        if found.has_work:
            found.vectors = limit_words(config)
            if config.runner.name == "dataflow":
                found.workers = gpu_words(config.accelerator, config.runner.options)
            deletes = ["--allow-deletes"] if allow_deletes else []
            found.command = shlex.join(["vecbeam", found.action, *words, *deletes])
        return found


def _plan_rows(
    session: Session,
    found: Plan,
    source: Source,
    base: Snapshot | None,
    stands: Standing,
    folder: str,
    startup: float,
    *,
    allow_deletes: bool,
) -> int:
    """Fills in what must be embedded; returns about how many rows there will be."""
    start = time.perf_counter()
    changes = find_changes(session, source, base, folder, survey=True)
    survey = time.perf_counter() - start
    check_fields(changes, session.config)
    found.items = planned_items(changes)
    found.rejects = foreseen_rejects(changes)
    found.rejected = first_rejects(changes)
    found.action = "sync" if base is not None else "backfill"
    found.at_most = base is not None and base.settings_digest != source.settings_digest
    _estimate(session, found, changes, startup + survey)
    found.jobs = planned_jobs(session, changes, found.checkpoint_bytes)
    found.runner = session.config.runner.name
    for name, model in changes.source.models.to_fit.items():
        fitted_on = min(_to_embed(found.items), model.sample_of[0])
        found.fits.append(PlannedFit(vector=name, model=model.name, items=fitted_on))
    found.outcome = foresee(changes, session.config, stands, found, allow_deletes=allow_deletes)
    changes.findings.remove()
    found.warnings += unfilterable(session.config)
    found.warnings += foreseen(session.config.corpus, source.listed)
    before = base.total("rows") if base is not None else 0
    return max(found.chunks.value, before + found.chunks.value * found.items.new // max(1, _to_embed(found.items)))


def _to_embed(items: PlannedItems) -> int:
    return items.new + items.changed


def _estimate(session: Session, found: Plan, changes: Changes, fixed: float) -> None:
    from transforms.embed.estimate import calibrate, chunk_sample

    config, models = session.config, changes.source.models
    sample = changes.findings.sample
    if _to_embed(found.items) == 0 or sample.num_rows == 0:
        found.seconds = PlannedSeconds(total=round(fixed, 1), other=round(fixed, 1), measured=NOTHING_TO_EMBED)
        return
    models.check_runnable()
    session.progress.step("calibrate")
    fitted = _fitted_for_estimates(models, sample)
    # Where not all items are in that fit, terms of the others would count as dropped.
    is_whole_fit = changes.surveyed <= FITTED_ITEMS
    chunked = chunk_sample(sample, changes.surveyed, config, fitted if is_whole_fit else models)
    size = changes.bytes_to_embed
    found.sampled = chunked.items
    # Each item is one chunk.
    is_whole = bool(config.inputs) or (models.modality is Modality.IMAGE and config.corpus.pages is None)
    found.chunks = Estimate(value=_to_embed(found.items)) if is_whole else _estimated(chunked.chunks_per_byte, size)
    counts_chunks = is_whole and models.modality.has_rows_of_several
    found.tokens = found.chunks if counts_chunks else _estimated(chunked.tokens_per_byte, size)
    found.dropped = _estimated(chunked.dropped_per_byte, size)
    measured = calibrate(chunked.chunks, fitted, CALIBRATED_S, sample_texts(session, changes))
    is_text = models.modality is Modality.TEXT
    calibrated = (measured.per_second, f"a calibration of {CALIBRATED_S:.0f} s")
    rate, where = (is_text and earlier_rate(config)) or calibrated
    found.checkpoint_bytes = round(measured.bytes_per_chunk * found.chunks.value)
    embed = (found.chunks.value if models.modality is Modality.IMAGE else found.tokens.value) / rate
    rows = found.chunks.value + found.items.moved
    other = fixed + measured.load_seconds + chunked.seconds_per_byte * size + rows * (_earlier_row(config))
    found.seconds = PlannedSeconds(
        total=round(embed + other, 1),
        embed=round(embed, 1),
        other=round(other, 1),
        tokens_per_second=round(rate, 1) if is_text else 0.0,
        per_second=round(rate / models.modality.per_unit, 1),
        measured=where,
    )
    servers = [one.server for one in config.vectors.values() if one.server is not None]
    if prices := [one.usd_per_million_tokens for one in servers if one.usd_per_million_tokens is not None]:
        found.usd = round(found.tokens.value * sum(prices) / 1e6, 6)
    if cost := config.runner.cost:
        seconds = embed / cost.workers + other
        usd = cost.workers * cost.usd_per_hour * seconds / 3600
        found.pool = PlannedPool(workers=cost.workers, seconds=round(seconds, 1), usd=round(usd, 4))


def _fitted_for_estimates(models: Models, sample: pa.Table) -> Models:
    """The models, with those fitted on some of the sample that are not fitted yet; nothing is written."""
    fitted = {}
    for name, model in models.to_fit.items():
        items = max(FITTED_ITEMS, 2 * model.dimensions)
        fitted[name] = model.rough().fit(sample.column("content").to_pylist()[:items])
    return models.with_fitted(fitted)


def _estimated(ratio: Any, size: int) -> Estimate:
    return Estimate(value=round(ratio.value * size), error=round(ratio.error, 4))


def _earlier_row(config: Config) -> float:
    for report in islice(reports(config), LOOKED_AT):
        spent = report.seconds
        if report.chunks.loaded >= ENOUGH_ROWS and report.chunks.embedded >= ENOUGH_ROWS:
            return (spent.checkpoint + spent.load + spent.index + spent.verify) / report.chunks.loaded
    return SECONDS_A_ROW


def _served(config: Config) -> milvus.CollectionState | None:
    settings = config.collection
    # Opening a Lite file that does not exist would create it.
    if settings.is_lite and not Path(settings.uri).exists():
        return None
    with milvus.connected(settings) as connection:
        return find_served(connection, config)


def _plan_milvus(
    config: Config,
    found: Plan,
    layout: Layout,
    base: Snapshot | None,
    rows: int,
    served: milvus.CollectionState | None,
) -> None:
    columns = [vector_column(with_index(config, served), one) for one in layout.vectors if one.in_collection]
    shown = "; ".join(index_words(one.index_type, one.metric, one.index_parameters) for one in columns)
    size = sum(index_bytes(one.index_type, one.index_parameters, rows, one.dimensions) for one in columns)
    planned = PlannedCollection(index=shown, rows=rows, index_bytes=size)
    found.milvus = planned
    _plan_choice(config, planned, layout, base, served)
    if served is None:
        planned.reasons.append("nothing is served yet")
        found.action = "backfill"
        return
    planned.served = planned.collection = served.name
    if served.space_id != layout.space.id:
        planned.reasons.append(f"another space: {', '.join(_differences(served, layout.space))}")
    elif base is not None:
        planned.reasons += misfits(served, collection_spec(with_index(config, served), base, layout))
    if found.at_most and not planned.reasons:
        planned.reasons.append("chunking or fields")
    if planned.reasons:
        planned.collection = ""
        found.action = "reindex"
    elif found.action == "nothing" and base is not None and not _in_step(served, base):
        planned.reasons.append("it is not in sync with the checkpoint")
        found.action = "sync"


def _plan_choice(
    config: Config,
    planned: PlannedCollection,
    layout: Layout,
    base: Snapshot | None,
    served: milvus.CollectionState | None,
) -> None:
    """What `collection.index: auto` would choose, if there are vectors to measure it on."""
    resolved = with_index(config, served)
    if config.collection.promise is None:
        return
    if served is not None and base is not None and not misfits(served, collection_spec(resolved, base, layout)):
        return
    if base is None or not base.total("rows"):
        planned.index, planned.index_bytes = "auto, chosen by measurement after the embedding", 0
        return
    checkpoint = Checkpoint(config.checkpoint, config.name, base.space_id)
    measured = candidates(config, checkpoint, base, layout, written=False)
    planned.index, planned.index_bytes = f"auto: {candidate_words(measured[0])}", measured[0].memory
    planned.candidates = [
        candidate_words(one) + ("" if one.keeps else " (not within what is configured)") for one in measured
    ]


def _in_step(served: milvus.CollectionState, base: Snapshot) -> bool:
    return served.snapshot_id == base.id and not served.target_id and served.state == STATE_READY


def _differences(served: milvus.CollectionState, space: Space) -> list[str]:
    if not served.space_json:
        return [f"{served.space_id} is served, {space.id} is configured"]
    return space.differences(Space.from_json(served.space_json))


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
