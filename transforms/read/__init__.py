"""Reading a text corpus: files -> shards -> batches of items, with a reject for whatever is none.

`list_corpus` finds the files, `plan_shards` cuts them into shards, `read_shard` reads one of them. Pure
functions, which know Beam only as a filesystem.
"""

from transforms.read.batches import Batch
from transforms.read.formats.sniffing import SniffedCsv, sniff_csv
from transforms.read.listing import FORMAT_OF_SUFFIX, SourceFile, list_corpus
from transforms.read.own_files import Own
from transforms.read.reader import CONTAINER_ERRORS, first_records, read_shard
from transforms.read.shards import Shard, plan_shards

__all__ = [
    "CONTAINER_ERRORS",
    "FORMAT_OF_SUFFIX",
    "Batch",
    "Own",
    "Shard",
    "SniffedCsv",
    "SourceFile",
    "first_records",
    "list_corpus",
    "plan_shards",
    "read_shard",
    "sniff_csv",
]
