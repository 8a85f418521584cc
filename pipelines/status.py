"""`vecbeam status CONFIG`: what is served, what the checkpoint has, what the last run did. Changes nothing.

Each part is found on its own: a Milvus that does not answer, or a model whose files are not here, leaves out what
depends on it, and says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.run import report_store
from pipelines.run.jobs.beam_options import prepare_filesystems
from pipelines.run.report_text import result
from pipelines.steps.collection.served import find_served, open_for_search
from pipelines.steps.collection.unpublished import refused, unpublished
from schemas.alias_status import ConfiguredEncoder, Newest, Previous, ServedCollection, Status
from schemas.config import Config
from schemas.errors import CollectionError, VecbeamError
from schemas.layout import Space
from schemas.milvus import STATE_READY, index_words
from schemas.run_report import Report
from transforms import milvus
from transforms.checkpoint import Checkpoint, Snapshot, lock, spaces_of
from transforms.encoders import hub
from transforms.encoders.models import Models
from transforms.support.storage import filesystem

ANSWER_S = 5.0
"""Seconds in which Milvus must answer each call."""


def status(config: Config) -> Status:
    """The state of an alias and its checkpoint. Loads no model, fetches none, and writes nothing.

    Raises:
        CheckpointError: if a snapshot is damaged.
        StorageError: if the store of the checkpoint does not answer.
    """
    prepare_filesystems(config)
    checkpoint = Checkpoint(config.checkpoint, config.name, "")
    last = next((report for report in report_store.reports(config) if report.changing), None)
    found = Status(
        config.name,
        config.collection.uri,
        checkpoint.root,
        ConfiguredEncoder(config.model_names),
        newest=_newest(checkpoint),
        last_run=None if last is None else _run(last),
        lock=lock.holder_of(checkpoint.root),
    )
    state, found = _in_milvus(config, checkpoint, found)
    found = replace(found, encoder=_encoder(config, state, found))
    held = checkpoint.find_snapshot(state.snapshot_id) if state is not None and state.snapshot_id else None
    found.notes.extend(_notes(config, checkpoint, found, held))
    return found


def _run(report: Report) -> dict[str, Any]:
    return {
        "run_id": report.run_id,
        "command": report.command,
        "exit_code": report.exit_code,
        "result": result(report),
        "error": report.error.model_dump(by_alias=True) if report.error else None,
    }


def _newest(checkpoint: Checkpoint) -> Newest | None:
    names = checkpoint.snapshots()
    if not names:
        return None
    found = checkpoint.read_snapshot(names[-1])
    file = filesystem.find(filesystem.join(checkpoint.root, "snapshots", found.name))
    return Newest(
        found.name,
        found.id,
        found.space_id,
        found.total("rows"),
        found.total("items"),
        "" if file is None else f"{datetime.fromtimestamp(file.modified, UTC):%Y-%m-%d %H:%M:%S} UTC",
        found.errors(),
    )


def _in_milvus(config: Config, checkpoint: Checkpoint, found: Status) -> tuple[milvus.CollectionState | None, Status]:
    settings = config.collection.model_copy(
        update={"timeout_s": min(ANSWER_S, config.collection.timeout_s), "retry_s": 0.0}
    )
    if settings.is_lite and not Path(settings.uri).exists():  # opening it would create it
        return None, replace(found, error=f"there is no Milvus Lite collection at {settings.uri}")
    try:
        with milvus.connected(settings, create=False) as connection:
            state = find_served(connection, config)
            found = replace(found, server=str(connection.server))
            if state is None:
                return None, found
            served, previous = _served(config, checkpoint, connection, state), _previous(connection, state)
            return state, replace(found, served=served, previous=previous)
    except CollectionError as error:
        return None, replace(found, error=str(error))


def _served(
    config: Config, checkpoint: Checkpoint, connection: milvus.Milvus, state: milvus.CollectionState
) -> ServedCollection:
    # Milvus Lite forgets with each process what is loaded; a server that does not have it loaded can't be searched.
    if connection.is_lite:
        open_for_search(connection, state.name)
    loaded = state.loaded or connection.is_lite
    indexes = {
        vector: index_words(one.type, one.metric, one.parameters)
        + ("" if one.built else f", {one.state or 'not built'}")
        for vector, one in state.indexes.items()
    }
    held = checkpoint.find_snapshot(state.snapshot_id) if state.snapshot_id else None
    moved, updated = _runs_of(config, state)
    return ServedCollection(
        state.name,
        milvus.count(connection, state.name) if loaded else None,
        loaded,
        indexes,
        state.space_id or "",
        state.snapshot_id or "",
        None if held is None else held.total("rows"),
        state.target_id or "",
        *((_began(moved), moved.run_id) if moved is not None else ("", "")),
        *((_began(updated), updated.run_id) if updated is not None else ("", "")),
    )


def _runs_of(config: Config, state: milvus.CollectionState) -> tuple[Report | None, Report | None]:
    """The newest run that moved the alias to a collection, and the newest that changed what it holds."""
    updated, is_found = None, False
    for report in report_store.reports(config):
        if report.served is None or report.served.collection != state.name:
            continue
        if not (is_found or report.exit_code) and report.changing and report.snapshot:
            # Of the runs that finished with its snapshot, those that wrote no row came after the one that brought it.
            if report.snapshot == state.snapshot_id:
                updated = report
                is_found = bool(report.chunks.loaded or report.chunks.deleted)
            else:
                is_found = updated is not None
        if report.served.moved:
            return report, updated or report
    return None, updated


def _began(report: Report) -> str:
    try:
        began = datetime.strptime(report.run_id.split("-")[0].split(".")[0].rstrip("Z"), "%Y%m%dT%H%M%S")
    except ValueError:
        return ""
    return f"{began:%Y-%m-%d %H:%M:%S} UTC"


def _previous(connection: milvus.Milvus, state: milvus.CollectionState) -> Previous | None:
    if state.previous is None:
        return None
    found = milvus.state(connection, state.previous)
    if found is None:
        return None
    is_ready = found.state == STATE_READY and not found.target_id
    return Previous(found.name, found.space_id or "", found.snapshot_id or "", is_ready)


def _encoder(config: Config, state: milvus.CollectionState | None, found: Status) -> ConfiguredEncoder:
    def spaces() -> Iterator[Space]:
        if state is not None and state.space_json:
            yield Space.from_json(state.space_json)
        yield from spaces_of(config)

    try:
        with hub.offline():
            space = Models.of(config, spaces).space.id
    except VecbeamError as error:
        return replace(found.encoder, error=str(error))
    return replace(found.encoder, space=space, is_served=None if state is None else state.space_id == space)


def _notes(config: Config, checkpoint: Checkpoint, found: Status, held: Snapshot | None) -> Iterator[str]:
    newest, served = found.newest, found.served
    if newest is not None:
        here = replace(checkpoint, space_id=newest.space)
        # Without Milvus it is not known what is served.
        yield from refused(here) if found.error else unpublished(config, here, held)
    other = found.encoder.space
    if other and (newest is None or other[:8] != newest.space[:8]):
        yield from refused(replace(checkpoint, space_id=other))
    if served is None:
        return
    if served.updating_to:
        yield f"an update to the snapshot {served.updating_to} was begun and has not ended: run vecbeam sync"
    if not served.loaded:
        yield f"{served.collection} is not in the server's memory, so that no search finds it: run vecbeam load"
    if served.snapshot and held is None:
        yield f"the checkpoint does not have the snapshot {served.snapshot} that is served: run vecbeam sync"
    if None not in (served.rows, served.snapshot_rows) and served.rows != served.snapshot_rows:
        yield f"{served.rows} rows are served, {served.snapshot_rows} are in their snapshot: run vecbeam verify"
    if not served.space:
        yield f"vecbeam did not make {served.collection}: the alias was moved to it by another program"
    elif found.encoder.is_served is False:
        yield (
            f"the configuration's encoder {found.encoder.model} is of space {found.encoder.space}, what is served of "
            f"{served.space}: run vecbeam reindex, or use the configuration that built it"
        )


def text(found: Status) -> str:
    """Returns the status for people, a line for each thing."""
    lines = [("alias", f"{found.alias} at {found.uri}" + (f" ({found.server})" if found.server else ""))]
    if found.error:
        lines.append(("milvus", f"does not answer: {found.error}"))
    lines += _served_lines(found) if found.served is not None else []
    if found.served is None and not found.error:
        lines.append(("serving", "nothing"))
    newest, previous, encoder = found.newest, found.previous, found.encoder
    if newest is None:
        lines.append(("newest", f"no snapshot in {found.checkpoint}: run vecbeam backfill"))
    else:
        shown = f"{newest.rows:,} rows of {newest.items:,} items, {newest.name}, {newest.written}"
        is_served = found.served is not None and found.served.snapshot == newest.snapshot
        lines.append(("newest", f"{shown}{', served' if is_served else ''}"))
        errors = ", ".join(f"{count:,} {error}" for error, count in newest.rejects.items())
        lines.append(("rejects", errors or "none"))
    if previous is not None:
        shown = "" if previous.ready else ", never finished"
        lines.append(("previous", f"{previous.collection}, space {previous.space}{shown}"))
    elif found.served is not None:
        lines.append(("previous", "no collection to roll back to"))
    which = {True: ", as served", False: ", not as served", None: ""}[encoder.is_served]
    known = f"space {encoder.space}{which}" if encoder.space else f"its space is not known: {encoder.error}"
    lines.append(("encoder", f"{encoder.model}, {known}"))
    if (run := found.last_run) is not None:
        error = f": {run['error']['message']}" if run["error"] else ""
        lines.append(("last run", f"{run['run_id']}, {run['result']}{error}"))
    else:
        lines.append(("last run", "none"))
    if (holder := found.lock) is not None:
        who = f"run {holder.get('run_id', '?')}, process {holder.get('process', '?')} on {holder.get('host', '?')}"
        lines.append(("lock", f"{who}, since {holder.get('since', '?')}"))
    lines += [("note", note) for note in found.notes]
    return "\n".join(f"{name:<10}{value}" for name, value in lines)


def _served_lines(found: Status) -> Iterator[tuple[str, str]]:
    served = found.served
    assert served is not None
    yield "serving", f"{served.collection}, space {served.space or '-'}"
    rows = "rows not known" if served.rows is None else f"{served.rows:,} rows"
    yield "rows", f"{rows}, snapshot {served.snapshot or '-'}"
    for vector, words in served.index.items():
        yield "index", f"{vector}: {words}"
    if served.published:
        yield "published", f"{served.published} by {served.published_by}"
    if served.updated and served.updated_by != served.published_by:
        yield "updated", f"{served.updated} by {served.updated_by}"
