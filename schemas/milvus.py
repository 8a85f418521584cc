"""The Milvus collection as plain data: fields, index and search parameters, properties. No pymilvus here.

Index and search parameters: https://milvus.io/docs/index.md
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

INDEX_PARAMETERS: dict[str, dict[str, tuple[int, int]]] = {
    "AUTOINDEX": {},
    "FLAT": {},
    "HNSW": {"M": (2, 2048), "efConstruction": (1, 1_000_000)},
    "IVF_FLAT": {"nlist": (1, 65536)},
    "IVF_SQ8": {"nlist": (1, 65536)},
}
INDEX_DEFAULTS: dict[str, dict[str, int]] = {
    "AUTOINDEX": {},
    "FLAT": {},
    "HNSW": {"M": 16, "efConstruction": 200},
    "IVF_FLAT": {"nlist": 128},
    "IVF_SQ8": {"nlist": 128},
}
SEARCH_PARAMETERS: dict[str, dict[str, tuple[int, int]]] = {
    "AUTOINDEX": {},
    "FLAT": {},
    "HNSW": {"ef": (1, 32768)},
    "IVF_FLAT": {"nprobe": (1, 65536)},
    "IVF_SQ8": {"nprobe": (1, 65536)},
}
SEARCH_DEFAULTS: dict[str, dict[str, int]] = {
    "AUTOINDEX": {},
    "FLAT": {},
    "HNSW": {"ef": 64},
    "IVF_FLAT": {"nprobe": 16},
    "IVF_SQ8": {"nprobe": 16},
}
VARCHAR_MAX_BYTES = 65535
"""Largest VARCHAR of a Milvus server, in UTF-8 bytes."""

LITE, SERVER = "Milvus Lite", "a Milvus server"
RESULT_NAMES = ("score", "distance")
"""What each search result has beside the columns of its row; a column of that name would hide it."""

SYSTEM_FIELDS: dict[str, frozenset[str]] = {
    LITE: frozenset({"_seq", "_partition"}),
    SERVER: frozenset({"RowID", "Timestamp"}),
}
"""Fields that each collection has already; a schema with one of these names is refused."""

_OPERATORS = ("and", "or", "not", "in", "like", "exists", "true", "false")
_FUNCTIONS = (
    *("json_contains", "json_contains_all", "json_contains_any"),
    *("array_contains", "array_contains_all", "array_contains_any", "array_length"),
    *("text_match", "phrase_match", "random_sample"),
)
FILTER_KEYWORDS: dict[str, frozenset[str]] = {
    # In any case: Lite's lexer folds it. It refuses iso and interval as field names too.
    LITE: frozenset({*_OPERATORS, "is", "null", "iso", "interval"}),
    # In lower and in upper case, as the lexer knows them; a Like is a field. From 2.5 on a server refuses them as
    # names, before that it takes them and no filter can name the field.
    SERVER: frozenset({*_OPERATORS, *_FUNCTIONS, "null"}),
}
"""Words of the filter language by server: no filter can name a column that is called so.

Lite: milvus_lite/search/filter/tokens.py, schema/validation.py. Server: Plan.g4 and the proxy's list of keywords.
"""


LATER_KEYWORDS = frozenset(
    {
        *("interval", "iso", "threshold", "minimum_should_match", "element_filter", "text_match_fuzzy"),
        *("match_all", "match_any", "match_least", "match_most", "match_exact"),
        *("st_equals", "st_touches", "st_overlaps", "st_crosses", "st_contains", "st_intersects", "st_within"),
        *("st_dwithin", "st_isvalid"),
    }
)
"""Words that some releases of the server from 2.6 on know, in lower and upper case, and earlier ones do not: columns of
these names work there, until the server is upgraded."""


def is_later_keyword(name: str) -> bool:
    """Whether some newer releases of the server can't filter by a column of this name."""
    return name in LATER_KEYWORDS or (name.isupper() and name.lower() in LATER_KEYWORDS)


def refusal(name: str, server: str) -> str | None:
    """Why no metadata column may have a name; None where it may.

    Args:
        name: of letters, digits and underscores.
        server: `LITE` or `SERVER`.

    >>> refusal("score", LITE)
    'each search result has a score of its own'
    >>> refusal("author", LITE) is None
    True
    """
    if name in RESULT_NAMES:
        return f"each search result has a {name} of its own"
    if name in SYSTEM_FIELDS[server]:
        return f"{server} has a field of that name in each collection"
    folds = server == LITE or name.isupper() or name in ("True", "False") or name.lower() == "null"
    if (name.lower() if folds else name) in FILTER_KEYWORDS[server]:
        return f"it is a word of the filter language of {server}, so no filter could name the column"
    return None


def check_index_parameters(index_type: str, parameters: dict[str, Any]) -> None:
    """Raises ValueError where a build parameter does not belong to the index type or is out of its range."""
    _check("index", index_type, parameters, INDEX_PARAMETERS[index_type])


def check_search_parameters(index_type: str, parameters: dict[str, Any]) -> None:
    """Raises ValueError where a search parameter does not belong to the index type or is out of its range."""
    _check("search", index_type, parameters, SEARCH_PARAMETERS[index_type])


def _check(kind: str, index_type: str, parameters: dict[str, Any], allowed: dict[str, tuple[int, int]]) -> None:
    for key, value in parameters.items():
        if key not in allowed:
            takes = ", ".join(allowed) or "none"
            raise ValueError(f"{key!r} is not a {kind} parameter of {index_type}; it takes: {takes}")
        low, high = allowed[key]
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"{key} of {index_type} must be a whole number from {low} to {high}, not {value!r}")


@dataclass(frozen=True)
class MetadataColumn:
    """A typed metadata field of a collection; `type` is string, int, float or bool."""

    name: str
    type: str
    default: str | int | float | bool | None = None
    max_bytes: int = 4096


@dataclass(frozen=True)
class CollectionSpec:
    """All that a collection is made from.

    `space_id`, `snapshot_id` and `space` (what the space is, as JSON) go into its properties; index parameters are the
    type's defaults where not given.
    """

    name: str
    alias: str
    space_id: str
    snapshot_id: str
    dimensions: int
    metric: str
    index_type: str
    index_parameters: dict[str, int] = field(default_factory=dict)
    search_parameters: dict[str, int] = field(default_factory=dict)
    metadata: tuple[MetadataColumn, ...] = ()
    id_max_bytes: int = 512
    space: str = ""

    @property
    def build_parameters(self) -> dict[str, int]:
        return {**INDEX_DEFAULTS[self.index_type], **self.index_parameters}


def index_words(index_type: str, metric: str, parameters: Mapping[str, int]) -> str:
    """An index in words.

    >>> index_words("HNSW", "COSINE", {"M": 16, "efConstruction": 200})
    'HNSW COSINE, M 16, efConstruction 200'
    """
    return ", ".join([f"{index_type} {metric}", *(f"{name} {value}" for name, value in parameters.items())])


PROPERTY_ALIAS = "vecbeam.alias"
"""The alias that the collection was made for."""
PROPERTY_SPACE = "vecbeam.space"
PROPERTY_SPACE_JSON = "vecbeam.space_json"
"""What the space is, so that a mismatch can say what differs."""
PROPERTY_SNAPSHOT = "vecbeam.snapshot"
PROPERTY_TARGET = "vecbeam.target"
"""The snapshot that the collection is being brought to; the same, or missing, where none is under way."""
PROPERTY_PREVIOUS = "vecbeam.previous"
"""The collection that the alias led to before."""
PROPERTY_LOAD = "vecbeam.load"
PROPERTY_STATE = "vecbeam.state"
STATE_LOADING = "loading"
STATE_READY = "ready"


def index_bytes(index_type: str, parameters: dict[str, int], rows: int, dimensions: int) -> int:
    """Memory of a vector index in Milvus, in bytes, without its overhead for segments.

    HNSW: each vector as float32, and its links: 2 M neighbours on the ground layer and M on each of the layers above,
    which hold 1/M of the layer below (Malkov and Yashunin, https://arxiv.org/abs/1603.09320); 4 bytes a link. The IVF
    types: vectors as float32 or as one byte a dimension, 8 bytes an id, and nlist centroids.
    """
    vectors = 4 * dimensions
    given = {**INDEX_DEFAULTS[index_type], **parameters}
    if index_type == "FLAT":
        return rows * vectors
    if index_type in ("HNSW", "AUTOINDEX"):
        links = given.get("M", INDEX_DEFAULTS["HNSW"]["M"])
        return round(rows * (vectors + 4 * (2 * links + links / (links - 1)) + 8))
    row = vectors if index_type == "IVF_FLAT" else dimensions
    return rows * (row + 8) + given["nlist"] * vectors
