"""The reports of runs in the checkpoint: the last one, the newest ones, and one by its name."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import islice

from schemas.config import Config
from schemas.errors import CheckpointError, ConfigurationError
from schemas.run_report import Report
from transforms.support.storage import filesystem

log = logging.getLogger("vecbeam")


LISTED = 50
"""Runs of a list."""


def read_report(config: Config, run_id: str | None = None) -> Report:
    """The report of a run, or of the last run that could change data.

    That is the last backfill, sync, reindex, load, replay, rollback, `verify --repair` or `gc --yes`, whichever way it
    ended. Where there was none, it is the last run of all.

    Raises:
        ConfigurationError: if there is no such run.
        CheckpointError: if there was none at all.
    """
    if run_id is not None:
        uri = filesystem.join(_folder(config), run_id, "report.json")
        if "/" in run_id or not filesystem.exists(uri):
            raise ConfigurationError(
                f"no report of run {run_id} below {_folder(config)}", "vecbeam report --list lists the runs"
            )
        return Report.model_validate_json(filesystem.read_bytes(uri))
    last = None
    for report in reports(config):
        if report.changing:
            return report
        last = last or report
    if last is None:
        raise CheckpointError(f"no report of any run below {_folder(config)}", "run vecbeam backfill first")
    return last


def reports(config: Config) -> Iterator[Report]:
    """The reports of all runs, newest first; one that can't be read is left out, as only a page depends on it."""
    for uri in _uris(config):
        try:
            yield Report.model_validate_json(filesystem.read_bytes(uri))
        except (OSError, ValueError) as error:
            log.warning("can't read %s: %s", uri, error)


def latest(config: Config, most: int = LISTED) -> tuple[list[Report], int]:
    """The newest runs, newest first, and how many more there are."""
    found = list(islice(reports(config), most))
    return found, max(0, len(_uris(config)) - most)


def _folder(config: Config) -> str:
    from pipelines.run.jobs.beam_options import prepare_filesystems

    prepare_filesystems(config)
    return filesystem.join(config.checkpoint, config.name, "runs")


def _uris(config: Config) -> list[str]:
    """The reports, newest first."""
    found = filesystem.list_files(_folder(config), "*/report.json")

    def began(file: filesystem.FileInfo) -> tuple[str, float]:
        # Before format version 2 a run's name had only the second: the file's time sorts two runs of one second.
        second, _, fraction = file.uri.split("/")[-2].partition("-")[0].rstrip("Z").partition(".")
        return second, float(f"0.{fraction}") if fraction.isdigit() else file.modified % 1

    return [file.uri for file in sorted(found, key=began, reverse=True)]
