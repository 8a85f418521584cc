"""Corpus and checkpoint on S3 (moto's server) and GCS (gcp-storage-emulator), both on the loopback."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

ITEMS = 50
CORPUS = "".join(json.dumps({"id": str(i), "text": f"hello number {i}"}) + "\n" for i in range(ITEMS)).encode()
AWS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """A client of an S3 server with the corpus in bucket `corpus`; `client.meta.endpoint_url` is its address."""
    boto3 = pytest.importorskip("boto3", reason="pip install 'vecbeam[test]'")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="corpus")
    client.put_object(Bucket="corpus", Key="docs/a.jsonl", Body=CORPUS)
    yield client
    server.stop()


@pytest.fixture(scope="module")
def gcs() -> Iterator[str]:
    """Address of a GCS emulator with the corpus in bucket `corpus`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = (
        "from gcp_storage_emulator.server import create_server\n"
        f"create_server('127.0.0.1', {port}, in_memory=True, default_bucket='corpus').run()"
    )
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def _wait(port: int) -> None:
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(f"nothing listens on port {port}")


def backfill(folder: Path, scheme: str, runner: str, environment: dict[str, str], checkpoint: str = "") -> Any:
    path = folder / "vecbeam.yaml"
    path.write_text(
        f"name: stored\ncorpus: {{paths: ['{scheme}://corpus/docs/*.jsonl']}}\nencoder: {{model: fake}}\n"
        f"checkpoint: {checkpoint or f'{scheme}://corpus/checkpoint'}\ncollection: {{uri: ./milvus.db}}\n"
        f"runner: {runner}\n"
    )
    command = [sys.executable, "-m", "pipelines.cli", "backfill", str(path), "--json", "--quiet"]
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "STORAGE_EMULATOR"))}
    return subprocess.run(command, capture_output=True, text=True, env=clean | environment, timeout=300)


def runner(s3: Any) -> str:
    return f"{{name: local, s3_endpoint_url: '{s3.meta.endpoint_url}', s3_region_name: us-east-1}}"


def check_twice(first: Any, second: Any) -> None:
    assert first.returncode == 0, first.stderr
    report = json.loads(first.stdout)
    assert (report["items"]["new"], report["chunks"]["loaded"]) == (ITEMS, ITEMS)
    assert report["verify"]["found"] == ITEMS
    assert report["verify"]["published"]
    assert second.returncode == 0, second.stderr
    again = json.loads(second.stdout)
    assert (again["chunks"]["embedded"], again["chunks"]["loaded"], again["items"]["unchanged"]) == (0, 0, ITEMS)


def test_s3_from_corpus_to_collection_and_again(s3: Any, tmp_path: Path) -> None:
    first = backfill(tmp_path, "s3", runner(s3), AWS)
    before = {o["Key"]: o["LastModified"] for o in s3.list_objects_v2(Bucket="corpus")["Contents"]}
    second = backfill(tmp_path, "s3", runner(s3), AWS)
    after = {o["Key"]: o["LastModified"] for o in s3.list_objects_v2(Bucket="corpus")["Contents"]}

    check_twice(first, second)
    kept = {key: when for key, when in after.items() if "/runs/" not in key}
    assert kept == {key: when for key, when in before.items() if "/runs/" not in key}
    (part,) = [key for key in after if "/parts/" in key]
    rows = pq.read_table(io.BytesIO(s3.get_object(Bucket="corpus", Key=part)["Body"].read()))
    assert rows.num_rows == ITEMS


def test_s3_without_credentials_is_refused(s3: Any, tmp_path: Path) -> None:
    nowhere = {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path)}
    done = backfill(tmp_path, "s3", runner(s3), nowhere)

    assert done.returncode == 2
    assert "AWS_ACCESS_KEY_ID" in done.stderr
    assert "Traceback" not in done.stderr


def test_s3_bucket_that_is_not_there(s3: Any, tmp_path: Path) -> None:
    done = backfill(tmp_path, "s3", runner(s3), AWS, checkpoint="s3://nowhere/checkpoint")

    assert done.returncode == 1
    assert "s3://nowhere/checkpoint" in done.stderr
    assert "bucket" in done.stderr.lower()
    assert "Traceback" not in done.stderr


def test_gcs_from_corpus_to_collection_and_again(gcs: str, tmp_path: Path) -> None:
    storage = pytest.importorskip("google.cloud.storage", reason="pip install 'vecbeam[test]'")
    from google.auth.credentials import AnonymousCredentials

    client = storage.Client(project="test", credentials=AnonymousCredentials(), client_options={"api_endpoint": gcs})
    client.bucket("corpus").blob("docs/a.jsonl").upload_from_string(CORPUS)
    environment = {"STORAGE_EMULATOR_HOST": gcs}
    options = "{name: local, project: test}"

    check_twice(backfill(tmp_path, "gs", options, environment), backfill(tmp_path, "gs", options, environment))
    parts = [blob.name for blob in client.list_blobs("corpus") if "/parts/" in blob.name]
    assert len(parts) == 1
    assert pq.read_table(io.BytesIO(client.bucket("corpus").blob(parts[0]).download_as_bytes())).num_rows == ITEMS
