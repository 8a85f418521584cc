"""Small JSON files of the checkpoint that steer a run, with a checksum of their values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from schemas.identity import digest

CHECKSUM = "checksum"


def sealed(values: Mapping[str, Any]) -> bytes:
    """Values as JSON, with the digest of them.

    >>> unsealed(sealed({"rows": [3, 7]}))
    {'rows': [3, 7]}
    """
    return json.dumps({**values, CHECKSUM: digest(values)}).encode()


def unsealed(data: bytes) -> dict[str, Any]:
    """The values of `sealed`, or of a file of an earlier release, which has no checksum.

    Raises:
        ValueError: if they are not those that were written.
    """
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError(f"it is not a JSON object but a {type(found).__name__}")
    checksum = found.pop(CHECKSUM, None)
    if checksum not in (None, digest(found)):
        raise ValueError("its values are not those that were written")
    return found
