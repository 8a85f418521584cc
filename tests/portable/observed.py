"""Looks at checkpoints, collections and the bucket from within the namespace: a JSON line in, a JSON line out.

{"do": "put", "config": PATH, "files": {URI: TEXT, or null to delete}}
{"do": "parts", "config": PATH, "least": COUNT}      # waits until there are so many
{"do": "rows_in_parts", "config": PATH}
{"do": "state", "config": PATH}                      # the rows of each part, and of the collection that is served
{"do": "vectors", "config": PATH}                    # id -> vector of the collection that is served
{"do": "cancel", "config": PATH, "job": ID}          # as somebody does in a console: through the job server's API
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow.parquet as pq
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

from pipelines.run.jobs.beam_options import prepare_filesystems
from schemas.config import Config
from schemas.config.loader import load_config
from transforms.support.storage import filesystem

PATIENCE_S = 300.0


def fingerprint(vector: Any) -> str:
    return hashlib.sha256(np.asarray(vector, np.float32).tobytes()).hexdigest()[:16]


def part_files(config: Config) -> list[str]:
    return sorted(file.uri for file in filesystem.list_files(f"{config.checkpoint}/{config.name}", "*/parts/*.parquet"))


def part_rows(uri: str) -> list[list[str]]:
    rows = pq.read_table(io.BytesIO(filesystem.read_bytes(uri)), columns=["id", "content_hash", "vector"]).to_pylist()
    return [[row["id"], row["content_hash"], fingerprint(row["vector"])] for row in rows]


def served(config: Config) -> Iterator[dict[str, Any]]:
    """The rows of the collection behind the alias."""
    from pymilvus import MilvusClient

    # A connection of its own: Milvus Lite ends one that was idle for long ("Too many pings").
    client = MilvusClient(config.collection.uri, dedicated=True)
    columns = ["id", "content_hash", "text", "vector"]
    walk = client.query_iterator(config.name, filter="", output_fields=columns, batch_size=1000)
    while batch := walk.next():
        yield from batch
    walk.close()
    client.close()


def state(config: Config) -> dict[str, Any]:
    rows = [[row["id"], row["content_hash"], row["text"], fingerprint(row["vector"])] for row in served(config)]
    return {"parts": {Path(uri).name: part_rows(uri) for uri in part_files(config)}, "rows": sorted(rows)}


def wait_for_parts(config: Config, least: int) -> int:
    deadline = time.monotonic() + PATIENCE_S
    while (count := len(part_files(config))) < least and time.monotonic() < deadline:
        time.sleep(0.02)
    return count


def put(files: dict[str, str | None]) -> None:
    for uri, text in files.items():
        if text is None:
            filesystem.delete([uri])
        else:
            filesystem.write_atomic(uri, text.encode())


def cancel(config: Config, job: str) -> None:
    with grpc.insecure_channel(config.runner.options["job_endpoint"]) as channel:
        service = beam_job_api_pb2_grpc.JobServiceStub(channel)
        service.Cancel(beam_job_api_pb2.CancelJobRequest(job_id=job), timeout=PATIENCE_S)


def answer(request: dict[str, Any]) -> Any:
    config = load_config(Path(request["config"]))
    prepare_filesystems(config)
    match request["do"]:
        case "put":
            return put(request["files"])
        case "parts":
            return wait_for_parts(config, request["least"])
        case "rows_in_parts":
            return sum(len(part_rows(uri)) for uri in part_files(config))
        case "state":
            return state(config)
        case "cancel":
            return cancel(config, request["job"])
        case _:
            return {row["id"]: [float(number) for number in row["vector"]] for row in served(config)}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
