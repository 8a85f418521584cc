"""The options of a runner, checked before anything is read: what Beam finds only when a job starts."""

from __future__ import annotations

import difflib
import os
import re
import shutil
import socket
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from schemas.config import Config
from schemas.errors import ConfigurationError, VecbeamError

_OWN = {"flink_": "flink", "spark_": "spark", "prism_": "prism", "dataflow_": "dataflow"}
"""Whose options begin so."""
_PROGRAMS = {"flink": "flink_job_server_jar", "spark": "spark_job_server_jar", "prism": "prism_location"}
"""What Beam starts for a runner if `job_endpoint` names no job server."""

_RELEASES = "https://github.com/apache/beam/releases/"
_UNFETCHED = re.compile(r"Unable to fetch remote (?:job server jar|prism binary) at (\S+): (.+?)(\. Also |\. If no|$)")
_UNSTARTED = re.compile(r"Service failed to start up with error (-?\d+)")
"""What Beam says of a job server that it starts itself."""

_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
"""Variables by which gRPC reaches a job server that this machine can't connect to."""
ANSWER_S = 10.0
_ENVIRONMENTS = ("DOCKER", "PROCESS", "EXTERNAL", "LOOPBACK")
_EMBEDDED = "embed"
"""As `job_endpoint`: Beam starts its job server for Python in the command's own process."""


def check_known(config: Config, known: Iterable[str]) -> None:
    """Refuses options that Beam, or the configuration's runner, does not know.

    Args:
        known: names of all of Beam's options.

    Raises:
        ConfigurationError: naming the key, and the nearest name.
    """
    name, names = config.runner.name, set(known)
    for key in config.runner.options:
        if key not in names:
            close = difflib.get_close_matches(key, [*names, *type(config.runner).model_fields], 1)
            raise ConfigurationError(
                f"runner.{key}: unknown to Beam",
                (f"did you mean {close[0]}? " if close else "")
                + "All keys of runner that vecbeam does not have are Beam's pipeline options; check the spelling",
            )
        for prefix, owner in _OWN.items():
            if key.startswith(prefix) and name != owner:
                raise ConfigurationError(
                    f"runner.{key}: an option of runner {owner}, and runner.name is {name}",
                    f"remove it, or set runner.name: {owner}",
                )


def check_values(config: Config) -> None:
    """Refuses values with which no job starts; Beam finds that after a corpus was read, or after minutes.

    Raises:
        ConfigurationError: naming the key.
    """
    runner, options = config.runner, config.runner.options
    workers = options.get("direct_num_workers", 1)
    if not isinstance(workers, int) or workers < 0:
        raise ConfigurationError(
            f"runner.direct_num_workers: {workers!r} is not a number of workers", "use 1 or more, or 0 for one per core"
        )
    if runner.is_local:
        return
    environment = str(options.get("environment_type") or _ENVIRONMENTS[0])
    if environment.upper() not in _ENVIRONMENTS and not environment.startswith("beam:env:"):
        raise ConfigurationError(
            f"runner.environment_type: {environment} is unknown to Beam", f"use one of {', '.join(_ENVIRONMENTS)}"
        )
    if runner.name == "dataflow":
        _check_dataflow(options)
        return
    endpoint = str(options.get("job_endpoint") or "")
    if not endpoint and runner.name == "portable":
        raise ConfigurationError(
            "runner.job_endpoint: missing, and runner portable starts no job server",
            f"name a running one as HOST:PORT; {_EMBEDDED} starts Beam's in the command's own process",
        )
    host, _, port = endpoint.rpartition(":")
    if endpoint not in ("", _EMBEDDED) and not (host and port.isdecimal() and 0 < int(port) < 1 << 16):
        raise ConfigurationError(
            f"runner.job_endpoint: {endpoint} is not the address of a job server", "write it as HOST:PORT"
        )


def _check_dataflow(options: Mapping[str, Any]) -> None:
    if not options.get("project"):
        raise ConfigurationError("runner.project: missing", "name the project of Google Cloud that jobs run in")
    region = str(options.get("region") or "")
    if zone := re.fullmatch(r"(\w+-\w+\d)-[a-z]", region):
        raise ConfigurationError(
            f"runner.region: {region} is a zone", f"set runner.region: {zone[1]} and runner.worker_zone: {region}"
        )
    # Without one, Beam makes a bucket of its own, or tries to for two minutes.
    places = {key: str(options.get(key) or "") for key in ("temp_location", "staging_location")}
    if not any(places.values()):
        raise ConfigurationError(
            "runner.temp_location: missing", "name a folder of a bucket, gs://BUCKET/FOLDER, for the files of jobs"
        )
    for key, place in places.items():
        if place and not re.fullmatch(r"gs://[^/]+(/.*)?", place):
            raise ConfigurationError(
                f"runner.{key}: {place} is not a folder of a bucket", "write it as gs://BUCKET/FOLDER"
            )


def check_program(config: Config) -> None:
    """Refuses a runner whose job server Beam can't start on this machine.

    Raises:
        ConfigurationError: naming the file or program that is missing.
    """
    runner = config.runner
    options = runner.options
    key = _PROGRAMS.get(runner.name)
    if key is None or options.get("job_endpoint"):
        return
    place = str(options.get(key) or "")
    if place and "://" not in place:
        if not Path(place).is_file():
            what = "is not a file" if Path(place).exists() else "does not exist"
            raise ConfigurationError(f"runner.{key}: {place} {what}", "correct the path, or set runner.job_endpoint")
        if runner.name != "prism" and not zipfile.is_zipfile(place):
            raise ConfigurationError(f"runner.{key}: {place} is not a jar", "name the job server's jar of Beam")
    if runner.name == "prism" and place.startswith(("http:", "https:")) and not place.startswith(_RELEASES):
        raise ConfigurationError(
            f"runner.{key}: Beam does not take {place}", f"name a release below {_RELEASES}, or a file on this machine"
        )
    uber = options.get(f"{runner.name}_submit_uber_jar")
    if runner.name != "prism" and not uber and shutil.which("java") is None:
        raise ConfigurationError(
            f"runner.name: {runner.name} starts a job server in Java, and there is no program java on PATH",
            "install Java, or name a running job server in runner.job_endpoint",
        )


def program_fault(config: Config, text: str) -> VecbeamError | None:
    """The error of a job server that Beam could not fetch or start; None if an exception's text names none."""
    key = _PROGRAMS.get(config.runner.name)
    if key is None or config.runner.options.get("job_endpoint"):
        return None
    place = config.runner.options.get(key)
    if found := _UNFETCHED.search(text):
        return VecbeamError(
            f"runner.{key}: {place or 'not set'}, and Beam can't fetch {found[1]} ({found[2]})",
            f"fetch that file elsewhere and set runner.{key} to its path, or name a running job server in "
            "runner.job_endpoint; the same command continues",
        )
    if found := _UNSTARTED.search(text):
        return VecbeamError(
            f"runner.{key}: {place or 'the program that Beam fetched'} ended with code {found[1]} when Beam started it",
            "--debug shows what it said; take the program of this version of Beam, or name a running job server in "
            "runner.job_endpoint; the same command continues",
        )
    return None


def check_job_server(config: Config) -> None:
    """Refuses to start a job where nothing listens at `runner.job_endpoint`: Beam would wait for minutes.

    Raises:
        VecbeamError: naming the address and the reason.
    """
    endpoint = str(config.runner.options.get("job_endpoint") or "")
    host, _, port = endpoint.rpartition(":")
    if not host or not port.isdecimal() or any(os.environ.get(name) for name in _PROXIES):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except OSError as error:
        raise VecbeamError(
            f"runner.job_endpoint: no job server answers at {endpoint} ({error.strerror or error})",
            "start it, or correct runner.job_endpoint, and run the same command again: it continues",
        ) from error
