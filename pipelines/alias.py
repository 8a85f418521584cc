"""What the alias leads to when a run has ended, for its report: asked once, shortly, and never a reason to fail."""

from __future__ import annotations

import logging
from pathlib import Path

from schemas.config import Config
from schemas.errors import CollectionError, ConfigurationError, LockedError
from schemas.report import Served

log = logging.getLogger("vecbeam")

LIMIT_S = 2.0
"""Seconds for each call: a report must not keep a failed run waiting."""


def served_now(config: Config, error: BaseException | None = None) -> Served | None:
    """What is served now, or None where that can't be known.

    Args:
        error: what ended the run; where it says that Milvus is not there, Milvus is not asked again.
    """
    settings = config.collection
    # Errors of Milvus itself have a cause, refusals of our own have none.
    not_there = isinstance(error, CollectionError) and error.__cause__ is not None
    if not_there or isinstance(error, (ConfigurationError, LockedError)):
        return None
    # To open a Lite file that is not there would make it.
    if settings.is_lite and not Path(settings.uri).exists():
        return Served()
    from transforms import collection as milvus

    try:
        with milvus.connected(settings.model_copy(update={"timeout_s": LIMIT_S, "retry_s": 0.0})) as client:
            return Served(collection=milvus.served(client, config.name) or "")
    except Exception as unknown:
        log.info("can't tell what %s serves: %s", config.name, unknown)
        return None
