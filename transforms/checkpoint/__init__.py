"""The checkpoint: immutable Parquet parts of one space of one corpus, rejects, and the snapshots over them.

    <checkpoint>/<name>/<space id>/space.json
    <checkpoint>/<name>/<space id>/parts/*.parquet
    <checkpoint>/<name>/<space id>/items/*.parquet       one for each part, under its name: digests of its items
    <checkpoint>/<name>/<space id>/rejects/*.parquet
    <checkpoint>/<name>/<space id>/attempts/*.json       of batches that a worker is embedding; gone after the run
    <checkpoint>/<name>/<space id>/queries/*.parquet     vectors of queries that the gate measures answers with
    <checkpoint>/<name>/snapshots/<number>-<space>-<snapshot id>.parquet     the highest number is current
    <checkpoint>/<name>/files/<number>-<space>-<snapshot id>.parquet         the listing of a snapshot
    <checkpoint>/<name>/refused/{snapshots,files}/...   the newest draft of a space that a run refused; never current
    <checkpoint>/<name>/fitted/<digest>/...    a model that was fitted on the corpus; see `transforms.encoders.fitted`
    <checkpoint>/<name>/runs/<run id>/report.json

docs/checkpoint.md describes the files for those who read them with other tools.
"""

from transforms.checkpoint.folder import Checkpoint, iterate_parts, part_key, part_name, spaces_of
from transforms.checkpoint.snapshot import LivePart, Snapshot
from transforms.support.storage.parquet_file import read_table, write_table

__all__ = [
    "Checkpoint",
    "LivePart",
    "Snapshot",
    "iterate_parts",
    "part_key",
    "part_name",
    "read_table",
    "spaces_of",
    "write_table",
]
