"""Clients of GCS buckets, with the credentials that Google's own libraries find."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import UTC
from functools import lru_cache
from typing import Any

from schemas.errors import ConfigurationError
from transforms.support.storage.remote.address import Address
from transforms.support.storage.remote.connection_options import RETRIES, client_options


def gcs_store(address: Address, options: Any) -> Any:
    """obstore's client of a GCS bucket; without credentials it reads public ones.

    Args:
        options: Beam's pipeline options, or None.

    Raises:
        ConfigurationError: if Google's libraries are missing, or the file of credentials can't be used.
    """
    from obstore.store import GCSStore

    endpoint = os.environ.get("GOOGLE_BASE_URL", "")
    credentials = google_credentials(options)
    provider = _google_provider(credentials) if credentials is not None else None
    config: dict[str, Any] = {}
    if token := google_token():
        provider = lambda: {"token": token, "expires_at": None}  # noqa: E731
    elif provider is None:
        config["skip_signature"] = True  # public buckets can be read so
    return GCSStore(
        address.bucket,
        config=config,
        client_options=client_options(endpoint),
        retry_config=RETRIES,
        credential_provider=provider,
    )


GOOGLE_REMEDY = "run gcloud auth application-default login, or name a file with GOOGLE_APPLICATION_CREDENTIALS"


def google_token() -> str:
    """A token from the environment, in obstore's form; or ""."""
    return os.environ.get("GOOGLE_BEARER_TOKEN", "")


def google_credentials(options: Any) -> Any:
    """Google's credentials of this process, or None; Beam searches them for half a minute if there are none."""
    named = tuple(os.environ.get(name, "") for name in ("GOOGLE_APPLICATION_CREDENTIALS", "HOME", "CLOUDSDK_CONFIG"))
    return _google_credentials(named, options)


@lru_cache(maxsize=4)
def _google_credentials(_named: tuple[str, ...], options: Any) -> Any:
    try:
        import google.auth
        from apache_beam.internal.gcp import auth
        from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
    except ImportError:
        raise ConfigurationError("gs:// needs Google's libraries", "pip install 'vecbeam[gcp]'") from None
    options = PipelineOptions() if options is None else options
    try:
        found, _ = google.auth.default(scopes=options.view_as(GoogleCloudOptions).gcp_oauth_scopes)
    except google.auth.exceptions.DefaultCredentialsError as error:
        if file := os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
            raise ConfigurationError(f"GOOGLE_APPLICATION_CREDENTIALS={file}: {error}", GOOGLE_REMEDY) from error
        return None
    return auth._Credentials._add_impersonation_credentials(found, options)


def _google_provider(credentials: Any) -> Callable[[], Any]:
    from google.auth.transport.requests import Request

    lock = threading.Lock()

    def provide() -> dict[str, Any]:
        with lock:
            if not credentials.valid:
                credentials.refresh(Request())
            expiry = credentials.expiry
            return {
                "token": credentials.token,
                "expires_at": expiry.replace(tzinfo=UTC) if expiry is not None and expiry.tzinfo is None else expiry,
            }

    return provide
