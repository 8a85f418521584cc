"""Beam's options for a configuration, and its filesystems with them."""

from __future__ import annotations

import contextlib
import io
from typing import Any

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.run.jobs.runner_options import check_known, check_program, check_values
from schemas.config import Config
from schemas.errors import ConfigurationError
from transforms.support.storage.remote import bucket_client

# `local` is Beam's in-process runner by its own name: DirectRunner would look for a Prism binary on the network first.
RUNNERS = {
    "local": "FnApiRunner",
    "DirectRunner": "FnApiRunner",
    "dataflow": "DataflowRunner",
    "flink": "FlinkRunner",
    "spark": "SparkRunner",
    "portable": "PortableRunner",
    "prism": "PrismRunner",
}


class _Options(PipelineOptions):  # type: ignore[misc]
    """Beam's options, with each view made once: Beam asks for some hundred a job, and makes a parser for each."""

    def view_as(self, cls: type[Any]) -> Any:
        views: dict[type[Any], Any] = self.__dict__.setdefault("_views", {})
        if cls not in views:
            views[cls] = super().view_as(cls)
        return views[cls]


def pipeline_options(config: Config) -> PipelineOptions:
    """Beam's options for a configuration.

    Raises:
        ConfigurationError: if `runner` has a key that Beam or the runner does not know.
    """
    options = _Options.from_dictionary({"runner": RUNNERS[config.runner.name], **config.runner_options})
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):  # argparse prints its usage and exits
            known = options.get_all_options()
    except SystemExit:
        reason = complaint.getvalue().strip().splitlines()[-1:] or ["Beam does not take it"]
        raise ConfigurationError(
            f"runner: {reason[0].rsplit('error: ', 1)[-1]}",
            "correct that option; all keys of runner except name are Beam's pipeline options",
        ) from None
    check_known(config, known)
    return options


def prepare_filesystems(config: Config) -> None:
    """Gives Beam's filesystems the configuration's options in this process.

    Raises:
        ConfigurationError: if an option of the runner is wrong, if an object store is named whose library or
            credentials are missing, or a job server that can't be started.
    """
    check_program(config)
    FileSystems.set_options(pipeline_options(config))
    check_values(config)
    named = [("checkpoint", config.checkpoint), *(("corpus.paths", path) for path in config.corpus.paths)]
    for key, path in named:
        try:
            # A public bucket can be read without credentials, and not be written to.
            bucket_client.check(path, anonymous=key != "checkpoint")
        except ConfigurationError as error:
            raise ConfigurationError(f"{key}: {error.message}", error.remedy) from error
