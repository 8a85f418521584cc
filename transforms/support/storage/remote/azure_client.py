"""Clients of Azure containers, by a connection string or the variables that obstore reads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from schemas.errors import ConfigurationError
from transforms.support.storage.remote.address import Address
from transforms.support.storage.remote.connection_options import RETRIES, client_options


def azure_store(address: Address, options: Mapping[str, Any]) -> Any:
    """obstore's client of a container.

    Raises:
        ConfigurationError: if no account is named.
    """
    from obstore.store import AzureStore

    text = options.get("azure_connection_string") or os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "")
    config = azure_config(text, address)
    if given := options.get("blob_service_endpoint"):
        config["endpoint"] = given
    if identity := options.get("azure_managed_identity_client_id"):
        config["client_id"] = identity
    if "account_name" not in config and not os.environ.get("AZURE_STORAGE_ACCOUNT_NAME"):
        raise ConfigurationError(f"{address.root} names no storage account", AZURE_REMEDY)
    endpoint = config.get("endpoint") or os.environ.get("AZURE_STORAGE_ENDPOINT", "")
    return AzureStore(
        address.bucket,
        config=config,
        client_options=client_options(endpoint),
        retry_config=RETRIES,
    )


AZURE_REMEDY = "export AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"


def azure_config(connection: str, address: Address) -> dict[str, Any]:
    """obstore's configuration for a connection string of Azure, and what a URI names.

    >>> text = "AccountName=acme;AccountKey=a2V5;EndpointSuffix=core.windows.net"
    >>> azure_config(text, Address("az", "az://c/", "c", "", "", ""))
    {'account_name': 'acme', 'account_key': 'a2V5', 'endpoint': 'https://acme.blob.core.windows.net'}

    Raises:
        ConfigurationError: if the two name different accounts.
    """
    parts = dict(part.split("=", 1) for part in connection.split(";") if "=" in part)
    config: dict[str, Any] = {}
    names = {"account_name": "AccountName", "account_key": "AccountKey", "sas_key": "SharedAccessSignature"}
    for name, part in names.items():
        if part in parts:
            config[name] = parts[part].removeprefix("?")
    if parts.get("UseDevelopmentStorage", "").lower() == "true":
        config["use_emulator"] = True
    if "BlobEndpoint" in parts:
        config["endpoint"] = parts["BlobEndpoint"].rstrip("/")
    elif "EndpointSuffix" in parts and "AccountName" in parts:
        protocol = parts.get("DefaultEndpointsProtocol", "https")
        config["endpoint"] = f"{protocol}://{parts['AccountName']}.blob.{parts['EndpointSuffix']}"
    if address.account and config.setdefault("account_name", address.account) != address.account:
        raise ConfigurationError(
            f"{address.root} is of account {address.account}, the connection string of {config['account_name']}",
            "name one of them in both",
        )
    return config
