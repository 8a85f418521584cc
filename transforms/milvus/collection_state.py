"""What a collection is, as plain data: its columns, indexes and properties."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

from schemas.milvus import (
    PROPERTY_ALIAS,
    PROPERTY_LOAD,
    PROPERTY_PREVIOUS,
    PROPERTY_SNAPSHOT,
    PROPERTY_SPACE,
    PROPERTY_SPACE_JSON,
    PROPERTY_STATE,
    PROPERTY_TARGET,
    VARCHAR_MAX_BYTES,
    VECTOR_TYPES,
    CollectionSpec,
)
from schemas.row_columns import amount_fields, identity_fields

HASH_MAX_BYTES = 128
_PLAIN_TYPES = {pa.string(): "VARCHAR", pa.int64(): "INT64", pa.float64(): "DOUBLE"}
_METADATA_TYPES = {"string": "VARCHAR", "int": "INT64", "float": "DOUBLE", "bool": "BOOL"}


@dataclass(frozen=True)
class CollectionField:
    """A field of a collection.

    Attributes:
        size: the most bytes of a VARCHAR, or the dimensions of a vector, or 0.
        computed: whether Milvus computes its values.
    """

    name: str
    type: str
    size: int = 0
    nullable: bool = False
    computed: bool = False

    def __str__(self) -> str:
        return f"{self.name} {self.type}({self.size})" if self.size else f"{self.name} {self.type}"


@dataclass(frozen=True)
class IndexState:
    """An index on the vector; `parameters` are the build parameters that Milvus reports."""

    type: str
    metric: str
    parameters: dict[str, float]
    rows: int
    pending_rows: int
    state: str
    reason: str = ""

    @property
    def built(self) -> bool:
        return self.state == "Finished" and self.pending_rows == 0


@dataclass(frozen=True)
class CollectionState:
    """A collection as Milvus describes it. Ids and state are None if vecbeam did not make it."""

    name: str
    columns: tuple[CollectionField, ...]
    properties: dict[str, str] = field(default_factory=dict)
    indexes: dict[str, IndexState] = field(default_factory=dict)
    """Indexes by the vector's name."""
    loaded: bool = False

    @property
    def vectors(self) -> tuple[CollectionField, ...]:
        """The vector fields, in order."""
        return tuple(column for column in self.columns if column.type in VECTOR_TYPES.values())

    @property
    def space_id(self) -> str | None:
        return self.properties.get(PROPERTY_SPACE)

    @property
    def snapshot_id(self) -> str | None:
        return self.properties.get(PROPERTY_SNAPSHOT)

    @property
    def space_json(self) -> str:
        return self.properties.get(PROPERTY_SPACE_JSON, "")

    @property
    def target_id(self) -> str | None:
        """The snapshot of an update that was begun and has not ended."""
        target = self.properties.get(PROPERTY_TARGET)
        return target if target and target != self.snapshot_id else None

    @property
    def previous(self) -> str | None:
        return self.properties.get(PROPERTY_PREVIOUS) or None

    @property
    def alias(self) -> str | None:
        return self.properties.get(PROPERTY_ALIAS)

    @property
    def load_id(self) -> str | None:
        return self.properties.get(PROPERTY_LOAD)

    @property
    def state(self) -> str | None:
        return self.properties.get(PROPERTY_STATE)

    @property
    def index_built(self) -> bool:
        """Whether each vector has an index over all rows."""
        return all(one.name in self.indexes and self.indexes[one.name].built for one in self.vectors)


def sent_columns(spec: CollectionSpec) -> tuple[CollectionField, ...]:
    """The fields whose values vecbeam sends, or a bulk import reads from a part."""
    return tuple(column for column in columns_of(spec) if not column.computed)


def columns_of(spec: CollectionSpec) -> tuple[CollectionField, ...]:
    """The fields of a collection, in the order of the columns of a part."""
    sizes = {"id": spec.id_max_bytes, "item_id": spec.id_max_bytes, "content_hash": HASH_MAX_BYTES}

    def plain(field: pa.Field) -> CollectionField:
        kind = _PLAIN_TYPES[field.type]
        return CollectionField(field.name, kind, sizes.get(field.name, VARCHAR_MAX_BYTES) if kind == "VARCHAR" else 0)

    return (
        *map(plain, identity_fields(spec.modality)),
        *(
            CollectionField(one.name, one.type, one.dimensions if one.kind == "dense" else 0, computed=one.computed)
            for one in spec.vectors
        ),
        *map(plain, amount_fields(spec.modality)),
        # A default replaces nulls during the load, on any server.
        *(
            CollectionField(
                m.name, _METADATA_TYPES[m.type], m.max_bytes if m.type == "string" else 0, nullable=m.default is None
            )
            for m in spec.metadata
        ),
    )
