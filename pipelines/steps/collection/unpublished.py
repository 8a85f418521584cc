"""Snapshots of a checkpoint that are not what is served, and why."""

from __future__ import annotations

from pipelines.run.report_store import reports
from schemas.config import Config
from transforms.checkpoint import Checkpoint, Snapshot


def unpublished(config: Config, checkpoint: Checkpoint, held: Snapshot | None) -> list[str]:
    """Later snapshots of a space that were not published, and why; one sentence each.

    Args:
        held: what is served; None if nothing is.
    """
    found = []
    current = checkpoint.current_snapshot()
    if current is not None and (held is None or current.id != held.id):
        # Of its runs the last one: what stopped an earlier one may be repaired by now.
        last = next((report for report in reports(config) if report.snapshot == current.id), None)
        why = f"; {last.run_id}: {last.error.message}" if last is not None and last.error else ""
        newer = "a newer snapshot" if held is not None else "the newest snapshot"
        found.append(f"{newer} with {current.total('rows')} rows is not published ({current.name}){why}")
    return found + refused(checkpoint)


def refused(checkpoint: Checkpoint) -> list[str]:
    """The sentence on the refused snapshot of a space, if there is one."""
    found = checkpoint.refused_snapshot()
    return [] if found is None else [f"a later run was refused, and its snapshot not taken: {found[1]}"]
