"""Corpus and checkpoint on S3 (moto's server) and GCS (gcp-storage-emulator), both on the loopback."""

from __future__ import annotations

import base64
import email.utils
import hashlib
import hmac
import io
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from apache_beam.io.filesystems import FileSystems
from corpora import configure

from pipelines.sync import sync
from schemas.config import Corpus
from schemas.errors import ConfigurationError, CorpusError
from schemas.identity import digest
from transforms import milvus
from transforms.read import list_corpus, plan_shards, read_shard
from transforms.support.storage import filesystem
from transforms.support.storage.remote.aws_client import bucket_region

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
    command = [sys.executable, "-m", "pipelines.entry", "backfill", str(path), "--json", "--quiet"]
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "STORAGE_", "GOOGLE_", "AZURE_"))
    }
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

    assert done.returncode == 2
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


@pytest.fixture(scope="module")
def azure() -> Iterator[str]:
    """A connection string of Azurite, if that is installed."""
    command = shutil.which("azurite-blob")
    if command is None:
        pytest.skip("npm install -g azurite")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--skipApiVersionCheck", "--inMemoryPersistence", "--disableTelemetry", "--silent"]
    server = subprocess.Popen([command, "--blobHost", "127.0.0.1", "--blobPort", str(port), *options])
    try:
        _wait(port)
        yield f"AccountName={AZURITE};AccountKey={AZURITE_KEY};BlobEndpoint=http://127.0.0.1:{port}/{AZURITE}"
    finally:
        server.kill()
        server.wait()


def create_container(connection: str, name: str) -> None:
    """Creates a container, signed as Azure requires: obstore creates none."""
    date = email.utils.formatdate(usegmt=True)
    headers = {"x-ms-date": date, "x-ms-version": "2021-08-06"}
    lines = ["PUT", *[""] * 11, *(f"{key}:{value}" for key, value in headers.items())]
    text = "\n".join([*lines, f"/{AZURITE}/{AZURITE}/{name}", "restype:container"])
    digest = hmac.new(base64.b64decode(AZURITE_KEY), text.encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"SharedKey {AZURITE}:{base64.b64encode(digest).decode()}"
    url = f"{connection.partition('BlobEndpoint=')[2]}/{name}?restype=container"
    with urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers)) as answer:
        assert answer.status == 201


AZURITE = "devstoreaccount1"
# The published key of the emulator.
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
ODD_KEYS = ["a[1]", "a1", "[*?", "100%25", "a#b", "a b+", "back\\slash", "é"]


@pytest.fixture(params=["s3", "gs", "az"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The root of an empty bucket, which this process has the options and the environment for."""
    from apache_beam.options.pipeline_options import PipelineOptions

    bucket = f"odd-{time.time_ns()}"
    options: dict[str, str] = {"project": "test"}
    if request.param == "s3":
        client = request.getfixturevalue("s3")
        client.create_bucket(Bucket=bucket)
        for name, value in AWS.items():
            monkeypatch.setenv(name, value)
        options = {"s3_endpoint_url": client.meta.endpoint_url, "s3_region_name": "us-east-1"}
    elif request.param == "az":
        connection = request.getfixturevalue("azure")
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
        create_container(connection, bucket)
    else:
        pytest.importorskip("google.cloud.storage", reason="pip install 'vecbeam[test]'")
        address = request.getfixturevalue("gcs")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        gcs_client(address).create_bucket(bucket)
    before = FileSystems._pipeline_options
    FileSystems.set_options(PipelineOptions.from_dictionary(options))
    yield f"{request.param}://{bucket}"
    FileSystems.set_options(before)


def gcs_client(address: str) -> Any:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    return storage.Client(project="test", credentials=AnonymousCredentials(), client_options={"api_endpoint": address})


def names(files: list[filesystem.FileInfo], folder: str) -> list[str]:
    return sorted(file.uri.removeprefix(folder) for file in files)


def test_keys_are_names_whatever_their_letters(store: str) -> None:
    folder = f"{store}/proj[1] #x%20?"
    # Azure itself makes a slash of a backslash.
    odd = [name for name in ODD_KEYS if not (store.startswith("az") and "\\" in name)]
    uris = {name: f"{folder}/{name}/{name}.txt" for name in odd}
    for name, uri in uris.items():
        filesystem.write_atomic(uri, name.encode())
    filesystem.write_atomic(f"{store}/proj1 #x%20?/a1/a1.txt", b"another")

    assert names(filesystem.list_files(folder, "*/*.txt"), folder) == sorted(f"/{n}/{n}.txt" for n in odd)
    for name in {"a[1]", "[*?", "back\\slash"} & {*odd}:
        found = filesystem.find(uris[name])
        assert found is not None
        assert (found.uri, found.size) == (uris[name], len(name))
    assert names(filesystem.list_files(f"{folder}/a[1]", "*.txt"), folder) == ["/a[1]/a[1].txt"]

    filesystem.delete([uris["a[1]"], uris["[*?"]])
    rest = [name for name in odd if name not in ("a[1]", "[*?")]
    corpus = Corpus(paths=[f"{filesystem.escape(folder)}/*/*.txt", f"{store}/proj1 #x%20[?]/**"])
    shards = plan_shards(list_corpus(corpus), corpus)
    batches = [batch for shard in shards for batch in read_shard(shard, corpus, batch_rows=50)]
    assert [reject for batch in batches for reject in batch.rejects.to_pylist()] == []
    items = [(item["item_id"], item["@content"]) for batch in batches for item in batch.items.to_pylist()]
    assert sorted(items) == sorted([*((f"{name}/{name}.txt", name) for name in rest), ("a1/a1.txt", "another")])


def test_a_bucket_that_is_not_there_is_named(store: str) -> None:
    nowhere = store.replace("odd-", "nowhere-")
    for pattern in ("docs/*.txt", "docs/a.txt"):
        with pytest.raises(CorpusError, match=f"there is no bucket {nowhere}"):
            list_corpus(Corpus(paths=[f"{nowhere}/{pattern}"]))
    with pytest.raises(ConfigurationError, match=f"there is no bucket {nowhere}"):
        filesystem.check_writable(f"{nowhere}/checkpoint")
    filesystem.check_writable(f"{store}/checkpoint")
    with pytest.raises(ConfigurationError, match="matches no file"):
        list_corpus(Corpus(paths=[f"{store}/docs/*.txt"]))
    with pytest.raises(ConfigurationError, match="line break"):
        filesystem.check_writable(f"{store}/a\nb")


def test_what_is_no_file_of_the_corpus_is_named(store: str) -> None:
    for key in ("2024/a.parquet/part-0.parquet", "2024/b.txt", "2024/_SUCCESS", "2024/.c.txt", "2024/sub/d.txt"):
        filesystem.write_atomic(f"{store}/{key}", b"x")
    for pattern in ("*/*.parquet", "2024/*", "2024/a.parquet", "2024/"):
        with pytest.raises(ConfigurationError, match="is a folder where a file is expected") as refused:
            list_corpus(Corpus(paths=[f"{store}/{pattern}"], format="text"))
        assert "write" in str(refused.value)
    notes: list[str] = []
    found = list_corpus(Corpus(paths=[f"{store}/**/[!a]*.txt", f"{store}/2024/[_b]*"], format="text"), None, notes)
    assert [file.path for file in found] == ["2024/b.txt", "2024/sub/d.txt"]
    assert "_SUCCESS" in notes[1]


@pytest.mark.parametrize("store", ["s3"], indirect=True)
def test_a_listing_holds_what_its_prefix_and_its_slashes_say(s3: Any, store: str) -> None:
    bucket = store.removeprefix("s3://")
    keys = ["logs/19/a.txt", "logs/20", "logs/20/", "logs/20/a.txt", "logs/20x/a.txt", "logs/21/a.txt", "logs/m.txt/"]
    for key in [*keys, "logs/21/empty.txt"]:
        s3.put_object(Bucket=bucket, Key=key, Body=b"" if key.endswith(("/", "empty.txt")) else b"x")
    assert names(filesystem.glob(f"{store}/logs/2*"), store) == ["/logs/20"]
    below = ["/logs/20/a.txt", "/logs/20x/a.txt", "/logs/21/a.txt", "/logs/21/empty.txt"]
    assert names(filesystem.glob(f"{store}/logs/2*/*"), store) == below
    seen = filesystem.Seen()
    assert names(filesystem.glob(f"{store}/logs/**", seen), store) == ["/logs/19/a.txt", "/logs/20", *below]
    assert sorted(seen.markers.first) == [f"{store}/logs/20/", f"{store}/logs/m.txt/"]


@pytest.mark.parametrize("store", ["s3"], indirect=True)
def test_keys_that_obstore_cannot_hold_are_read_all_the_same(s3: Any, store: str) -> None:
    for key in ("docs//a.txt", "docs/b.txt"):
        s3.put_object(Bucket=store.removeprefix("s3://"), Key=key, Body=key.encode())
    assert names(filesystem.glob(f"{store}/docs/**"), store) == ["/docs//a.txt", "/docs/b.txt"]
    assert filesystem.read_bytes(f"{store}/docs//a.txt") == b"docs//a.txt"
    filesystem.write_atomic(f"{store}/docs//c.txt", b"c")
    filesystem.delete([f"{store}/docs//a.txt", f"{store}/docs/b.txt"])
    assert names(filesystem.glob(f"{store}/docs/**"), store) == ["/docs//c.txt"]


def test_large_and_empty_files_come_back_as_they_were_written(store: str) -> None:
    data = random.Random(1).randbytes(20_000_000)
    filesystem.write_stream(f"{store}/large", lambda stream: stream.write(data) and None)
    filesystem.write_atomic(f"{store}/empty", b"")
    assert filesystem.read_bytes(f"{store}/empty") == b""
    with filesystem.open_binary(f"{store}/large") as stream:
        assert stream.read() == data
        for start, length in ((19_999_990, 100), (0, 10), (300_000, 9_000_000), (5, 0)):
            stream.seek(start)
            assert stream.read(length) == data[start : start + length]
        assert stream.seek(-3, io.SEEK_END) == len(data) - 3
        assert stream.read() == data[-3:]


@pytest.mark.parametrize("scheme", ["gs", "az"])
def test_missing_credentials_are_named_before_anything_is_read(scheme: str, tmp_path: Path) -> None:
    nowhere = {"HOME": str(tmp_path), "NO_GCE_CHECK": "true", "CLOUDSDK_CONFIG": str(tmp_path)}
    done = backfill(tmp_path, scheme, "{name: local}", nowhere)
    assert done.returncode == 2
    assert {"gs": "there are no credentials for gs://", "az": "no storage account"}[scheme] in done.stderr
    assert {"gs": "GOOGLE_APPLICATION_CREDENTIALS", "az": "AZURE_STORAGE_ACCOUNT_NAME"}[scheme] in done.stderr
    assert "Traceback" not in done.stderr


def without_versions(client: Any, bucket: str) -> None:
    """Makes the newest snapshot one of an earlier release: no versions, and a digest without them."""
    newest = max(o["Key"] for o in client.list_objects_v2(Bucket=bucket)["Contents"] if "/files/" in o["Key"])
    files = pq.read_table(io.BytesIO(client.get_object(Bucket=bucket, Key=newest)["Body"].read()))
    facts = json.loads(files.schema.metadata[b"vecbeam"])
    facts["corpus_digest"] = digest(
        [facts["settings_digest"], [[row["path"], row["size"], row["modified"]] for row in files.to_pylist()]], 32
    )
    for key in (newest, newest.replace("/files/", "/snapshots/")):
        table = pq.read_table(io.BytesIO(client.get_object(Bucket=bucket, Key=key)["Body"].read()))
        written = io.BytesIO()
        names = [name for name in table.column_names if name != "version"]
        pq.write_table(table.select(names).replace_schema_metadata({"vecbeam": json.dumps(facts)}), written)
        client.put_object(Bucket=bucket, Key=key, Body=written.getvalue())


@pytest.mark.parametrize("store", ["s3"], indirect=True)
def test_a_snapshot_of_an_earlier_release_is_continued_and_its_files_get_versions(
    s3: Any, store: str, tmp_path: Path
) -> None:
    bucket = store.removeprefix("s3://")
    for name in ("a", "b"):
        s3.put_object(Bucket=bucket, Key=f"docs/{name}.txt", Body=f"text {name}".encode())
    runner = {"name": "local", "s3_endpoint_url": s3.meta.endpoint_url, "s3_region_name": "us-east-1"}
    config = configure(
        tmp_path, corpus={"paths": [f"{store}/docs/*.txt"]}, checkpoint=f"{store}/checkpoint", runner=runner
    )
    assert sync(config).items.new == 2
    without_versions(s3, bucket)
    # The times that Beam's filesystem gave an earlier release are those of the listing now.
    found = FileSystems.match([f"{store}/docs/*"])[0].metadata_list
    listed = filesystem.list_files(f"{store}/docs", "*")
    assert {file.uri: file.modified for file in listed} == {m.path: m.last_updated_in_seconds for m in found}
    assert all(file.version for file in listed)

    for again in range(2):
        report = sync(config)
        assert (report.items.unchanged, report.chunks.embedded, report.bytes.read) == (2, 0, 0), again
    newest = max(file.uri for file in filesystem.list_files(f"{store}/checkpoint/tested/files", "*.parquet"))
    with filesystem.open_binary(newest) as stream:
        assert pq.read_table(stream)["version"].to_pylist() == [file.version for file in listed]

    time.sleep(1.1)  # the store's times are in seconds
    s3.put_object(Bucket=bucket, Key="docs/a.txt", Body=b"text a")
    report = sync(config)
    assert (report.items.unchanged, report.chunks.embedded, report.bytes.read) == (2, 0, 0)
    s3.put_object(Bucket=bucket, Key="docs/a.txt", Body=b"text c")
    assert sync(config).items.changed == 1
    milvus.release(config.collection)


def test_gcs_through_its_xml_interface(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No emulator of GCS has all of that interface; the requests are those of S3, and moto's server answers them."""
    pytest.importorskip("google.auth", reason="pip install 'vecbeam[test]'")
    bucket = f"xml{time.time_ns()}"  # obstore escapes a hyphen in it, and moto takes it as it is written
    s3.create_bucket(Bucket=bucket)
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_BASE_URL", s3.meta.endpoint_url)
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "token")
    filesystem.check_writable(f"gs://{bucket}/docs")
    filesystem.write_atomic(f"gs://{bucket}/docs/a b.txt", b"hello")
    (found,) = filesystem.list_files(f"gs://{bucket}/docs", "*.txt")
    assert (found.uri, found.size) == (f"gs://{bucket}/docs/a b.txt", 5)
    assert filesystem.read_bytes(found.uri) == b"hello"
    filesystem.delete([found.uri, f"gs://{bucket}/docs/none.txt"])
    assert not filesystem.exists(found.uri)
    with pytest.raises(ConfigurationError, match="there is no bucket gs://nowhere"):
        filesystem.check_writable("gs://nowhere/docs")


def test_the_region_of_a_bucket_comes_from_the_store(s3: Any) -> None:
    bucket = f"far-{time.time_ns()}"
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    assert bucket_region(s3, bucket) == "eu-west-1"
    assert bucket_region(s3, "nowhere-at-all") == ""
