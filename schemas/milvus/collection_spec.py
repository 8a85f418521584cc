"""All that a collection is made from, and the properties that it carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.milvus.full_text import BM25_PARAMETERS
from schemas.milvus.indexes import INDEX_DEFAULTS
from schemas.modality import Modality

PROPERTY_ALIAS = "vecbeam.alias"
"""The alias that the collection was made for."""
PROPERTY_SPACE = "vecbeam.space"
PROPERTY_SPACE_JSON = "vecbeam.space_json"
"""What the space is, so that a mismatch can say what differs."""
PROPERTY_SNAPSHOT = "vecbeam.snapshot"
PROPERTY_TARGET = "vecbeam.target"
"""The snapshot that the collection is being brought to; the same, or missing, where none is under way."""
PROPERTY_PREVIOUS = "vecbeam.previous"
"""The collection that the alias pointed to before."""
PROPERTY_LOAD = "vecbeam.load"
PROPERTY_STATE = "vecbeam.state"
PROPERTY_SIMILARITIES = "vecbeam.similarities"
"""Percentiles of the similarity of pairs of rows, as JSON: for each vector a list from low to high."""
PROPERTY_INDEX = "vecbeam.index"
"""An index that vecbeam chose, as JSON: type, parameters, search parameters, the promise that it keeps, and recalls."""
STATE_LOADING = "loading"
STATE_READY = "ready"


@dataclass(frozen=True)
class MetadataColumn:
    """A typed metadata field of a collection; `type` is string, int, float or bool."""

    name: str
    type: str
    default: str | int | float | bool | None = None
    max_bytes: int = 4096


VECTOR_TYPES = {"dense": "FLOAT_VECTOR", "sparse": "SPARSE_FLOAT_VECTOR"}
"""Milvus type of each kind of vector that a collection can hold."""


@dataclass(frozen=True)
class VectorColumn:
    """A vector field of a collection, and its index; build and search parameters are the type's defaults where missing.

    Attributes:
        dimensions: of a dense vector; a sparse field has none.
        kind: dense or sparse, a value of `schemas.layout.VectorKind`.
        analyzer: splits the text of a row into words, where Milvus computes the vector from them; else "".
        own_index: whether its encoder names its index; else it is the collection's.
    """

    name: str
    dimensions: int
    metric: str
    index_type: str
    index_parameters: dict[str, int] = field(default_factory=dict)
    search_parameters: dict[str, int] = field(default_factory=dict)
    kind: str = "dense"
    analyzer: str = ""
    own_index: bool = False

    @property
    def computed(self) -> bool:
        """Whether Milvus computes the vector: vecbeam neither sends it nor compares it."""
        return bool(self.analyzer)

    @property
    def type(self) -> str:
        """Milvus type of the field."""
        return VECTOR_TYPES[self.kind]

    @property
    def build_parameters(self) -> dict[str, float]:
        """All that the index is built with."""
        of_words = BM25_PARAMETERS if self.computed else {}
        return {**INDEX_DEFAULTS[self.index_type], **self.index_parameters, **of_words}


@dataclass(frozen=True)
class CollectionSpec:
    """All that a collection is made from.

    `space_id`, `snapshot_id` and `space` (what the space is, as JSON) go into its properties.
    """

    name: str
    alias: str
    space_id: str
    snapshot_id: str
    vectors: tuple[VectorColumn, ...]
    metadata: tuple[MetadataColumn, ...] = ()
    id_max_bytes: int = 512
    space: str = ""
    modality: Modality = Modality.TEXT
    left_out: tuple[str, ...] = ()
    """Vectors that only the parts have."""
    promise: Mapping[str, Any] | None = None
    """What the index must keep, if vecbeam chooses it: recall_at_10, memory_gb, filters."""

    @property
    def vector_names(self) -> frozenset[str]:
        """Names of the vectors of a row, in the collection or in the parts."""
        return frozenset([*(one.name for one in self.vectors), *self.left_out])

    @property
    def sent_vectors(self) -> tuple[VectorColumn, ...]:
        """The vectors that rows are sent with, and that come from the parts."""
        return tuple(one for one in self.vectors if not one.computed)
