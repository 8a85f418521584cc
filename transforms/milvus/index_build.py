"""Finishing a load: flush once, build the index once, wait until it stands, bring the collection into memory.

Each step looks first at what is there, so that the whole can be repeated after a kill at any point.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from schemas.config import Collection
from schemas.errors import CollectionError
from schemas.milvus import CollectionSpec
from transforms.milvus.call import LONG_S, again, call, settings_of
from transforms.milvus.description import VECTOR, IndexState, state
from transforms.milvus.rows.read import load
from transforms.support import stop

if TYPE_CHECKING:
    from pymilvus import MilvusClient

log = logging.getLogger("vecbeam")

LITE_AT_ONCE_BYTES = 64 << 20
LITE_FLUSH_BYTES = 8 << 20
"""Lite makes a Python object of each number that it flushes, 12 kB for a row of 384: what is more than the first goes
in pieces of the second. Pieces that it merges later should be small as well."""

POLL_S = 0.2
STALLED_S = 1800.0
"""Seconds without any row indexed after which waiting ends with an error."""


def flush_step(client: MilvusClient, total_bytes: int) -> int:
    """Bytes of rows after which a load of so many bytes is to flush; 0: once, at its end.

    Servers flush by themselves, and limit how often one may ask.
    """
    return LITE_FLUSH_BYTES if total_bytes > LITE_AT_ONCE_BYTES and is_lite(client) else 0


def flush(client: MilvusClient, config: Collection, name: str) -> None:
    """Has all rows of a collection written down, where an index can be built on them."""
    call(config, client.flush, name, timeout=LONG_S)


def finish(client: MilvusClient, config: Collection, spec: CollectionSpec) -> None:
    """Makes a loaded collection searchable by its index.

    An index with the same type, metric and parameters stays; another one is dropped and built anew.

    Raises:
        CollectionError: where the collection is gone, or the index can't be built.
    """
    # Rows that aren't flushed yet have no index and would be searched exactly: recall would look better than it is.
    flush(client, config, spec.name)
    current = _index(client, spec)
    if current is not None and not (same_index(current, spec) and current.state != "Failed"):
        _drop_index(client, config, spec.name)
        current = None
    if current is None:
        again(config, "create_index", lambda: _create_index(client, spec))
    _wait_built(client, config, spec)
    load(client, config, spec.name)


def same_index(index: IndexState, spec: CollectionSpec) -> bool:
    """Whether an index was built as the configuration says.

    FLAT and AUTOINDEX have no parameters of ours; what a server reports for them is its own.
    """
    return (index.type, index.metric) == (spec.index_type, spec.metric) and all(
        index.parameters.get(key) == value for key, value in spec.build_parameters.items()
    )


def is_lite(client: MilvusClient) -> bool:
    """Whether Milvus Lite answers, embedded or served by `milvus-lite server`."""
    return str(call(settings_of(client), client.get_server_version)).startswith("milvus_lite")


def build_parameters(client: MilvusClient, spec: CollectionSpec) -> dict[str, Any]:
    """Build parameters in the shape in which this Milvus reads them.

    pymilvus sends each key on its own, as a server wants it; Lite reads nothing but a key named "params", and builds
    with its defaults, silently, where that is missing.
    """
    parameters = dict(spec.build_parameters)
    return {"params": parameters} if parameters and is_lite(client) else parameters


def _index(client: MilvusClient, spec: CollectionSpec) -> IndexState | None:
    found = state(client, spec.name)
    if found is None:
        raise CollectionError(
            f"Milvus at {settings_of(client).uri} has no collection {spec.name!r} any more",
            "run the same command again: it builds the collection from the checkpoint",
        )
    return found.index


def _create_index(client: MilvusClient, spec: CollectionSpec) -> None:
    # An earlier attempt may have come through, and only its answer was lost.
    if _index(client, spec) is not None:
        return
    parameters = client.prepare_index_params()
    parameters.add_index(
        VECTOR,
        index_type=spec.index_type,
        index_name=VECTOR,
        metric_type=spec.metric,
        params=build_parameters(client, spec),
    )
    # Lite builds within the call; a server answers at once and builds in the background.
    call(settings_of(client), client.create_index, spec.name, parameters, timeout=LONG_S, sync=False)


def _drop_index(client: MilvusClient, config: Collection, name: str) -> None:
    call(config, client.release_collection, name)
    for index_name in call(config, client.list_indexes, name, field_name=VECTOR):
        call(config, client.drop_index, name, index_name)


def _wait_built(client: MilvusClient, config: Collection, spec: CollectionSpec) -> None:
    pending, since = None, time.monotonic()
    while True:
        index = _index(client, spec)
        if index is None:
            raise CollectionError(f"the index of {spec.name!r} at {config.uri} vanished", "run the same command again")
        if index.built:
            return
        if index.state == "Failed":
            raise CollectionError(
                f"Milvus at {config.uri} can't build the {spec.index_type} index of {spec.name!r}: {index.reason}",
                "choose another collection.index",
            )
        if index.pending_rows != pending:
            pending, since = index.pending_rows, time.monotonic()
            log.info("building the index of %s: %d rows to go", spec.name, pending)
        elif time.monotonic() - since > STALLED_S:
            raise CollectionError(
                f"Milvus at {config.uri} indexed none of the {pending} rows left in {spec.name!r} for "
                f"{STALLED_S:.0f} s",
                "look at its logs, then run the same command again",
            )
        stop.sleep(POLL_S)
