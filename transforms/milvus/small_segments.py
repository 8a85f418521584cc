"""Merges the small segments of a collection that was just loaded, which a server does by itself some minutes later.

Each segment has an index of its own, and a search looks into all of them: many small ones find more than the one that
they become. On the server 2.3.5, HNSW had a recall@10 of 0.71 in six segments, and of 0.63 once they were merged.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from schemas.errors import CollectionError
from transforms.milvus.call import LONG_S
from transforms.support import stop

if TYPE_CHECKING:
    from transforms.milvus.connection import Milvus

log = logging.getLogger("vecbeam")

POLL_S = 0.2
MERGED_S = 1800.0
"""Seconds after which a merge is left to the server."""
LOADED_S = 120.0
"""Seconds until the merged segments are searched."""
PAUSES_S = (0.0, 1.0, 2.0, 4.0)
"""Before each try. A server that merges a segment already, or is busy, ends a request at once and merges nothing."""
EXECUTING = "Executing"


def merge_segments(connection: Milvus, name: str) -> list[int]:
    """Merges small segments, and waits for it.

    Returns:
        Numbers of the segments that became others; empty in Milvus Lite, where there is nothing to merge, and where
        the server does not let this account merge, or takes too long.
    """
    if connection.is_lite:
        return []
    try:
        before = now = _segments(connection, name)
        for pause in PAUSES_S:
            if len(now) < 2:  # a server would write a single segment again
                break
            stop.sleep(pause)
            sources = _merge(connection, name)
            if sources is None or sources:
                return [*(sources or ())]
            now = _segments(connection, name)
        return [*(before - now)]
    except CollectionError as error:
        log.warning("%s: small segments are not merged, so recall may change later: %s", name, error.message)
        return []


def _segments(connection: Milvus, name: str) -> set[int]:
    return {one.segment_id for one in connection.call(connection.client.list_persistent_segments, name)}


def _merge(connection: Milvus, name: str) -> set[int] | None:
    """Requests a merge and waits for it; the segments that it merged, or None if it takes too long."""
    job = connection.call(connection.client.compact, name, timeout=LONG_S)
    since = time.monotonic()
    while connection.call(connection.client.get_compaction_state, job) == EXECUTING:
        if time.monotonic() - since > MERGED_S:
            log.warning("%s: Milvus has not merged small segments for %d s: recall may change", name, MERGED_S)
            return None
        stop.sleep(POLL_S)
    plans = connection.call(connection.client.get_compaction_plans, job).plans
    return {source for plan in plans for source in plan.sources}


def wait_replaced(connection: Milvus, name: str, merged: list[int]) -> None:
    """Waits until searches no longer look into segments that were merged, where the server tells that."""
    since = time.monotonic()
    while merged:
        try:
            loaded = connection.call(connection.client.list_loaded_segments, name)
        except CollectionError as error:
            log.warning("%s: Milvus does not tell which segments it searches: %s", name, error.message)
            return
        if not {one.segment_id for one in loaded} & {*merged}:
            return
        if time.monotonic() - since > LOADED_S:
            log.warning("%s: Milvus still searches segments that were merged: recall may change", name)
            return
        stop.sleep(POLL_S)
