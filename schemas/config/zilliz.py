"""The section `collection.zilliz`: how Zilliz Cloud imports the parts of a checkpoint."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from schemas.config.base import Section, Text

ENDPOINT = "https://api.cloud.zilliz.com"
_CLUSTER = re.compile(r"in[0-9]{2}-[0-9A-Za-z]+")
_REGION = re.compile(r"(aws|gcp|az|ali|tc|hwc)-[a-z0-9-]+")
_PROJECT = re.compile(r"proj-[0-9A-Za-z]+")


class Zilliz(Section):
    """Zilliz Cloud's import through its REST API.

    The API key and the keys of the bucket are in the environment: ZILLIZ_API_KEY, ZILLIZ_STORAGE_ACCESS_KEY,
    ZILLIZ_STORAGE_SECRET_KEY, and for short-term keys ZILLIZ_STORAGE_TOKEN.
    """

    cluster_id: Text | None = Field(None, description="Cluster of the collection, as in01-0123456789abcde")
    project_id: Text | None = Field(None, description="Project, for a project database; with region_id")
    region_id: Text | None = Field(None, description="Region of a project database, as aws-us-west-2")
    endpoint: Text = Field(
        ENDPOINT, description="Address of the control plane; of regions in China https://api.cloud.zilliz.com.cn"
    )

    @field_validator("cluster_id")
    @classmethod
    def _cluster(cls, value: str | None) -> str | None:
        if value is not None and not _CLUSTER.fullmatch(value):
            raise ValueError(
                f"{value!r} is not the id of a cluster, such as in01-0123456789abcde; its page in the console shows it"
            )
        return value

    @field_validator("project_id")
    @classmethod
    def _project(cls, value: str | None) -> str | None:
        if value is not None and not _PROJECT.fullmatch(value):
            raise ValueError(f"{value!r} is not the id of a project, such as proj-0123456789abcdef")
        return value

    @field_validator("region_id")
    @classmethod
    def _region(cls, value: str | None) -> str | None:
        if value is not None and not _REGION.fullmatch(value):
            raise ValueError(
                f"{value!r} is not a region of Zilliz Cloud, such as aws-us-west-2, gcp-us-west1, az-eastus"
            )
        return value

    @field_validator("endpoint")
    @classmethod
    def _no_open_line(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.username or parts.password:
            raise ValueError("carries a user or password; put the API key into the environment: ZILLIZ_API_KEY")
        here = parts.hostname in ("127.0.0.1", "localhost", "::1")
        if not parts.hostname or parts.scheme not in ("https", "http"):
            raise ValueError(f"{value!r} is not an address such as {ENDPOINT}")
        if parts.scheme == "http" and not here:
            raise ValueError(f"{value!r} would send the keys without encryption: use https://")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _one_place(self) -> Zilliz:
        of_project = [self.project_id, self.region_id]
        if self.cluster_id is not None and any(of_project):
            raise ValueError("cluster_id and project_id exclude each other: name the cluster, or project and region")
        if self.cluster_id is None and None in of_project:
            if any(of_project):
                missing = "region_id" if self.region_id is None else "project_id"
                raise ValueError(f"{missing} is missing; a project database needs project_id and region_id")
            raise ValueError("cluster_id is missing; its page in the console of Zilliz Cloud shows it")
        return self

    @property
    def place(self) -> dict[str, str]:
        """The fields of a request that tell where the collection is."""
        if self.cluster_id is not None:
            return {"clusterId": self.cluster_id}
        return {"projectId": self.project_id or "", "regionId": self.region_id or ""}
