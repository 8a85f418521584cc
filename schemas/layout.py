"""What a row of a corpus holds: its modality, vectors and metadata, and the Arrow schemas that follow from these.

Nothing else in the code but `schemas.row_columns` lists the columns of an item, a chunk or a row: a second vector, or a
vector of another kind, is another `VectorField` of a layout.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import pyarrow as pa

from schemas.canaries import CANARIES, LEAST_COSINE, canary_cosine, without_canaries
from schemas.config.encoder import VECTOR
from schemas.identity import digest
from schemas.item_inputs import Input
from schemas.modality import Modality
from schemas.row_columns import amount_fields, identity_fields, metadata_fields

TOKEN_IDS = "@token_ids"
"""Column of a chunk on its way to the encoder: its tokens as the chunker counted them, null if it kept none."""
LOCATOR = "@locator"
"""Column of a media item and its chunks: where in its file the bytes are; "" for the whole file, and for a text."""
INPUTS = "@inputs"
"""Column of a chunk of which vectors describe different inputs; see `schemas.item_inputs.ChunkInputs`."""
ITEM_MODALITY = "@modality"
"""Column of an item of a corpus of several modalities: its own."""
SOURCE_ROW = "@source_row"
"""Column of a chunk on its way to the encoder: row of its source that has its vectors, -1 where there is none."""


class VectorKind(StrEnum):
    """How a vector is stored. All are Arrow arrays that `take`, `filter` and `concat_tables` work on."""

    DENSE = "dense"
    """float32[dimensions]"""
    SPARSE = "sparse"
    """Positions, rising, and a float32 for each; all others are 0."""
    MULTI = "multi"
    """float32[n, dimensions], one vector per token or patch"""

    @property
    def arrow_type(self) -> pa.DataType:
        """The Arrow type of a column of these vectors."""
        return _VECTOR_TYPES[self]


_NUMBERS = pa.list_(pa.field("element", pa.float32(), nullable=False))
_VECTOR_TYPES: dict[VectorKind, pa.DataType] = {
    VectorKind.DENSE: _NUMBERS,
    VectorKind.SPARSE: pa.struct(
        [
            pa.field("indices", pa.list_(pa.field("element", pa.uint32(), nullable=False)), nullable=False),
            pa.field("values", _NUMBERS, nullable=False),
        ]
    ),
    VectorKind.MULTI: pa.list_(pa.field("element", _NUMBERS, nullable=False)),
}


@dataclass(frozen=True)
class Space:
    """The facts that make two vectors comparable: the family's own, as plain JSON values.

    For a text model these are its weights, tokenizer, architecture, pooling, prompts, length limit, dimensions and
    normalisation. Each part records precision, engine and library versions; they are not part of the space: a
    collection embedded in bfloat16 may be searched in float32.
    """

    facts: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The fingerprint, 16 hex digits. It covers all facts except canaries, which are never exactly the same."""
        return digest(without_canaries(self.facts))

    def as_json(self) -> str:
        """All facts as canonical JSON; `from_json` reads it."""
        return json.dumps(self.facts, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Space:
        """The space that `as_json` wrote."""
        return cls(json.loads(text))

    def differences(self, other: Space) -> list[str]:
        """Returns the differences from another space, one phrase each.

        >>> Space({"weights": "w", "dimensions": 384}).differences(Space({"weights": "w", "dimensions": 768}))
        ['dimensions: 384 here, 768 there']
        """
        return list(_differences(self.facts, other.facts, ""))

    def drift(self, other: Space) -> str:
        """How the vectors of a server's model differ from another space of the same id; "" if they do not."""
        return "; ".join(self.differences(other)) if self.id == other.id else ""

    def __hash__(self) -> int:
        return hash(self.id)


def _differences(mine: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str) -> list[str]:
    found = []
    for key in [*mine, *(key for key in theirs if key not in mine)]:
        here, there = mine.get(key), theirs.get(key)
        if isinstance(here, Mapping) and isinstance(there, Mapping) and key == VECTORS:
            for name in [*here, *(name for name in there if name not in here)]:
                found += _differences(here.get(name) or {}, there.get(name) or {}, f"{prefix}{name}.")
        elif key == CANARIES and here and there:
            if (cosine := canary_cosine(here, there)) < LEAST_COSINE:
                found.append(
                    f"{prefix}{key}: the server gives other vectors for the same sentences, cosine {cosine:.3f} where "
                    f"the same model gives at least {LEAST_COSINE}"
                )
        elif here != there:
            shown = ["none" if value is None else value for value in (here, there)]
            found.append(f"{prefix}{key}: {shown[0]} here, {shown[1]} there")
    return found


VECTORS = "vectors"
"""The fact of a space of several vectors: the facts of each, by its name."""


@dataclass(frozen=True)
class VectorField:
    """One vector column of a row.

    Attributes:
        name: of the column.
        space: what its vectors are comparable in.
        dimensions: numbers of a dense vector, or of each vector of a multi one; positions that a sparse one may have.
        computed: whether Milvus computes it from the text of a row (BM25).
        input: what it describes of an item; None where all vectors of a row describe the same.
    """

    name: str
    space: Space
    dimensions: int
    kind: VectorKind = VectorKind.DENSE
    computed: bool = False
    input: Input | None = None

    @property
    def in_parts(self) -> bool:
        """Whether the rows of the checkpoint's parts have it."""
        return not self.computed

    @property
    def in_collection(self) -> bool:
        """Whether the rows of the collection have it: Milvus stores one vector per field, and no multi vectors."""
        return self.kind is not VectorKind.MULTI

    @property
    def arrow_field(self) -> pa.Field:
        """The column."""
        return pa.field(self.name, self.kind.arrow_type, nullable=False)


@dataclass(frozen=True)
class Layout:
    """What a row of one corpus holds.

    Attributes:
        vectors: at least one; names are unique.
        metadata: for each column string, int, float or bool.
    """

    vectors: tuple[VectorField, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)
    modality: Modality = Modality.TEXT

    @property
    def space(self) -> Space:
        """The space of the whole row: that of its only vector, or one of the spaces of all of them, by name."""
        if len(self.vectors) == 1 and self.vectors[0].name == VECTOR:
            return self.vectors[0].space
        return Space({VECTORS: {one.name: dict(one.space.facts) for one in self.vectors}})

    def vector(self, name: str) -> VectorField:
        """The vector of a name."""
        return next(one for one in self.vectors if one.name == name)

    @property
    def items(self) -> pa.Schema:
        """An item as read; see `item_schema`."""
        return item_schema(self.metadata, self.modality)

    @property
    def chunks(self) -> pa.Schema:
        """A chunk on its way to the encoders; see `chunk_schema`."""
        has_inputs = any(one.input is not None for one in self.vectors)
        return chunk_schema(self.metadata, self.modality, has_inputs=has_inputs)

    @property
    def rows(self) -> pa.Schema:
        """A row of a part, and of a collection: the same columns in both, in this order, except for some vectors.

        `VectorField.in_parts` and `VectorField.in_collection` say which.
        """
        made = [one.arrow_field for one in self.vectors if one.in_parts]
        return pa.schema(
            [
                *identity_fields(self.modality),
                *made,
                *amount_fields(self.modality),
                *metadata_fields(self.metadata),
            ]
        )

    @property
    def made(self) -> tuple[str, ...]:
        """Columns of a row that encoders make, and that a chunk whose content is known takes from its old row."""
        vectors = (one.name for one in self.vectors if one.in_parts)
        return (*vectors, *(one.name for one in amount_fields(self.modality)))

    @property
    def encoded(self) -> tuple[VectorField, ...]:
        """The vectors whose encoders see the chunks: those of the parts; where there are none, they count words."""
        return tuple(one for one in self.vectors if one.in_parts) or self.vectors


def item_schema(metadata: Mapping[str, str], modality: Modality = Modality.TEXT) -> pa.Schema:
    """An item as read: `@content` is its whole text, `@place` its place in the file ("line 12").

    Media are referred to: `@uri` and `@locator` say where the bytes are, and `@content` is their version, which
    changes if the bytes change. Where vectors describe different inputs of an item, `@content` is all of them; see
    `schemas.item_inputs`. Columns that the collection does not have begin with @, as no metadata field can.
    """
    referred = {Modality.TEXT: (), Modality.MIXED: (ITEM_MODALITY, LOCATOR)}.get(modality, (LOCATOR,))
    return pa.schema(
        [
            pa.field("item_id", pa.string(), nullable=False),
            pa.field("@uri", pa.string(), nullable=False),
            pa.field("@place", pa.string(), nullable=False),
            *(pa.field(name, pa.string(), nullable=False) for name in referred),
            pa.field("@content", pa.string(), nullable=False),
            *metadata_fields(metadata),
        ]
    )


def chunk_schema(
    metadata: Mapping[str, str], modality: Modality = Modality.TEXT, *, has_inputs: bool = False
) -> pa.Schema:
    """A chunk on its way to the encoder: a row without its vectors, with what the encoder reads, and its item's facts.

    The encoder reads the token ids of a text, and the bytes that `@uri` and `@locator` refer to of media; where vectors
    describe different inputs of an item (`has_inputs`), it reads its own from the column `@inputs`.
    """
    ids = pa.field(TOKEN_IDS, pa.list_(pa.field("element", pa.int32(), nullable=False)))
    locator = pa.field(LOCATOR, pa.string(), nullable=False)
    read = (ids, locator) if modality.has_rows_of_several else (locator,) if modality.is_media else (ids,)
    if has_inputs:
        read = (*read, pa.field(INPUTS, pa.string(), nullable=False))
    columns = [*identity_fields(modality), *amount_fields(modality), *metadata_fields(metadata), *read]
    return pa.schema([*columns, *item_facts()])


def item_facts() -> pa.Schema:
    """What a chunk carries of its item in addition to its row: its place, its digests, and where its vectors may be.

    `@path` is the name of its file in the corpus. `@source` is the index of a part of the snapshot before,
    `@source_item` the position of an item there; -1 is none.
    """
    return pa.schema(
        [
            pa.field("@uri", pa.string(), nullable=False),
            pa.field("@place", pa.string(), nullable=False),
            pa.field("@path", pa.string(), nullable=False),
            pa.field("@digest", pa.binary(16), nullable=False),
            pa.field("@content_digest", pa.binary(16), nullable=False),
            pa.field("@kind", pa.int8(), nullable=False),
            pa.field("@source", pa.int32(), nullable=False),
            pa.field("@source_item", pa.int32(), nullable=False),
        ]
    )


ON_THE_WAY = frozenset([*item_facts().names, TOKEN_IDS, LOCATOR, INPUTS, SOURCE_ROW])
"""Columns that a chunk has only before the encoder, and that are not part of its row."""
