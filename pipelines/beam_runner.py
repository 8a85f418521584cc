"""Runs a Beam pipeline on the configuration's runner and hands back its counters; workers' errors come out as ours."""

from __future__ import annotations

import contextlib
import io
import os
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import MetricsFilter
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions

from schemas.config import Config
from schemas.errors import ConfigurationError, VecbeamError, from_traceback, without_label
from transforms import metrics, stopping

# `local` is Beam's in-process runner by its own name: DirectRunner would look for a Prism binary on the network first.
RUNNERS = {
    "local": "FnApiRunner",
    "DirectRunner": "FnApiRunner",
    "dataflow": "DataflowRunner",
    "flink": "FlinkRunner",
    "spark": "SparkRunner",
    "portable": "PortableRunner",
}
IN_THIS_PROCESS = ("local", "DirectRunner")


def pipeline_options(config: Config) -> PipelineOptions:
    """Beam's options for a configuration.

    Raises:
        ConfigurationError: where `runner` has a key that Beam does not know.
    """
    options = PipelineOptions.from_dictionary({"runner": RUNNERS[config.runner.name], **config.runner.options})
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):  # argparse prints its usage and exits
            known = options.get_all_options()
    except SystemExit:
        reason = complaint.getvalue().strip().splitlines()[-1:] or ["Beam does not take it"]
        raise ConfigurationError(
            f"runner: {reason[0].rsplit('error: ', 1)[-1]}", "mend that option; they are Beam's pipeline options"
        ) from None
    for key in config.runner.options:
        if key not in known:
            raise ConfigurationError(
                f"runner.{key}: unknown to Beam",
                "keys beside runner.name are Beam's pipeline options; check the spelling",
            )
    return options


def prepare_filesystems(config: Config) -> None:
    """Gives Beam's filesystems the configuration's options in this process.

    Raises:
        ConfigurationError: where an object store is named whose library or credentials are missing.
    """
    FileSystems.set_options(pipeline_options(config))
    named = [("checkpoint", config.checkpoint), *(("corpus.paths", path) for path in config.corpus.paths)]
    for key, path in named:
        if path.startswith("s3://"):
            _check_s3(key, path)
        if path.startswith("gs://") and not find_spec("google.cloud.storage"):
            raise ConfigurationError(f"{key}: {path} needs Google's libraries", "pip install 'vecbeam[gcp]'")


def _check_s3(key: str, path: str) -> None:
    # Beam tries for minutes where credentials are missing, as if that could pass.
    try:
        from botocore.session import get_session
    except ImportError:
        raise ConfigurationError(f"{key}: {path} needs boto3", "pip install 'vecbeam[s3]'") from None
    if get_session().get_credentials() is None:
        raise ConfigurationError(
            f"{key}: there are no credentials for {path}",
            "export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile with AWS_PROFILE",
        )


def run(config: Config, build: Callable[[beam.Pipeline], Any], *, one_writer: bool = False) -> Counter[str]:
    """Builds and runs a pipeline to its end.

    Args:
        one_writer: takes one worker in this process, however many the configuration has: for Milvus Lite.

    Returns:
        The pipeline's counters.

    Raises:
        VecbeamError: what a worker raised.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    options = pipeline_options(config)
    if one_writer:
        direct = options.view_as(DirectOptions)
        direct.direct_num_workers, direct.direct_running_mode = 1, "in_memory"
    pipeline = beam.Pipeline(runner=RUNNERS[config.runner.name], options=options)
    build(pipeline)
    try:
        # In this process the steps themselves look whether to stop; waiting for workers elsewhere is interrupted.
        with stopping.deferred() if config.runner.name in IN_THIS_PROCESS else contextlib.nullcontext():
            result = pipeline.run()
            result.wait_until_finish()
    except VecbeamError as error:
        raise without_label(error) from error
    except Exception as error:
        ours = from_traceback(str(error))
        if ours is not None:
            raise ours from error
        raise
    counters: Counter[str] = Counter()
    query = MetricsFilter().with_namespace(metrics.NAMESPACE)
    for metric in result.metrics().query(query)["counters"]:
        counters[metric.key.metric.name] += metric.result
    return counters
