"""What the tests of runners work with: servers in a network namespace, workers' roots, a launcher and an observer."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import network_namespace
import yaml
from network_namespace import AWS, BUCKET, JOBS_PORT, PROJECT, NetworkNamespace
from worker_roots import make_root

from schemas.config import Runner

WORKERS = 2
KINDS = ("plain", "other_version", "foreign_schemas", "foreign_transforms", "without")
PATIENCE_S = 600.0
UNDER_A_NAME = "import os, socket, sys; socket.sethostname(sys.argv[1]); os.execv(sys.argv[2], sys.argv[2:])"


class Done(NamedTuple):
    """How a command ended: its exit code, its JSON, and what it wrote on standard error."""

    code: int
    answer: dict[str, Any]
    said: str


@dataclass
class Cluster:
    """See the module; `launcher` is the folder of the configurations, which no worker sees."""

    namespace: NetworkNamespace
    launcher: Path
    _observer: subprocess.Popen[str]

    def configure(self, name: str, corpus: str, runner: str | dict[str, Any] = "plain", **changes: Any) -> Path:
        """Writes a configuration with the fake encoder; returns its path.

        Args:
            corpus: a folder of the bucket.
            runner: "local", the kind of the workers' roots, or Beam's options.
            changes: of its top-level keys.
        """
        values: dict[str, Any] = {
            "name": name,
            "corpus": {"paths": [f"s3://{BUCKET}/{corpus}/*.jsonl"], "shard_bytes": 2048},
            "batch_rows": 40,
            "encoder": {"model": "fake", "dimensions": 32},
            "checkpoint": f"s3://{BUCKET}/checkpoint",
            "collection": {"uri": self.namespace.milvus_uri, "index": {"type": "HNSW", "M": 8, "efConstruction": 64}},
            "runner": self.namespace.s3_options | (runner if isinstance(runner, dict) else _runner(runner)),
        }
        path = self.launcher / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values | changes))
        return path

    def start(self, command: str, config: Path, *options: str, host: str = "") -> subprocess.Popen[str]:
        """Starts a command of the real command line in the namespace; `host` gives its machine another name."""
        line = [sys.executable, "-m", "vecbeam", command, str(config), "--json", *options]
        if host:
            line = ["unshare", "--uts", sys.executable, "-c", UNDER_A_NAME, host, *line]
        return subprocess.Popen(
            self.namespace.inside(line),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.launcher,
            env=_environment(),
            start_new_session=True,
        )

    def vecbeam(self, command: str, config: Path, *options: str, host: str = "") -> Done:
        return ended(self.start(command, config, *options, host=host))

    def put(self, config: Path, files: dict[str, str | None]) -> None:
        """Writes objects of the bucket, by URI; None deletes."""
        self._ask({"do": "put", "config": str(config), "files": files})

    def state(self, config: Path) -> dict[str, Any]:
        """`parts`: the rows of each part, and `rows`: the rows that are served; with ids, hashes and vectors."""
        found: dict[str, Any] = self._ask({"do": "state", "config": str(config)})
        return found

    def rows_in_parts(self, config: Path) -> int:
        count: int = self._ask({"do": "rows_in_parts", "config": str(config)})
        return count

    def vectors(self, config: Path) -> dict[str, list[float]]:
        found: dict[str, list[float]] = self._ask({"do": "vectors", "config": str(config)})
        return found

    def wait_for_parts(self, config: Path, least: int) -> int:
        """Waits until a checkpoint has so many parts; returns how many it has."""
        count: int = self._ask({"do": "parts", "config": str(config), "least": least})
        assert count >= least
        return count

    def cancel(self, config: Path, job: str) -> None:
        """Cancels a job as somebody does in a console."""
        self._ask({"do": "cancel", "config": str(config), "job": job})

    def jobs(self, report: dict[str, Any]) -> list[dict[str, Any]]:
        """What the job server wrote about the jobs of a report."""
        ended = self.namespace.lines("jobs.jsonl")
        return [job for said in report["jobs"] for job in ended if job["job"] in said]

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._observer.stdin is not None
        assert self._observer.stdout is not None
        print(json.dumps(request), file=self._observer.stdin, flush=True)
        line = self._observer.stdout.readline()
        if not line:
            raise RuntimeError(f"the observer ended: {(self.launcher.parent / 'observer.log').read_text()[-3000:]}")
        return json.loads(line)


def ended(process: subprocess.Popen[str]) -> Done:
    """Waits for a command."""
    output, said = process.communicate(timeout=PATIENCE_S)
    return Done(process.returncode, json.loads(output) if output.strip() else {}, said)


def until(come: Callable[[], Any]) -> Any:
    """Waits until a function returns something, and returns that."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if found := come():
            return found
        time.sleep(0.05)
    raise TimeoutError(f"{come} did not come")


def _runner(kind: str) -> dict[str, Any]:
    if kind == "local":
        return {"name": "local"}
    # However small the corpus is, it is the workers that do the work.
    remote = {"local_below": 0} if "local_below" in Runner.model_fields else {}
    return {
        "name": "portable",
        "job_endpoint": f"127.0.0.1:{JOBS_PORT}",
        "environment_type": "EXTERNAL",
        "environment_config": json.dumps({"url": "none", "params": {"root": kind}}),
        **remote,
    }


def _environment() -> dict[str, str]:
    return os.environ | AWS | {"PYTHONPATH": str(PROJECT)}


@contextlib.contextmanager
def running(folder: Path, milvus: str = "lite", workers: int = WORKERS) -> Iterator[Cluster]:
    """A cluster for the length of a block.

    Raises:
        NamespaceUnavailableError: if this machine can't have one.
    """
    network_namespace.how_to_unshare()
    roots, launcher = folder / "roots", folder / "launcher"
    launcher.mkdir(parents=True)
    for kind in KINDS:
        for number in range(1, workers + 1):
            make_root(roots / f"{kind}-{number}", kind)
    with network_namespace.started(folder / "servers", roots, workers, milvus, (launcher,)) as namespace:
        with open(folder / "observer.log", "w") as log:
            observer = subprocess.Popen(
                namespace.inside([sys.executable, str(Path(__file__).with_name("observed.py"))]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=_environment(),
            )
        try:
            yield Cluster(namespace, launcher, observer)
        finally:
            observer.kill()
            observer.communicate()


def documents(folder: str, files: int, items: int, changed: str = "") -> dict[str, str | None]:
    """Objects of a corpus by URI: so many files with so many items each; `changed` is in each text of the first."""
    return {
        f"s3://{BUCKET}/{folder}/{file:03}.jsonl": "".join(
            json.dumps(
                {"id": f"{file:03}-{item}", "text": f"{changed if file == 0 else ''} words of {file} and {item}"}
            )
            + "\n"
            for item in range(items)
        )
        for file in range(files)
    }
