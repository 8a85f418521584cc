"""Clients of S3 buckets, with the endpoint, region, profile and credentials that boto3 would use."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from schemas.errors import ConfigurationError
from transforms.support.storage.remote.address import Address
from transforms.support.storage.remote.connection_options import RETRIES, client_options

AWS_CREDENTIAL_LIFE = timedelta(minutes=10)
"""Seconds that credentials of botocore are valid at least."""


def s3_store(address: Address, options: Mapping[str, Any]) -> Any:
    """obstore's client of an S3 bucket.

    Raises:
        ConfigurationError: if boto3 or credentials are missing, or the address, the profile or a file of AWS is wrong.
    """
    found = _found(address, options)
    from obstore.store import S3Store

    endpoint, config = found.endpoint, dict[str, Any](region=found.region or "us-east-1")
    if found.addressing_style == "virtual" and _is_custom(endpoint):
        scheme, _, host = endpoint.partition("://")
        endpoint, config["virtual_hosted_style_request"] = f"{scheme}://{address.bucket}.{host}", True
    verify = options.get("s3_verify")
    if verify is None:
        verify = os.environ.get("AWS_CA_BUNDLE") or found.session.get_config_variable("ca_bundle")
    credentials = None
    if not options.get("s3_access_key_id"):
        credentials = found.session.get_credentials()
        if credentials is None:
            raise ConfigurationError(f"there are no credentials for {address.root}", AWS_REMEDY)
    return S3Store(
        address.bucket,
        config={**config, "endpoint": endpoint},
        client_options=client_options(endpoint, verify),
        retry_config=RETRIES,
        credential_provider=_aws_provider(credentials, options),
    )


AWS_REMEDY = "export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile with AWS_PROFILE"
AWS_FILES_REMEDY = "correct AWS_PROFILE, or the files ~/.aws/config and ~/.aws/credentials"
ENDPOINT_REMEDY = "correct runner.s3_endpoint_url: http://HOST:PORT or https://HOST"


@dataclass(frozen=True)
class _Found:
    """Where a bucket is, as botocore's session and client say.

    Attributes:
        session: of botocore; gives credentials.
        region: "" where none is set.
        addressing_style: of the user's AWS configuration; "" where none is set.
    """

    session: Any
    endpoint: str
    region: str
    addressing_style: str


def _found(address: Address, options: Mapping[str, Any]) -> _Found:
    _check_installed()
    from botocore.exceptions import BotoCoreError

    try:
        return _own_server(options) or _as_botocore(address, options)
    except BotoCoreError as error:
        raise ConfigurationError(f"{address.root}: {error}", AWS_FILES_REMEDY) from error
    except ValueError as error:
        raise ConfigurationError(f"{address.root}: {error}", ENDPOINT_REMEDY) from error


def _own_server(options: Mapping[str, Any]) -> _Found | None:
    """What a server at `s3_endpoint_url` needs; None where there is none, or where it is one of AWS.

    A client of botocore knows nothing more of it, and takes a quarter of a second to be made.
    """
    endpoint = str(options.get("s3_endpoint_url") or "")
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or not _is_custom(endpoint):
        return None
    from botocore.session import get_session

    session = get_session()
    region = options.get("s3_region_name") or session.get_config_variable("region") or ""
    style = (session.get_scoped_config().get("s3") or {}).get("addressing_style", "")
    return _Found(session, endpoint.rstrip("/"), str(region), str(style))


def _as_botocore(address: Address, options: Mapping[str, Any]) -> _Found:
    session, client = _session_and_client(options)
    if not _is_custom(client.meta.endpoint_url) and (region := bucket_region(client, address.bucket)):
        session, client = _session_and_client({**options, "s3_region_name": region})
    region = str(client.meta.region_name or "")
    style = (client.meta.config.s3 or {}).get("addressing_style", "")
    return _Found(session, client.meta.endpoint_url, "" if region == "aws-global" else region, str(style))


def _check_installed() -> None:
    if not find_spec("botocore"):
        raise ConfigurationError("s3:// needs boto3", "pip install 'vecbeam[s3]'")


def _session_and_client(options: Mapping[str, Any]) -> tuple[Any, Any]:
    """A session and a client of botocore, made as Beam makes them, which know the endpoint, region and profile."""
    from botocore.config import Config
    from botocore.session import get_session

    session = get_session()
    client = session.create_client(
        "s3",
        # It only asks for a bucket's region.
        config=Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2}),
        region_name=options.get("s3_region_name"),
        api_version=options.get("s3_api_version"),
        use_ssl=not options.get("s3_disable_ssl"),
        verify=options.get("s3_verify"),
        endpoint_url=options.get("s3_endpoint_url"),
        aws_access_key_id=options.get("s3_access_key_id"),
        aws_secret_access_key=options.get("s3_secret_access_key"),
        aws_session_token=options.get("s3_session_token"),
    )
    return session, client


def _is_custom(endpoint: str) -> bool:
    return ".amazonaws.com" not in endpoint


def bucket_region(client: Any, bucket: str) -> str:
    """The region of a bucket, which AWS reports; "" if it does not.

    botocore follows AWS to another region by itself, and obstore does not.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        answer = client.head_bucket(Bucket=bucket)
    except ClientError as error:
        answer = error.response
    except BotoCoreError:  # the first request says what is wrong
        return ""
    return str(answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("x-amz-bucket-region", ""))


def _aws_provider(credentials: Any, options: Mapping[str, Any]) -> Callable[[], Any]:
    def provide() -> dict[str, Any]:
        if credentials is None:
            return {
                "access_key_id": options["s3_access_key_id"],
                "secret_access_key": options.get("s3_secret_access_key") or "",
                "token": options.get("s3_session_token"),
                "expires_at": None,
            }
        frozen = credentials.get_frozen_credentials()
        refreshed = hasattr(credentials, "refresh_needed")
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + AWS_CREDENTIAL_LIFE if refreshed else None,
        }

    return provide
