"""A Milvus collection: connects, builds, checks, publishes and searches it.

Pure functions around pymilvus' MilvusClient, on Milvus Lite and on servers; what they refuse, and what Milvus
refuses, is a `schemas.errors.CollectionError` with the place and the remedy. pymilvus is loaded when first used.
"""

from transforms.milvus.call import collection_gone, connection_gone
from transforms.milvus.collection_state import CollectionState, columns_of, sent_columns
from transforms.milvus.connection import Milvus, check_exists, connect, connected, release, writers
from transforms.milvus.description import aliases, described, exists, names, served, space_of, state
from transforms.milvus.index_build import finish, flush, flush_step, same_index
from transforms.milvus.nearest import Hit, search, search_each
from transforms.milvus.recall import Recall, measure_recall
from transforms.milvus.rows.deletion import delete
from transforms.milvus.rows.read import query
from transforms.milvus.rows.row_check import RowCheck, count, find_duplicates, verify_rows
from transforms.milvus.rows.upsert import quoted, upsert
from transforms.milvus.structure import check_free, create, drop, has_columns, publish, set_properties, set_ready

__all__ = [
    "CollectionState",
    "Hit",
    "Milvus",
    "Recall",
    "RowCheck",
    "aliases",
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
    "measure_recall",
    "names",
    "publish",
    "query",
    "quoted",
    "release",
    "same_index",
    "search",
    "search_each",
    "sent_columns",
    "served",
    "set_properties",
    "set_ready",
    "space_of",
    "state",
    "upsert",
    "verify_rows",
    "writers",
]
