"""`vecbeam gc CONFIG`: collections and files of the checkpoint that nothing refers to any more.

Listed first, removed with `--yes`. What is served stays, and so do `keep` collections before it, with their snapshots.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field, replace
from typing import Any

from pipelines.run import report_store
from pipelines.run.jobs.beam_options import prepare_filesystems
from pipelines.run.progress import Progress
from pipelines.run.session import running
from pipelines.steps.corpus.source import open_checkpoint
from schemas.config import Config
from schemas.errors import CheckpointError
from schemas.layout import Space
from schemas.milvus import STATE_READY
from transforms import milvus
from transforms.checkpoint import Checkpoint, Snapshot
from transforms.encoders.fitted.fitted_files import FOLDER as FITTED
from transforms.encoders.fitted.kept_fits import fits_of
from transforms.support.storage import filesystem

FOLDERS = ("parts", "items", "thumbnails", "rejects")


@dataclass
class Garbage:
    """Collections and files that can be removed.

    Attributes:
        collections: names, with why.
        snapshots: file names.
        files: uris, with their sizes in bytes.
        kept: names of the collections that stay, the served one first; the one that was served last,
            where somebody moved the alias away.
    """

    collections: dict[str, str] = field(default_factory=dict)
    snapshots: list[str] = field(default_factory=list)
    files: dict[str, int] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    removed: bool = False

    def as_json(self) -> dict[str, Any]:
        return {
            "kept": self.kept,
            "collections": self.collections,
            "snapshots": self.snapshots,
            "files": len(self.files),
            "bytes": sum(self.files.values()),
            "removed": self.removed,
        }


def gc(config: Config, progress: Progress | None = None, *, keep: int = 1, yes: bool = False) -> Garbage:
    """Finds what nothing refers to, and removes it if `yes` is true.

    Args:
        keep: how many collections before the served one stay.
        yes: removes what was found; without it nothing changes.
    """
    prepare_filesystems(config)
    checkpoint, _ = open_checkpoint(config)
    if not yes:
        with milvus.connected(config.collection, create=False) as connection:
            return _find(connection, config, checkpoint, keep)
    with running("gc", config, progress) as session, session.exclusive():
        with milvus.connected(config.collection, create=False) as connection:
            garbage = _find(connection, config, checkpoint, keep)
            # Removes what refers before what is referred to: wherever it stops, nothing that remains misses a part.
            for name in garbage.collections:
                milvus.drop(connection, name)
        for folder in ("snapshots", "files"):
            filesystem.delete([filesystem.join(checkpoint.root, folder, name) for name in garbage.snapshots])
        session.forget_left()
        filesystem.delete(list(garbage.files))
        for uri in garbage.files:
            filesystem.remove_empty_folders(uri.rpartition("/")[0], checkpoint.root)
        garbage.removed = True
        session.report.reason = (
            f"{len(garbage.collections)} collections, {len(garbage.snapshots)} snapshots and {len(garbage.files)} files"
        )
        session.report.collection = garbage.kept[0] if garbage.kept else ""
    return garbage


def _find(connection: milvus.Milvus, config: Config, checkpoint: Checkpoint, keep: int) -> Garbage:
    garbage = Garbage()
    states = [state for name in milvus.names(connection) if (state := milvus.state(connection, name)) is not None]
    ours = {state.name: state for state in states if state.alias == config.name and state.space_id}
    name = milvus.served(connection, config.name)
    if name not in ours:
        name = _last_served(config, ours)
    while name in ours and name not in garbage.kept and len(garbage.kept) <= keep:
        garbage.kept.append(name)
        name = ours[name].previous
    for other, state in sorted(ours.items()):
        if other in garbage.kept:
            continue
        aliases = milvus.aliases(connection, other)
        if aliases:  # someone serves it under a name of their own
            garbage.kept.append(other)
            continue
        garbage.collections[other] = "neither served nor kept" if state.state == STATE_READY else "never finished"
    _find_files(garbage, checkpoint, [ours[name] for name in garbage.kept])
    return garbage


def _last_served(config: Config, ours: Container[str]) -> str | None:
    """The collection that was served before somebody moved the alias away or dropped it, by the reports."""
    served = (report.served.collection for report in report_store.reports(config) if report.served is not None)
    return next((name for name in served if name in ours), None)


def _find_files(garbage: Garbage, checkpoint: Checkpoint, kept: list[milvus.CollectionState]) -> None:
    wanted = {identity for state in kept for identity in (state.snapshot_id, state.target_id) if identity}
    names = checkpoint.snapshots()
    newest = {name.split("-")[1]: name for name in names}
    current = {names[-1], newest.get(checkpoint.space_id[:8], names[-1])} if names else set()
    stays: list[Snapshot] = []
    found: set[str] = set()
    for name in reversed(names):
        identity = name.removesuffix(".parquet").rpartition("-")[2]
        if name in current or (identity in wanted and identity not in found):
            stays.append(checkpoint.read_snapshot(name))
            found.add(identity)
        else:
            garbage.snapshots.append(name)
    garbage.snapshots.reverse()
    if (refused := checkpoint.refused_snapshot()) is not None:
        stays.append(refused[0])  # the next run finds what it embedded
    _find_parts(garbage, checkpoint, stays)
    whole = set(names)
    for folder in ("snapshots", "files"):
        for file in filesystem.list_files(checkpoint.root, f"{folder}/*.parquet"):
            if file.uri.rpartition("/")[2] not in whole:  # a run or a gc was killed between the two files of a snapshot
                garbage.files[file.uri] = file.size
    for file in filesystem.list_files(checkpoint.root, "loads/*/*.json"):
        if not any(file.uri.split("/")[-2].startswith(f"{state.name}-") for state in kept):
            garbage.files[file.uri] = file.size
    for pattern in ("runs/*/**/*.parquet", "*/attempts/*.json"):
        for file in filesystem.list_files(checkpoint.root, pattern):
            garbage.files[file.uri] = file.size  # of runs that were killed


def _find_parts(garbage: Garbage, checkpoint: Checkpoint, stays: list[Snapshot]) -> None:
    names = {(snapshot.space_id, "parts", name) for snapshot in stays for name in snapshot.part_names}
    names |= {(space, folder, name) for space, _, name in names for folder in ("items", "thumbnails")}
    names |= {(snapshot.space_id, "rejects", name) for snapshot in stays for name in snapshot.rejects()}
    spaces = {snapshot.space_id for snapshot in stays}
    for folder in FOLDERS:
        for file in filesystem.list_files(checkpoint.root, f"*/{folder}/*.parquet"):
            space, _, name = file.uri.split("/")[-3:]
            if (space, folder, name) not in names:
                garbage.files[file.uri] = file.size
    for file in filesystem.list_files(checkpoint.root, "*/queries/*.parquet"):
        if file.uri.split("/")[-3] not in spaces:
            garbage.files[file.uri] = file.size
    for file in filesystem.list_files(checkpoint.root, "*/space.json"):
        if file.uri.split("/")[-2] not in spaces:
            garbage.files[file.uri] = file.size
    fits = {fit for space in spaces for fit in fits_of(_space(checkpoint, space))}
    for file in filesystem.list_files(checkpoint.root, f"{FITTED}/*/*"):
        if file.uri.split("/")[-2] not in fits:
            garbage.files[file.uri] = file.size


def _space(checkpoint: Checkpoint, space_id: str) -> Space:
    try:
        return replace(checkpoint, space_id=space_id).read_space()
    except CheckpointError:  # without it nobody can use the rows
        return Space({})


def text(garbage: Garbage) -> str:
    """Returns, as text, what can be removed or was removed."""
    did = "removed" if garbage.removed else "to remove"
    lines = [f"kept       {', '.join(garbage.kept) or 'no collection'}"]
    lines += [f"{did:<10} collection {name}: {why}" for name, why in garbage.collections.items()]
    lines += [f"{did:<10} snapshot {name}" for name in garbage.snapshots]
    if garbage.files:
        lines.append(f"{did:<10} {len(garbage.files)} files of the checkpoint, {sum(garbage.files.values()):,} bytes")
    if len(lines) == 1:
        lines.append("nothing to remove")
    elif not garbage.removed:
        lines.append("nothing was touched; run it again with --yes")
    return "\n".join(lines)
