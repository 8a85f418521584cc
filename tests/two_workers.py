"""Beam's own job server with two worker processes for each environment, and the bytes that go from stage to stage."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.portability.api import beam_job_api_pb2
from apache_beam.runners.portability.fn_api_runner import execution, fn_runner
from apache_beam.runners.portability.local_job_service import BeamJob, LocalJobServicer

from pipelines.run.jobs import beam_job
from schemas.config import Config
from transforms.checkpoint import Checkpoint
from transforms.embed.public.read_items import ShardWork
from transforms.embed.stage import Embedding, EmbedShards, WriteRecords
from transforms.encoders.models import Models
from transforms.read import Own, list_corpus, plan_shards

WORKERS = 2


class TwoWorkersJob(BeamJob):  # type: ignore[misc]
    def _invoke_runner(self) -> Any:
        self.set_state(beam_job_api_pb2.JobState.RUNNING)
        runner = fn_runner.FnApiRunner(provision_info=self._provision_info)
        runner._num_workers = WORKERS
        return runner.run_via_runner_api(self._pipeline_proto, self.pipeline_options())


@contextmanager
def job_server() -> Iterator[dict[str, Any]]:
    """Yields the keys of `runner` for a job server whose workers are processes of this machine."""
    server = LocalJobServicer(beam_job_type=TwoWorkersJob)
    port = server.start_grpc_server(0)
    try:
        yield {
            "name": "portable",
            "job_endpoint": f"localhost:{port}",
            "environment_type": "beam:env:harness_subprocess_python:v1",
            "environment_config": f"{sys.executable} -P -m apache_beam.runners.worker.sdk_worker_main",
        }
    finally:
        server.stop()


def counted_bytes(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Bytes that workers hand to the job server from now on, for other stages, by the name of what they are."""
    crossed: Counter[str] = Counter()

    for kind in (execution.ListBuffer, execution.GroupingBuffer):

        def append(self: Any, data: bytes, plain: Any = kind.append) -> None:
            crossed[type(self).__name__] += len(data)
            plain(self, data)

        monkeypatch.setattr(kind, "append", append)
    return crossed


def embedding_of(config: Config, folder: Path) -> Embedding:
    """The embedding of all items of a corpus."""
    models = Models.of(config)
    checkpoint = Checkpoint(config.checkpoint, config.name, models.space.id)
    return Embedding(config, models.layout, models.cutting, checkpoint, "", scratch=str(folder / "chunks"))


def embed(config: Config, folder: Path) -> Embedding:
    """Embeds a corpus on the configuration's runner; writes the records into a folder."""
    given = embedding_of(config, folder)
    work = [ShardWork(shard, {}) for shard in plan_shards(list_corpus(config.corpus, Own.of(config)), config.corpus)]

    def build(pipeline: beam.Pipeline) -> None:
        shards = pipeline | beam.Create(work) | beam.Reshuffle()
        _ = shards | EmbedShards(given) | WriteRecords(str(folder / "records"))

    beam_job.run(config, build)
    return given
