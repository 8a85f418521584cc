"""How clients of stores connect: time limits, certificates, no retries of their own."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

CONNECT_S = 10
REQUEST_S = 120
"""Seconds that one request may take: 8 MiB on a line of one Mbit/s need more than obstore's 30."""


def client_options(endpoint: str = "", verify: Any = None) -> dict[str, Any]:
    """obstore's options of the connection to a store.

    Args:
        verify: as boto3 has it: False, or the path of certificates to trust.
    """
    options: dict[str, Any] = {
        "allow_http": endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=CONNECT_S),
        "timeout": timedelta(seconds=REQUEST_S),
    }
    if verify is False:
        options["allow_invalid_certificates"] = True
    elif isinstance(verify, str):
        options["root_certificate"] = Path(verify).read_bytes()
    return options


# vecbeam retries: it counts and shows retries, and Ctrl-C ends them.
RETRIES = {"max_retries": 0, "retry_timeout": timedelta(seconds=REQUEST_S)}
