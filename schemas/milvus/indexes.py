"""Index types of a vector: build and search parameters with their ranges, words and memory.

Index and search parameters: https://milvus.io/docs/index.md
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SPARSE_INDEX, SPARSE_METRIC = "SPARSE_INVERTED_INDEX", "IP"
"""The default index of a sparse vector."""

INDEX_PARAMETERS: dict[str, dict[str, tuple[int, int]]] = {
    "AUTOINDEX": {},
    "FLAT": {},
    "HNSW": {"M": (2, 2048), "efConstruction": (1, 1_000_000)},
    "IVF_FLAT": {"nlist": (1, 65536)},
    "IVF_SQ8": {"nlist": (1, 65536)},
    "SPARSE_INVERTED_INDEX": {},
}
INDEX_DEFAULTS: dict[str, dict[str, int]] = {
    "AUTOINDEX": {},
    "FLAT": {},
    "HNSW": {"M": 16, "efConstruction": 200},
    "IVF_FLAT": {"nlist": 128},
    "IVF_SQ8": {"nlist": 128},
    "SPARSE_INVERTED_INDEX": {},
}
SEARCH_PARAMETERS: dict[str, dict[str, tuple[int, int]]] = {
    "AUTOINDEX": {},
    "FLAT": {},
    "HNSW": {"ef": (1, 32768)},
    "IVF_FLAT": {"nprobe": (1, 65536)},
    "IVF_SQ8": {"nprobe": (1, 65536)},
    "SPARSE_INVERTED_INDEX": {},
}
SEARCH_DEFAULTS: dict[str, dict[str, int]] = {
    "AUTOINDEX": {},
    "FLAT": {},
    "HNSW": {"ef": 64},
    "IVF_FLAT": {"nprobe": 16},
    "IVF_SQ8": {"nprobe": 16},
    "SPARSE_INVERTED_INDEX": {},
}

_OTHERS = {"an index": ("collection.search", SEARCH_PARAMETERS), "a search": ("collection.index", INDEX_PARAMETERS)}
"""Where the parameters of the other kind are set."""


def check_index_parameters(index_type: str, parameters: dict[str, Any]) -> None:
    """Raises ValueError where a build parameter does not belong to the index type or is out of its range."""
    _check("an index", index_type, parameters, INDEX_PARAMETERS[index_type])


def check_search_parameters(index_type: str, parameters: dict[str, Any]) -> None:
    """Raises ValueError where a search parameter does not belong to the index type or is out of its range."""
    _check("a search", index_type, parameters, SEARCH_PARAMETERS[index_type])


def _check(kind: str, index_type: str, parameters: dict[str, Any], allowed: dict[str, tuple[int, int]]) -> None:
    for key, value in parameters.items():
        if key not in allowed:
            takes = ", ".join(allowed) or "none"
            place, others = _OTHERS[kind]
            elsewhere = f"; set it in {place}" if key in others[index_type] else ""
            raise ValueError(f"{key!r} is not {kind} parameter of {index_type}, which takes: {takes}{elsewhere}")
        low, high = allowed[key]
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"{key} of {index_type} must be a whole number from {low} to {high}, not {value!r}")


def index_words(index_type: str, metric: str, parameters: Mapping[str, float]) -> str:
    """An index in words.

    >>> index_words("HNSW", "COSINE", {"M": 16, "efConstruction": 200})
    'HNSW COSINE, M 16, efConstruction 200'
    """
    return ", ".join([f"{index_type} {metric}", *(f"{name} {value}" for name, value in parameters.items())])


def index_bytes(index_type: str, parameters: dict[str, int], rows: int, dimensions: int) -> int:
    """Memory of a vector index in Milvus, in bytes, without its overhead for segments.

    HNSW: each vector as float32, and its links: 2 M neighbours on the ground layer and M on each of the layers above,
    which hold 1/M of the layer below (Malkov and Yashunin, https://arxiv.org/abs/1603.09320); 4 bytes a link. The IVF
    types: vectors as float32 or as one byte per dimension, 8 bytes per id, and nlist centroids.
    """
    vectors = 4 * dimensions
    given = {**INDEX_DEFAULTS[index_type], **parameters}
    if index_type == "FLAT":
        return rows * vectors
    if index_type in ("HNSW", "AUTOINDEX"):
        links = given.get("M", INDEX_DEFAULTS["HNSW"]["M"])
        return round(rows * (vectors + 4 * (2 * links + links / (links - 1)) + 8))
    if index_type == "SPARSE_INVERTED_INDEX":
        return 0  # depends on the numbers in the rows, which are not known beforehand
    row = vectors if index_type == "IVF_FLAT" else dimensions
    return rows * (row + 8) + given["nlist"] * vectors
