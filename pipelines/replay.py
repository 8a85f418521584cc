"""`vecbeam replay CONFIG`: retries rejected items, after their cause was fixed.

It reads only files with rejects again. Embedded items stay as they are; items that can be embedded now are added.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.run.progress import Progress
from pipelines.run.session import Phase, running
from pipelines.steps.corpus.changes import find_changes
from pipelines.steps.corpus.corpus_digests import read_by_first_rules
from pipelines.steps.corpus.source import SOURCE_SCHEMA, Source, prepare
from pipelines.steps.publish.in_step import bring_collection, check_served
from pipelines.steps.quality.quality_gate import check_gate
from pipelines.steps.snapshot.embedding import embed_changes
from pipelines.steps.snapshot.snapshot_report import report_unchanged
from schemas.config import Config
from schemas.errors import CheckpointError
from schemas.run_report import Report
from transforms.checkpoint import Snapshot
from transforms.checkpoint.snapshot import with_any
from transforms.support.storage import spill

_NOTHING = {"uri": b"", "path": b"", "kind": ""}
"""Values of the columns of a file that does not exist."""


def replay(config: Config, progress: Progress | None = None, *, wait: bool = True) -> Report:
    """Reads the files with rejects again and embeds what was rejected, if that is possible now.

    Args:
        wait: false to end once a job on other machines has started, or is found to run still.

    Raises:
        CheckpointError: if there is no snapshot, or it was made with other settings.
    """
    with running("replay", config, progress, wait=wait) as session:
        with Phase(session, "startup"):
            session.progress.step("prepare")
            source = prepare(config)
            check_gate(config, source.models.layout)
            stands = check_served(config, source)
        session.report.space = source.models.space.id
        with session.exclusive():
            base = _base(source)
            scoped = files_with_rejects(source, base)
            if len(scoped.changed):
                changes = find_changes(session, scoped, base, session.uri("diff"))
                snapshot = embed_changes(session, changes, stands)
            else:
                session.progress.note(f"{base.name} has no rejects whose file is still there: nothing to replay")
                report_unchanged(session, base)
                snapshot = base
            bring_collection(session, source, snapshot, stands)
    return session.report


def _base(source: Source) -> Snapshot:
    base = source.checkpoint.current_snapshot()
    if base is None:
        raise CheckpointError(f"{source.checkpoint.root} holds no snapshot", "run vecbeam backfill first")
    if base.settings_digest != source.settings_digest:
        raise CheckpointError(
            f"{base.name} was made with other settings of corpus, chunk or id_max_bytes",
            "run vecbeam reindex: it reads everything again and keeps existing vectors",
        )
    return base


def files_with_rejects(source: Source, base: Snapshot) -> Source:
    """The files of a snapshot, of which only those with rejects are to be read."""
    rejected = with_any(base.files.select(["path", "errors"]), "errors").to_pylist()
    again = [row["path"] for row in rejected if any(error["error"] != "DuplicateId" for error in row["errors"])]
    first_rules = read_by_first_rules(base)

    def scoped() -> Iterator[pa.Table]:
        known = base.files.select(["path", "size", "modified", "version"]).rename_columns({"path": "name"})
        for before, now in zip(spill.pieces(known), spill.beside(known, source.files, "name"), strict=True):
            there = pc.is_valid(now.column("uri"))
            wanted = pc.and_(there, pc.is_in(before.column("name"), value_set=pa.array(again, pa.string())))
            columns = {name: pc.fill_null(now.column(name), _NOTHING[name]) for name in _NOTHING}
            columns["name"] = before.column("name").cast(pa.large_string())
            for name in ("size", "modified", "version"):
                columns[name] = pc.if_else(wanted, now.column(name), before.column(name))
            columns["version"] = pc.fill_null(columns["version"], "")
            columns["there"], columns["kept"] = there, pc.invert(wanted)
            # The files that are not read now keep the rules that they were read by.
            columns["by_later_rules"] = pc.and_(pc.fill_null(now.column("by_later_rules"), False), not first_rules)
            yield pa.table({name: columns[name] for name in SOURCE_SCHEMA.names}, schema=SOURCE_SCHEMA)

    return replace(source, files=spill.spilled(scoped(), SOURCE_SCHEMA), scoped=True)
