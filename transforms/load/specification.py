"""What a collection should be under a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from schemas.config import AutoIndex, Config, IndexConfig
from schemas.config.encoder import VECTOR
from schemas.identity import digest
from schemas.layout import Layout, VectorField, VectorKind
from schemas.milvus import CollectionSpec, MetadataColumn, VectorColumn
from schemas.milvus.full_text import BM25_METRIC, DEFAULT_ANALYZER
from schemas.milvus.indexes import SPARSE_INDEX, SPARSE_METRIC

if TYPE_CHECKING:
    from transforms.checkpoint import Snapshot


def collection_spec(config: Config, snapshot: Snapshot | None, layout: Layout) -> CollectionSpec:
    """The collection that a snapshot becomes under a configuration; its name follows from both.

    Args:
        snapshot: None if only fields and index are needed.
    """
    snapshot_id = snapshot.id if snapshot else ""
    metadata = tuple(
        MetadataColumn(name, field.type, field.default, field.max_bytes)
        for name, field in config.corpus.metadata.items()
    )
    settings = config.collection
    vectors = tuple(vector_column(config, one) for one in layout.vectors if one.in_collection)
    identity = [
        snapshot_id,
        *_identity(vectors),
        settings.id_max_bytes,
        [(column.name, column.type, column.default, column.max_bytes) for column in metadata],
        *([promise] if (promise := promise_of(config)) is not None else []),
    ]
    return CollectionSpec(
        name=f"{config.name}_{layout.space.id[:8]}_{digest(identity, 8)}",
        alias=config.name,
        space_id=layout.space.id,
        snapshot_id=snapshot_id,
        vectors=vectors,
        metadata=metadata,
        id_max_bytes=settings.id_max_bytes,
        space=layout.space.as_json(),
        modality=layout.modality,
        left_out=tuple(one.name for one in layout.vectors if not one.in_collection),
        promise=promise,
    )


def promise_of(config: Config) -> dict[str, Any] | None:
    """What an index must keep that vecbeam chooses; None where the configuration names the index."""
    promise = config.collection.promise
    if promise is None:
        return None
    recall = config.verify.recall_at_10 if promise.recall_at_10 is None else promise.recall_at_10
    return {"recall_at_10": recall, "memory_gb": promise.memory_gb, "filters": list(promise.filters)}


def vector_column(config: Config, field: VectorField) -> VectorColumn:
    """A vector of a row as a field of a collection: with its encoder's own metric and index, or the collection's."""
    settings, encoder = config.collection, config.vectors.get(field.name)
    index = encoder.index if encoder is not None else None
    metric = encoder.metric if encoder is not None else None
    if field.computed:
        analyzer = (encoder.analyzer if encoder is not None else None) or DEFAULT_ANALYZER
        return VectorColumn(field.name, 0, BM25_METRIC, SPARSE_INDEX, kind="sparse", analyzer=analyzer)
    if field.kind is VectorKind.SPARSE:
        return VectorColumn(field.name, 0, metric or SPARSE_METRIC, SPARSE_INDEX, kind="sparse")
    # An index that is not chosen yet has the parameters of the default one, until it is.
    chosen = index or (IndexConfig(type="HNSW") if isinstance(settings.index, AutoIndex) else settings.index)
    # Search parameters go with the index that they are of.
    search = dict(settings.search) if index is None or index.type == settings.index.type else {}
    return VectorColumn(
        field.name,
        field.dimensions,
        metric or settings.metric,
        chosen.type,
        chosen.parameters,
        search,
        own_index=index is not None,
    )


def _identity(vectors: Sequence[VectorColumn]) -> list[Any]:
    """The part of a collection's name that its vectors determine; for a single one as in version 0.1.0."""
    facts = [[one.dimensions, one.metric, one.index_type, one.index_parameters] for one in vectors]
    if len(vectors) == 1 and vectors[0].name == VECTOR:
        return facts[0]
    return [[one.name, one.kind, *fact] for one, fact in zip(vectors, facts, strict=True)]
