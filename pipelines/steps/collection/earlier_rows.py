"""The rows of an earlier snapshot, by a date or by its name."""

from __future__ import annotations

from datetime import UTC, datetime

from pipelines.run.jobs.beam_options import prepare_filesystems
from schemas.config import Config
from schemas.errors import CheckpointError, ConfigurationError
from transforms.checkpoint.snapshot import SNAPSHOT_DIGITS
from transforms.explore.live_rows import LiveRows
from transforms.support.storage import filesystem

SHOWN = 5


def rows_as_of(config: Config, rows: LiveRows, since: str) -> LiveRows:
    """The rows of an earlier snapshot of the same space.

    Args:
        rows: of the later snapshot.
        since: a date (2026-11-26, or with a time; UTC unless it names an offset), which means the newest snapshot whose
            file was written by then; or the number, the id or the file name of a snapshot.

    Raises:
        ConfigurationError: if it is none of these, or no earlier snapshot is meant; with the snapshots that there are.
        CheckpointError: if it is one of these, and there is no earlier snapshot.
    """
    prepare_filesystems(config)
    checkpoint = rows.checkpoint
    names = [name for name in checkpoint.snapshots(rows.snapshot.space_id) if name < rows.snapshot.name]
    moment = _moment(since)
    if moment is None:
        chosen = [name for name in names if _is_meant(name, since)]
    else:
        listed = filesystem.list_files(filesystem.join(checkpoint.root, "snapshots"), "*.parquet")
        written = {file.uri.rsplit("/", 1)[-1]: file.modified for file in listed}
        chosen = [name for name in names if written.get(name, float("inf")) <= moment.timestamp()]
    if chosen:
        return LiveRows(checkpoint, checkpoint.read_snapshot(chosen[-1]))
    what = f"{since!r} is neither a date nor an earlier snapshot"
    if not names and (moment is not None or any(_is_meant(name, since) for name in checkpoint.snapshots())):
        raise CheckpointError(
            f"{checkpoint.root} has no snapshot of the space {rows.snapshot.space_id} before {rows.snapshot.name}",
            "run vecbeam sync once the corpus has changed",
        )
    if not names:
        raise ConfigurationError(f"--since: {what}; there is no earlier snapshot yet", "write --since 2026-11-01")
    if moment is not None:
        what = f"no snapshot before {rows.snapshot.name} was written by {moment:%Y-%m-%d %H:%M:%S} UTC"
    shown = ", ".join(names[-SHOWN:])
    raise ConfigurationError(
        f"--since: {what}; the earlier snapshots are {'... ' if len(names) > SHOWN else ''}{shown}",
        f"for example --since {int(names[-1][:SNAPSHOT_DIGITS])}",
    )


def _moment(since: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(since)
    except ValueError:
        return None
    if since.isdigit() and len(since) <= SNAPSHOT_DIGITS:  # the number of a snapshot
        return None
    found = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    return found.astimezone(UTC)


def _is_meant(name: str, since: str) -> bool:
    stem = name.removesuffix(".parquet")
    number, _, identity = stem.split("-", 2)
    is_number = since.isdigit() and len(since) <= SNAPSHOT_DIGITS and int(since) == int(number)
    return is_number or since in (name, stem, identity)
