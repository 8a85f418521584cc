"""Workers on other machines: what travels to them, and what they find for themselves."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.internal import pickler
from apache_beam.io.aws.clients.s3.messages import S3ClientError
from apache_beam.portability.api import beam_runner_api_pb2
from botocore.exceptions import EndpointConnectionError

from schemas.config import Config, EncoderConfig
from schemas.config.loader import parse_config
from schemas.errors import (
    CheckpointError,
    EncoderError,
    SpaceMismatchError,
    StorageError,
    VersionMismatchError,
    from_traceback,
)
from tests.models import save_model
from transforms.checkpoint import Checkpoint, read_table
from transforms.embed.public.read_items import ShardWork
from transforms.embed.stage import Embedding, EmbedShards
from transforms.encoders import CATALOGUE, resolve, resolve_on_worker
from transforms.encoders.models import Models
from transforms.read import Shard
from transforms.support.storage.parquet_file import parquet
from transforms.support.storage.remote import object_store
from transforms.support.storage.remote.answer import AnswerError
from transforms.support.storage.remote.object_store import ObjectFacts
from transforms.support.versioned_dofn import VersionedDoFn

PACKAGE = CATALOGUE["all-MiniLM-L6-v2"].package


def a_config(folder: Path, model: str) -> Config:
    return parse_config(
        {
            "name": "elsewhere",
            "corpus": {"paths": [str(folder / "*.jsonl")]},
            "encoder": {"model": model},
            "checkpoint": str(folder / "checkpoint"),
            "collection": {"uri": str(folder / "milvus.db")},
        },
        folder=folder,
    )


def graph_of(config: Config) -> list[str]:
    """The functions of the fused stage as a runner sends them to workers."""
    models = Models.of(config)
    checkpoint = Checkpoint(config.checkpoint, config.name, models.space.id)
    embedding = Embedding(config, models.layout, models.cutting, checkpoint, "listing")
    pipeline = beam.Pipeline(runner="FnApiRunner")
    _ = pipeline | beam.Create([ShardWork(Shard("a", 0, (), 0, 0), {})]) | EmbedShards(embedding)
    payloads = []
    for transform in pipeline.to_runner_api().components.transforms.values():
        if transform.spec.urn == "beam:transform:pardo:v1":
            do_fn = beam_runner_api_pb2.ParDoPayload.FromString(transform.spec.payload).do_fn
            payloads.append(do_fn.payload.decode())
    return payloads


def ours(payload: str) -> bool:
    """Whether a function of a graph is a DoFn of vecbeam."""
    return isinstance(pickler.loads(payload.encode())[0], VersionedDoFn)


def installed(folder: Path) -> Path:
    """The package of the default model as installed in a folder."""
    spec = find_spec(PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    shutil.copytree(Path(spec.origin).parent, folder / PACKAGE, copy_function=os.symlink)
    return folder


WORKER = """
import base64, json, pickle, sys
import pyarrow as pa
from apache_beam.internal import pickler
from apache_beam.io.aws.clients.s3.messages import S3ClientError
from apache_beam.io.filesystems import FileSystems
from schemas.layout import item_schema
from schemas.records import Key
from transforms.embed.work import with_facts

items = pa.table({"item_id": ["a"], "@uri": ["u"], "@place": ["line 1"], "@content": ["some words"]}, item_schema({}))
batch = (Key("a", 0), with_facts(items, b""))
for payload in json.load(sys.stdin):
    do_fn = pickler.loads(payload.encode())[0]
    if type(do_fn).__name__ == "_Chunk":
        do_fn.setup()
        ((key, chunks),) = do_fn.process(batch)
        model = do_fn._chunker._model
        print(json.dumps([chunks.column("tokens").to_pylist(), model.files.folder, model.space.id]))
"""


def test_a_worker_finds_its_own_files_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = installed(tmp_path / "here"), installed(tmp_path / "there")
    monkeypatch.syspath_prepend(str(here))
    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)  # another test may have imported the installed one
    importlib.invalidate_caches()
    config = a_config(tmp_path, "all-MiniLM-L6-v2")
    assert resolve(config.encoder).files.folder.startswith(str(here))  # type: ignore[attr-defined]
    payloads = graph_of(config)
    shutil.rmtree(here)

    paths = [str(there), str(Path(__file__).parents[1])]
    worker = subprocess.run(
        [sys.executable, "-c", WORKER],
        input=json.dumps(payloads),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        cwd=tmp_path,  # Python looks there first, and a checkout may hold metadata of its own
        capture_output=True,
        text=True,
        check=False,
    )
    assert worker.returncode == 0, worker.stderr
    tokens, folder, space = json.loads(worker.stdout)
    assert tokens == [4]
    assert (folder, space) == (str(there / PACKAGE / "model"), resolve(EncoderConfig()).space.id)


def test_the_graph_names_no_file_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(installed(tmp_path / "here")))
    importlib.invalidate_caches()
    found = [pickler.loads(payload.encode()) for payload in graph_of(a_config(tmp_path, "all-MiniLM-L6-v2"))]
    assert found
    assert not any(PACKAGE.encode() in beam.internal.cloudpickle_pickler.cloudpickle.dumps(one) for one in found)


def test_a_worker_with_another_model_is_refused_with_both_fingerprints(tmp_path: Path) -> None:
    folder = save_model(tmp_path)
    config = EncoderConfig(model=str(folder))
    run = resolve(config).space.id
    settings = json.loads((folder / "sentence_bert_config.json").read_text())
    (folder / "sentence_bert_config.json").write_text(json.dumps({**settings, "max_seq_length": 20}))
    worker = resolve(config).space.id
    assert resolve_on_worker(config, worker).space.id == worker

    with pytest.raises(SpaceMismatchError) as refused:
        resolve_on_worker(config, "0123456789abcdef")
    assert worker in str(refused.value)
    assert "0123456789abcdef" in str(refused.value)
    assert str(folder) in str(refused.value)
    assert run != worker


REFUSED = """
import json, sys
from apache_beam.internal import pickler
from schemas.errors import VersionMismatchError, from_traceback
import traceback

for payload in json.load(sys.stdin):
    try:
        pickler.loads(payload.encode())
        said = None
    except VersionMismatchError as error:
        said = str(from_traceback(traceback.format_exc()))
    imported = [name for name in sys.modules if name.startswith(("transforms.embed", "transforms.load"))]
    print(json.dumps([said, imported]))
"""


@pytest.mark.parametrize("installed", ["0.1.1", None])
def test_a_worker_with_another_version_is_refused_before_it_looks_up_a_class(
    tmp_path: Path, installed: str | None
) -> None:
    payloads = [payload for payload in graph_of(a_config(tmp_path, "fake")) if ours(payload)]
    paths = [str(Path(__file__).parents[1])]
    if installed:
        metadata = tmp_path / "elsewhere" / f"vecbeam-{installed}.dist-info" / "METADATA"
        metadata.parent.mkdir(parents=True)
        metadata.write_text(f"Metadata-Version: 2.1\nName: vecbeam\nVersion: {installed}\n")
        paths.insert(0, str(tmp_path / "elsewhere"))
    worker = subprocess.run(
        [sys.executable, "-c", REFUSED],
        input=json.dumps(payloads),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        cwd=tmp_path,  # Python looks there first, and a checkout may hold metadata of its own
        capture_output=True,
        text=True,
        check=False,
    )
    assert worker.returncode == 0, worker.stderr
    answers = [json.loads(line) for line in worker.stdout.splitlines()]
    assert len(answers) == len(payloads) == 7
    for said, imported in answers:
        if installed is None:
            assert said is None
            continue
        assert said.startswith(f"the worker {socket.gethostname()} has vecbeam {installed}, and the run was started")
        assert f"install vecbeam {version('vecbeam')} on the workers" in said
        assert imported == []


HIDDEN = """
import json, sys, traceback
# Workers have an installed package: the finder of an editable one finds modules of vecbeam in foreign packages.
sys.meta_path = [finder for finder in sys.meta_path if "ditable" not in repr(finder)]
from apache_beam.internal import pickler
try:
    pickler.loads(json.load(sys.stdin)[0].encode())
except Exception:
    print(traceback.format_exc())
"""


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("schemas/__init__.py", "a worker can't import schemas.errors: it has another package named schemas"),
        ("schemas/errors.py", "a worker can't import VersionMismatchError from schemas.errors ("),
        ("transforms.py", "a worker can't import transforms.support: it has another package named transforms"),
    ],
)
def test_a_package_on_the_worker_that_hides_one_of_vecbeams_is_named(tmp_path: Path, file: str, said: str) -> None:
    payloads = [payload for payload in graph_of(a_config(tmp_path, "fake")) if ours(payload)]
    foreign = tmp_path / "foreign" / file
    foreign.parent.mkdir(parents=True)
    for made in {foreign, foreign.parent / "__init__.py"}:
        made.write_text("")
    paths = [str(tmp_path / "foreign"), str(Path(__file__).parents[1])]
    worker = subprocess.run(
        [sys.executable, "-P", "-c", HIDDEN],
        input=json.dumps(payloads[:1]),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=True,
    )
    error = from_traceback(worker.stdout)
    assert isinstance(error, VersionMismatchError), worker.stdout
    assert error.message.startswith(said)
    assert "PYTHONSAFEPATH=1" in error.remedy


def test_a_worker_without_the_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"the worker .* can't find the model of this run: .*nowhere"):
        resolve_on_worker(EncoderConfig(model=str(tmp_path / "nowhere")), "0123456789abcdef")


@pytest.mark.parametrize("opening", [True, False])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionResetError(104, "Connection reset by peer"), "once the store answers"),
        (AnswerError("403 Forbidden (AccessDenied): Access Denied", 403), "the right to"),
        (AnswerError("there is no bucket s3://bucket (NoSuchBucket)", 404), "the bucket's name"),
        (S3ClientError("An error occurred (AccessDenied) when calling GetObject", 403), "the right to"),
        (S3ClientError("Unable to locate credentials", 401), "check the credentials"),
        (OSError("An error occurred (NoSuchBucket): The specified bucket does not exist"), "the bucket's name"),
        (EndpointConnectionError(endpoint_url="http://127.0.0.1:1"), "the endpoint"),
    ],
)
def test_a_fault_of_the_store_is_not_called_damage(
    monkeypatch: pytest.MonkeyPatch, opening: bool, error: Exception, said: str
) -> None:
    data = parquet(pa.table({"a": [1, 2]}), {"schema_version": 1})

    def read(_: str, start: int = 0, length: int | None = None, e_tag: str = "") -> tuple[bytes, ObjectFacts]:
        if opening or e_tag:
            raise error
        return b"", ObjectFacts(len(data), 0.0, "first", "")

    monkeypatch.setattr(object_store, "read", read)
    with pytest.raises(StorageError) as raised:
        read_table("s3://bucket/parts/a.parquet")
    text = str(raised.value)
    assert "s3://bucket/parts/a.parquet" in text
    assert said in text
    assert "delete" not in text
    assert not isinstance(raised.value, CheckpointError)
    assert pickle.loads(pickle.dumps(raised.value)).remedy == raised.value.remedy


def test_damage_and_a_missing_file_are_called_what_they_are(tmp_path: Path) -> None:
    whole = parquet(pa.table({"a": list(range(9999))}), {"schema_version": 1})
    for name, data in (
        ("cut", whole[: len(whole) // 2]),
        ("empty", b""),
        ("changed", whole[:9] + b"!!" * 99 + whole[207:]),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CheckpointError, match=r"can't read .*: the file is damaged: .* delete that file"):
            read_table(str(tmp_path / name))
    with pytest.raises(CheckpointError, match=r"nothing is missing\. run vecbeam sync: .* embedded again"):
        read_table(str(tmp_path / "nothing"))
