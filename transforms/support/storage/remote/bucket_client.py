"""One client per bucket and configuration for the life of the process: making one costs more than most requests."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from schemas.errors import ConfigurationError
from transforms.support.storage.remote.address import AZURE, Address, is_served, parse
from transforms.support.storage.remote.aws_client import s3_store
from transforms.support.storage.remote.azure_client import azure_store
from transforms.support.storage.remote.google_client import GOOGLE_REMEDY, gcs_store, google_credentials, google_token

_VARIABLES = ("AWS_", "AZURE_", "GOOGLE_")
_OPTIONS = ("s3_", "azure_", "blob_service_endpoint")

_AZURE = "az://CONTAINER/..., or abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/..., or azfs://ACCOUNT/CONTAINER/..."
_SPELLINGS = {
    **dict.fromkeys(("s3a", "s3n"), "s3://BUCKET/..."),
    **dict.fromkeys(("gcs", "google"), "gs://BUCKET/..."),
    **dict.fromkeys(("azure", "azblob", "wasb", "wasbs", "adl"), _AZURE),
}
"""Schemes that other programs use, and what is written here instead."""


@dataclass
class BucketClient:
    """A bucket's client; `has_answered` once the store answered anything."""

    store: Any
    has_answered: bool = field(default=False)


_clients: dict[tuple[Any, ...], BucketClient] = {}
_descriptions: dict[int, tuple[Any, str]] = {}
_KEPT_DESCRIPTIONS = 64
_making = threading.Lock()


def client_of(address: Address) -> BucketClient:
    """The client of a bucket, for the current environment and Beam's options.

    Raises:
        ConfigurationError: if a library or credentials are missing.
    """
    options = beam_options()
    environment = tuple(item for item in os.environ.items() if item[0].startswith(_VARIABLES))
    with _making:
        known = (address.root, _described(options), environment)
        if known not in _clients:
            _clients[known] = BucketClient(_store(address, options))
        return _clients[known]


def _described(options: Any) -> str:
    """The options that concern stores, as text: each pipeline of a run has options of its own that say the same."""
    if id(options) not in _descriptions:
        if len(_descriptions) >= _KEPT_DESCRIPTIONS:
            _descriptions.clear()
        of_stores = {key: value for key, value in _views(options).items() if key.startswith(_OPTIONS)}
        # A reference to the options, so that no others get their id.
        _descriptions[id(options)] = options, repr(sorted({**of_stores, **_google(options)}.items()))
    return _descriptions[id(options)][1]


def _store(address: Address, options: Any) -> Any:
    from obstore.exceptions import BaseError

    try:
        if address.scheme == "gs":
            return gcs_store(address, options)
        return (azure_store if address.scheme in AZURE else s3_store)(address, _views(options))
    except BaseError as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigurationError(
            f"{address.root}: {said}", "correct the store's options under runner and its variables in the environment"
        ) from error


def check(uri: str, *, anonymous: bool = False) -> None:
    """Refuses a URI whose library or credentials are missing, before anything is read.

    Without credentials, Beam's filesystems search them for half a minute, and then fail.

    Args:
        anonymous: accepts a bucket of GCS without credentials: it may be public.

    Raises:
        ConfigurationError: with what is missing.
    """
    scheme = uri.partition("://")[0]
    if scheme in _SPELLINGS:
        raise ConfigurationError(f"{uri}: {scheme}:// is not a valid scheme", f"write {_SPELLINGS[scheme]}")
    if not is_served(uri):
        if uri.startswith("gs://") and not find_spec("google.cloud.storage"):
            raise ConfigurationError(f"{uri} needs Google's libraries", "pip install 'vecbeam[gcp]'")
        return
    try:
        address = parse(uri)
    except ValueError as error:
        raise ConfigurationError(str(error), "correct the URI") from error
    client_of(address)
    if address.scheme == "gs" and not anonymous and not google_token() and google_credentials(beam_options()) is None:
        raise ConfigurationError(f"there are no credentials for {uri}", GOOGLE_REMEDY)


def beam_options() -> Any:
    """The pipeline options that this process's filesystems have: the configuration's, on workers too; or None."""
    module = sys.modules.get("apache_beam.io.filesystems")
    return getattr(module.FileSystems, "_pipeline_options", None) if module is not None else None


def _google(options: Any) -> dict[str, Any]:
    """What `google_credentials` reads of the options."""
    if options is None:
        return {}
    from apache_beam.options.pipeline_options import GoogleCloudOptions

    view = options.view_as(GoogleCloudOptions)
    return {"gcp_oauth_scopes": view.gcp_oauth_scopes, "impersonate": view.impersonate_service_account}


def _views(options: Any) -> Mapping[str, Any]:
    """The options of S3 and Azure that are set, by name."""
    if options is None:
        return {}
    from apache_beam.options import pipeline_options as beam

    found: dict[str, Any] = {}
    for view in (beam.S3Options, beam.AzureOptions):
        found.update(options.view_as(view).get_all_options(drop_default=True, current_only=True))
    return found
