"""Reads a text corpus: files -> shards -> batches of items, with a reject for each record that is not an item.

`list_files` finds the files, `plan_ranges` cuts them into shards, `ShardFiles` finds the files of one, and `read_shard`
reads it. Pure functions that use Beam only as a filesystem.
"""

from transforms.read.batch import Batch
from transforms.read.formats.dialect import SniffedCsv, sniff_csv
from transforms.read.listing.files import FileRows, SourceFile
from transforms.read.listing.listing import list_corpus, list_files
from transforms.read.listing.own_files import Own
from transforms.read.reader import CONTAINER_ERRORS, first_records, read_shard
from transforms.read.shard import SHARD_RANGES, Shard, ShardFiles, ShardRange, plan_ranges, plan_shards

__all__ = [
    "CONTAINER_ERRORS",
    "SHARD_RANGES",
    "Batch",
    "FileRows",
    "Own",
    "Shard",
    "ShardFiles",
    "ShardRange",
    "SniffedCsv",
    "SourceFile",
    "first_records",
    "list_corpus",
    "list_files",
    "plan_ranges",
    "plan_shards",
    "read_shard",
    "sniff_csv",
]
