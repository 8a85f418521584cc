"""Who is who: row ids, content hashes, the fingerprint of a space, the digest that names a part.

Nothing here is random or looks at a clock: the same input gives the same name on every machine and in every run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from schemas.records import ON_THE_WAY


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


@dataclass(frozen=True)
class Space:
    """What makes two vectors comparable.

    Precision, engine and library versions are recorded with each part and are no part of it: a collection embedded in
    bfloat16 may be searched in float32.

    Attributes:
        weights: SHA-256 over the weight files' bytes, hex.
        tokenizer: SHA-256 over the tokenizer's canonical JSON (without truncation and padding), hex.
        architecture: the settings of the model that change vectors though the weights be the same.
        pooling: how token vectors become one: mean, cls, max, ...
        prompt, query_prompt: texts put before items and before queries.
        max_tokens: length limit, special tokens included.
        dimensions: numbers of a vector, after truncation.
        normalize: whether vectors have length 1.
    """

    weights: str
    tokenizer: str
    architecture: Mapping[str, Any] = field(default_factory=dict)
    pooling: str = "mean"
    prompt: str = ""
    query_prompt: str = ""
    max_tokens: int = 512
    dimensions: int = 384
    normalize: bool = True

    @property
    def id(self) -> str:
        """The fingerprint, 16 hex digits."""
        return digest(asdict(self))

    def as_json(self) -> str:
        """All of it as canonical JSON; `from_json` reads it."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Space:
        """The space that `as_json` wrote."""
        return cls(**json.loads(text))

    def differences(self, other: Space) -> list[str]:
        """What differs from another space, a phrase each.

        >>> Space("w", "t").differences(Space("w", "t", dimensions=768))
        ['dimensions: 384 here, 768 there']
        """
        mine, theirs = asdict(self), asdict(other)
        return [f"{key}: {mine[key]} here, {theirs[key]} there" for key in mine if mine[key] != theirs[key]]


def batch_digest(chunks: pa.Table, space_id: str, schema_version: int, salt: str = "") -> str:
    """What names a batch's part: its space and all that its rows hold but vectors, 16 hex digits.

    Args:
        chunks: a table of `schemas.records.chunk_schema`.
        salt: tells parts apart whose rows were embedded anew on purpose.
    """
    hasher = hashlib.sha256(f"{schema_version} {space_id}{salt}".encode())
    hasher.update(b"".join(chunks.column("@digest").to_pylist()))
    for name in chunks.column_names:
        if name in ON_THE_WAY:  # where an item was found, now or before, does not change its rows
            continue
        hasher.update(f"|{name}:{chunks.schema.field(name).type}|".encode())
        if name == "text":  # content_hash stands for it
            continue
        values = json.dumps(chunks.column(name).to_pylist(), ensure_ascii=True, separators=(",", ":"))
        hasher.update(values.encode())
    return hasher.hexdigest()[:16]
