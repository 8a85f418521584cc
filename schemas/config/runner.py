"""The section `runner`: where the pipeline runs, and what its workers reach and cost."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator, model_validator

from schemas.config.base import Section, Text

_SECRET = re.compile(
    r"secret|passw(or)?d|passphrase|token|credential|connection_?string|shared_access|(^|_)sas(_|$)"
    r"|(access|account|private|api|shared)_?key",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(
    r"AccountKey=|SharedAccess(Key|Signature)=|[?&]sig=|PRIVATE KEY-----|^\w+://[^/@\s]*:[^/@\s]+@", re.IGNORECASE
)
_SECRETS_PLACE = {
    "azure": "AZURE_STORAGE_CONNECTION_STRING, which Beam reads",
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or AWS_PROFILE",
}


_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}


def _bytes(value: Any) -> Any:
    """A size as a number of bytes.

    >>> _bytes("1.5 GB"), _bytes("64 KiB"), _bytes(7)
    (1500000000, 65536, 7)
    """
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(f"{value!r} is not a size: write bytes, or a text such as 256 MB")
    if isinstance(value, str):
        found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)", value.strip())
        if found is None or found[2].upper() not in _UNITS:
            raise ValueError(
                f"{value!r} is not a size: write bytes, or a text such as 256 MB (KB, MB, GB, KiB, MiB, GiB)"
            )
        value = round(float(found[1]) * _UNITS[found[2].upper()])
    if value < 0:
        raise ValueError(f"{value} is below 0; 0 starts a job for each step")
    return value


_BYTES_OR_TEXT = WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}]})


class Cost(Section):
    """Prices of a pool of workers, for `vecbeam plan`."""

    workers: int = Field(1, ge=1, description="Workers that embed at the same time")
    usd_per_hour: float = Field(ge=0, description="Price per worker in US dollars per hour")


class Runner(Section):
    """Where the pipeline runs. Keys that are not fields here are Beam's own pipeline options."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    name: Literal["local", "DirectRunner", "dataflow", "flink", "spark", "portable", "prism"] = Field(
        "local",
        description="local is the command's own process; portable is any job server, named by job_endpoint; prism is "
        "Beam's own runner for one machine, whose program prism_location names",
    )
    local_below: Annotated[int, BeforeValidator(_bytes), _BYTES_OR_TEXT] = Field(
        "256 MB",
        validate_default=True,
        description="A step that reads less than this runs where the command runs, not as a job on other machines: "
        "bytes, or a text such as 256 MB. A byte that is embedded counts as 64. 0 starts a job for each step",
    )

    cost: Cost | None = Field(None, description="What the workers cost, for vecbeam plan")
    mounted: list[Text] = Field(
        default_factory=list,
        description="Absolute folders that each worker has under the same path: a network share, or files in its "
        "image. vecbeam refuses other local paths if workers are other machines",
    )

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    @property
    def is_local(self) -> bool:
        return self.name in ("local", "DirectRunner")

    @property
    def workers_elsewhere(self) -> bool:
        """Whether workers may be other machines: all but the local runner, and Beam's LOOPBACK environment."""
        return not self.is_local and str(self.options.get("environment_type", "")).upper() != "LOOPBACK"

    def refusal(self, key: str, path: str) -> str:
        """What is wrong with a local path that workers would have to read; "" if they reach it."""
        if not self.workers_elsewhere or "://" in path or any(_is_below(path, folder) for folder in self.mounted):
            return ""
        store = "gs://" if self.name == "dataflow" else "gs:// or s3://"
        remedy = (
            "name a model of the catalogue or a hub id with its revision"
            if key == "encoder.model"
            else f"use object storage ({store})"
        )
        here = "" if self.name == "dataflow" else "; where all workers are this machine, set environment_type: LOOPBACK"
        return (
            f"{key} {path!r} is a path of this machine, where workers of runner {self.name} can't reach it: {remedy}; "
            f"or list its folder in runner.mounted where each worker has it under the same absolute path{here}"
        )

    @model_validator(mode="after")
    def _no_secret(self) -> Runner:
        for key, value in self.options.items():
            if _SECRET.search(key) or (isinstance(value, str) and _SECRET_VALUE.search(value)):
                place = _SECRETS_PLACE.get(key.split("_")[0].lower(), "where the store's library looks for it")
                raise ValueError(f"{key} is a secret; put it into the environment ({place})")
        return self

    @field_validator("mounted")
    @classmethod
    def _absolute(cls, value: list[str]) -> list[str]:
        for folder in value:
            if not folder.startswith("/"):
                raise ValueError(f"{folder!r} is not an absolute folder; workers know no other")
        return value


def _is_below(path: str, folder: str) -> bool:
    parts, above = PurePosixPath(path).parts, PurePosixPath(folder).parts
    return ".." not in parts and parts[: len(above)] == above
