"""Identity: row ids, content hashes, and digests of values.

Nothing here is random or looks at a clock: the same input gives the same name on every machine and in every run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any


def row_id(item_id: str, chunk: int) -> str:
    """The id of a chunk.

    >>> row_id("docs/a.md", 2)
    'docs/a.md#2'
    """
    return f"{item_id}#{chunk}"


def content_hash(text: str) -> str:
    """First 128 bits of the SHA-256 of a text's UTF-8 bytes, as 32 hex digits.

    >>> content_hash("")
    'e3b0c44298fc1c149afbf4c8996fb924'
    """
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def digest(value: Any, length: int = 16) -> str:
    """First hex digits of the SHA-256 of a value's canonical JSON.

    >>> digest({"a": 1}) == digest({"a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def digest_bytes(chunks: Iterable[bytes], length: int = 64) -> str:
    """First hex digits of the SHA-256 of some bytes."""
    hasher = hashlib.sha256()
    for chunk in chunks:
        hasher.update(chunk)
    return hasher.hexdigest()[:length]
