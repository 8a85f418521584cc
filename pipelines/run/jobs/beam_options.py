"""Beam's options for a configuration, and its filesystems with them."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import json
from typing import Any

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions

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


class _SharedOptions(_Options):
    """Options that pipelines of this process share: Beam would copy them for each, and make all views again."""

    def __deepcopy__(self, _: Any) -> _SharedOptions:
        return self


def pipeline_options(config: Config) -> PipelineOptions:
    """Beam's options for a configuration; the caller may change them.

    Raises:
        ConfigurationError: if `runner` has a key that Beam or the runner does not know.
    """
    return copy.deepcopy(_checked(config, is_shared=False))


def options_here(config: Config) -> PipelineOptions:
    """Beam's options for a pipeline that runs on one thread of this process; not to be changed.

    Raises:
        ConfigurationError: as `pipeline_options`.
    """
    options = _checked(config, is_shared=True)
    use_one_worker(options)
    return options


def use_one_worker(options: PipelineOptions) -> None:
    """Makes options those of Beam's local runner with a single worker, in this process."""
    direct = options.view_as(DirectOptions)
    direct.direct_num_workers, direct.direct_running_mode = 1, "in_memory"


def _checked(config: Config, *, is_shared: bool) -> _Options:
    runner = RUNNERS[config.runner.name]
    options, known = _parsed(json.dumps({"runner": runner, **config.runner_options}, default=str), is_shared)
    check_known(config, known)
    return options


@functools.lru_cache(maxsize=8)
def _parsed(values: str, is_shared: bool) -> tuple[_Options, frozenset[str]]:
    """Options from JSON, and the names of all that Beam has; a command needs the same several times."""
    options = (_SharedOptions if is_shared else _Options).from_dictionary(json.loads(values))
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
    return options, frozenset(known)


def check_runner(config: Config) -> None:
    """Refuses a runner with which no job starts, as far as its options tell.

    Raises:
        ConfigurationError: if an option is wrong, or a job server that can't be started.
    """
    check_program(config)
    _checked(config, is_shared=True)
    check_values(config)


def prepare_filesystems(config: Config) -> None:
    """Gives Beam's filesystems the configuration's options in this process.

    Raises:
        ConfigurationError: if an option of the runner is wrong, if an object store is named whose library or
            credentials are missing, or a job server that can't be started.
    """
    check_runner(config)
    FileSystems.set_options(_checked(config, is_shared=True))
    named = [("checkpoint", config.checkpoint), *(("corpus.paths", path) for path in config.corpus.paths)]
    for key, path in named:
        try:
            # A public bucket can be read without credentials, and not be written to.
            bucket_client.check(path, anonymous=key != "checkpoint")
        except ConfigurationError as error:
            raise ConfigurationError(f"{key}: {error.message}", error.remedy) from error
