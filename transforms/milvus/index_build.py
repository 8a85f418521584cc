"""Finishes a load: flushes once, builds the index once, waits for it, loads the collection into memory.

Each step first checks the current state, so that the whole can be repeated after a kill at any point.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from schemas.errors import CollectionError
from schemas.milvus import STATE_LOADING, CollectionSpec, VectorColumn
from transforms.milvus.call import LONG_S
from transforms.milvus.collection_state import CollectionState, IndexState
from transforms.milvus.description import state
from transforms.milvus.rows.read import load
from transforms.milvus.small_segments import merge_segments, wait_replaced
from transforms.support import stop

if TYPE_CHECKING:
    from transforms.milvus.connection import Milvus

log = logging.getLogger("vecbeam")

LITE_AT_ONCE_BYTES = 64 << 20
LITE_FLUSH_BYTES = 8 << 20
"""Lite makes a Python object of each number that it flushes, 12 kB for a row of 384: what is more than the first goes
in pieces of the second. Pieces that it merges later should be small as well."""

POLL_S = 0.2
STALLED_S = 1800.0
"""Seconds without any row indexed after which waiting ends with an error."""


def flush_step(connection: Milvus, total_bytes: int) -> int:
    """Bytes of rows after which a load of the given size flushes; 0: once, at its end.

    Servers flush automatically, and limit the rate of requests.
    """
    return LITE_FLUSH_BYTES if total_bytes > LITE_AT_ONCE_BYTES and connection.is_lite else 0


def flush(connection: Milvus, name: str) -> None:
    """Flushes all rows of a collection, so that an index can be built on them."""
    connection.call(connection.client.flush, name, timeout=LONG_S)


def finish(connection: Milvus, spec: CollectionSpec) -> None:
    """Makes a loaded collection searchable by its index.

    An index with the same type, metric and parameters stays; another one is dropped and built again. Small segments of
    a collection that is not complete yet are merged.

    Raises:
        CollectionError: if the collection is gone, or the index can't be built.
    """
    # Rows that aren't flushed yet have no index and would be searched exactly: recall would look better than it is.
    flush(connection, spec.name)
    found = _state(connection, spec)
    current, is_new = found.indexes, found.state == STATE_LOADING
    others = [one for one in spec.vectors if one.name in current and not _is_good(current[one.name], one)]
    if others:
        # An index goes only from a collection that is not in memory.
        connection.call(connection.client.release_collection, spec.name)
    for one in others:
        _drop_index(connection, spec.name, one.name)
    for one in spec.vectors:
        if one.name not in current or one in others:
            connection.again("create_index", partial(_create_index, connection, spec, one))
    _wait_all_built(connection, spec)
    load(connection, spec.name)
    # A server merges only segments that have an index.
    if is_new and (merged := merge_segments(connection, spec.name)):
        _wait_all_built(connection, spec)
        wait_replaced(connection, spec.name, merged)


def _is_good(index: IndexState, column: VectorColumn) -> bool:
    return same_index(index, column) and index.state != "Failed"


def same_index(index: IndexState, column: VectorColumn) -> bool:
    """Whether an index was built as the configuration says.

    vecbeam sets no parameters for FLAT and AUTOINDEX; what a server reports for them is its own.
    """
    return (index.type, index.metric) == (column.index_type, column.metric) and all(
        index.parameters.get(key) == value for key, value in column.build_parameters.items()
    )


def build_parameters(connection: Milvus, column: VectorColumn) -> dict[str, Any]:
    """Build parameters in the shape in which this Milvus reads them.

    pymilvus sends each key separately, as a server expects it; Lite reads only a key named "params", and builds
    with its defaults, silently, if that is missing.
    """
    parameters = dict(column.build_parameters)
    return {"params": parameters} if parameters and connection.is_lite else parameters


def _state(connection: Milvus, spec: CollectionSpec) -> CollectionState:
    found = state(connection, spec.name)
    if found is None:
        raise CollectionError(
            f"Milvus at {connection.settings.uri} has no collection {spec.name!r} any more",
            "run the same command again: it builds the collection from the checkpoint",
        )
    return found


def _create_index(connection: Milvus, spec: CollectionSpec, column: VectorColumn) -> None:
    # An earlier attempt may have succeeded, and only its answer was lost.
    if column.name in _state(connection, spec).indexes:
        return
    parameters = connection.client.prepare_index_params()
    parameters.add_index(
        column.name,
        index_type=column.index_type,
        index_name=column.name,
        metric_type=column.metric,
        params=build_parameters(connection, column),
    )
    # Lite builds within the call; a server answers at once and builds in the background.
    connection.call(connection.client.create_index, spec.name, parameters, timeout=LONG_S, sync=False)


def _drop_index(connection: Milvus, name: str, vector: str) -> None:
    for index_name in connection.call(connection.client.list_indexes, name, field_name=vector):
        connection.call(connection.client.drop_index, name, index_name)


def _wait_all_built(connection: Milvus, spec: CollectionSpec) -> None:
    for one in spec.vectors:
        _wait_built(connection, spec, one)


def _wait_built(connection: Milvus, spec: CollectionSpec, column: VectorColumn) -> None:
    uri = connection.settings.uri
    pending, since = None, time.monotonic()
    while True:
        index = _state(connection, spec).indexes.get(column.name)
        if index is None:
            raise CollectionError(f"the index of {spec.name!r} at {uri} vanished", "run the same command again")
        if index.built:
            return
        if index.state == "Failed":
            raise CollectionError(
                f"Milvus at {uri} can't build the {column.index_type} index of {spec.name!r}: {index.reason}",
                "choose another collection.index",
            )
        if index.pending_rows != pending:
            pending, since = index.pending_rows, time.monotonic()
            log.info("building the index of %s: %d rows to go", spec.name, pending)
        elif time.monotonic() - since > STALLED_S:
            raise CollectionError(
                f"Milvus at {uri} indexed none of the {pending} rows left in {spec.name!r} for {STALLED_S:.0f} s",
                "look at its logs, then run the same command again",
            )
        stop.sleep(POLL_S)
