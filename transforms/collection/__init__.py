"""A Milvus collection: connecting, building, checking, publishing and searching it.

Pure functions around pymilvus' MilvusClient, on Milvus Lite and on servers alike; what they refuse, and what Milvus
refuses, is a `schemas.errors.CollectionError` with the place and the remedy. pymilvus is loaded when first used.
"""

from transforms.collection.calling import call, collection_gone, connection_gone
from transforms.collection.connection import check_exists, connect, connected, release
from transforms.collection.describing import (
    CollectionState,
    aliases,
    columns_of,
    described,
    exists,
    names,
    served,
    space_of,
    state,
)
from transforms.collection.indexing import finish, flush, flush_step, is_lite, same_index
from transforms.collection.recall import Recall, measure_recall
from transforms.collection.rows.checking import RowCheck, count, find_duplicates, verify_rows
from transforms.collection.rows.deleting import delete
from transforms.collection.rows.importing import await_imports, import_files
from transforms.collection.rows.loading import quoted, upsert
from transforms.collection.rows.reading import query
from transforms.collection.searching import Hit, search, search_each
from transforms.collection.structure import check_free, create, drop, has_columns, publish, set_properties, set_ready

__all__ = [
    "CollectionState",
    "Hit",
    "Recall",
    "RowCheck",
    "aliases",
    "await_imports",
    "call",
    "check_exists",
    "check_free",
    "collection_gone",
    "columns_of",
    "connect",
    "connected",
    "connection_gone",
    "count",
    "create",
    "delete",
    "described",
    "drop",
    "exists",
    "find_duplicates",
    "finish",
    "flush",
    "flush_step",
    "has_columns",
    "import_files",
    "is_lite",
    "measure_recall",
    "names",
    "publish",
    "query",
    "quoted",
    "release",
    "same_index",
    "search",
    "search_each",
    "served",
    "set_properties",
    "set_ready",
    "space_of",
    "state",
    "upsert",
    "verify_rows",
]
