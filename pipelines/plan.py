"""`vecbeam plan CONFIG`: what a run would do, how long it would take and what it would cost. It writes nothing."""

from __future__ import annotations

import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

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
from pipelines.steps.judgement.forecast import (
    LOOKED_AT,
    SAMPLED,
    earlier_rate,
    first_rejects,
    foreseen_rejects,
    planned_items,
)
from pipelines.steps.judgement.limits import check_fields
from pipelines.steps.judgement.null_columns import foreseen, unfilterable
from pipelines.steps.judgement.outcome import foresee, foresee_unchanged
from pipelines.steps.judgement.standing import Standing, standing
from pipelines.steps.publish.index_candidates import candidate_words, candidates
from pipelines.steps.quality.quality_gate import check_gate, gate_words
from pipelines.steps.snapshot.planned_jobs import planned_jobs
from schemas.config import Config
from schemas.config.gpu_workers import gpu_words
from schemas.layout import Layout, Space
from schemas.milvus import STATE_READY, index_bytes, index_words
from schemas.modality import Modality
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
    config: Config,
    progress: Progress | None = None,
    *,
    allow_deletes: bool = False,
    here: bool = False,
    words: Sequence[str] = (),
) -> Plan:
    """Compares corpus, checkpoint and collection.

    What a run would be refused for (deletions, rejects, dropped tokens) is not an error of the plan, but its `outcome`.

    Args:
        allow_deletes: plans for a run with this option.
        here: reads all of the changed files in this process, and starts no job.
        words: of the command line after the command's name, for the command that the plan recommends.

    Raises:
        ConfigurationError: if no record has a field that the configuration names.
        CorpusError: two items with one id, where the configuration says `on_duplicate: error`.
    """
    with progress or Progress(quiet=True) as shown, tempfile.TemporaryDirectory(prefix="vecbeam-plan-") as folder:
        session = Session("plan", _reading_here(config) if here else config, shown)
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
            rows = _plan_rows(found, session, config, source, base, stands, folder, startup, allow_deletes)
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


def _reading_here(config: Config) -> Config:
    return config.model_copy(update={"runner": config.runner.model_copy(update={"local_below": sys.maxsize})})


def _plan_rows(
    found: Plan,
    session: Session,
    config: Config,
    source: Source,
    base: Snapshot | None,
    stands: Standing,
    folder: str,
    startup: float,
    allow_deletes: bool,
) -> int:
    """Fills in what must be embedded; returns about how many rows there will be."""
    start = time.perf_counter()
    changes = find_changes(session, source, base, session.uri("diff"), here=folder, survey=True)
    survey = time.perf_counter() - start
    check_fields(changes, config)
    found.items = planned_items(changes)
    found.rejects = foreseen_rejects(changes)
    found.rejected = first_rejects(changes)
    found.action = "sync" if base is not None else "backfill"
    found.at_most = changes.rules_changed
    _estimate(session, found, changes, startup + survey)
    found.jobs = planned_jobs(config, changes, found.checkpoint_bytes)
    found.runner = config.runner.name
    for name, model in changes.source.models.to_fit.items():
        fitted_on = min(_to_embed(found.items), model.sample_of[0])
        found.fits.append(PlannedFit(vector=name, model=model.name, items=fitted_on))
    found.outcome = foresee(changes, config, stands, found, allow_deletes=allow_deletes)
    changes.findings.remove()
    if base is None and stands.items is None and stands.collection:
        found.warnings.append(
            f"the checkpoint does not know what {stands.collection} holds ({stands.rows:,} rows): a run deletes those "
            "that are not in the corpus, and the plan does not count them"
        )
    found.warnings += unfilterable(config)
    found.warnings += foreseen(config.corpus, source.listed)
    before = base.total("rows") if base is not None else 0
    of_an_item = max(1.0, found.chunks.value / max(1, changes.items_to_embed))
    return max(found.chunks.value, before + round(found.items.new * of_an_item))


def _to_embed(items: PlannedItems) -> int:
    return items.new + items.changed


def _estimate(session: Session, found: Plan, changes: Changes, fixed: float) -> None:
    from transforms.embed.estimate import calibrate, chunk_sample

    config, models = session.config, changes.source.models
    sample, population = changes.sample_to_embed()
    to_embed, size = changes.items_to_embed, changes.bytes_to_embed
    reused = _to_embed(found.items) - to_embed + found.items.moved  # written with vectors that exist
    if to_embed == 0 or sample.num_rows == 0:
        other = round(fixed + reused * _earlier_row(config), 1)
        found.seconds = PlannedSeconds(total=other, other=other, measured=NOTHING_TO_EMBED)
        return
    models.check_runnable()
    session.progress.step("calibrate")
    fitted = _fitted_for_estimates(models, sample)
    # Where not all items are in that fit, terms of the others would count as dropped.
    is_whole_fit = changes.surveyed <= FITTED_ITEMS
    chunked = chunk_sample(sample, population, config, fitted if is_whole_fit else models)
    found.sampled = chunked.items
    # Each item is one chunk.
    is_whole = bool(config.inputs) or (models.modality is Modality.IMAGE and config.corpus.pages is None)
    found.chunks = Estimate(value=to_embed) if is_whole else chunked.chunks.total(to_embed, size)
    counts_chunks = is_whole and models.modality.has_rows_of_several
    found.tokens = found.chunks if counts_chunks else chunked.tokens.total(to_embed, size)
    found.dropped = chunked.dropped.total(to_embed, size)
    # A few changed items do not show how fast the encoder is.
    more = changes.findings.sample.slice(0, SAMPLED)
    timed = chunked if sample.num_rows >= more.num_rows else chunk_sample(more, changes.surveyed, config, fitted)
    measured = calibrate(timed.table, fitted, CALIBRATED_S, sample_texts(session, changes))
    is_text = models.modality is Modality.TEXT
    calibrated = (measured.per_second, f"a calibration of {CALIBRATED_S:.0f} s")
    rate, where = (is_text and earlier_rate(config)) or calibrated
    found.checkpoint_bytes = round(measured.bytes_per_chunk * found.chunks.value)
    embed = (found.chunks.value if models.modality is Modality.IMAGE else found.tokens.value) / rate
    rows = found.chunks.value + reused
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
