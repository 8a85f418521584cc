"""The rows of a configuration with the model of their queries, ranked exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.run.jobs.beam_options import prepare_filesystems
from pipelines.steps.collection.current_rows import current_rows
from pipelines.steps.collection.held import open_snapshot
from pipelines.steps.quality.ranked import Ranked, embed_queries, held_out_vectors, rank_exactly
from pipelines.steps.search.queries.query_model import query_model
from pipelines.steps.search.queries.text_vectors import models_of
from schemas.config import Config
from schemas.errors import ConfigurationError
from schemas.milvus import VectorColumn
from transforms.encoders import Model
from transforms.encoders.base import vector_field
from transforms.explore.live_rows import LiveRows
from transforms.load.specification import vector_column
from transforms.quality.judged_queries import LoggedQuery
from transforms.quality.known_items import HeldOut

ALONE = "add --served, which ranks by the served index"
AMONG_OTHERS = "leave this configuration out; vecbeam evaluate --served measures it alone"
"""What remains for rows without a dense vector, which have no exact ranking."""


class ConfiguredRows(NamedTuple):
    """Rows that a configuration made.

    Attributes:
        model: of the dense vector to rank by; None where there is none.
        name: of that vector.
    """

    config: Config
    rows: LiveRows
    model: Model | None
    name: str

    @property
    def basis(self) -> dict[str, str]:
        """Which rows these are."""
        return {"snapshot": self.rows.snapshot.id, "space": self.rows.snapshot.space_id}

    @property
    def column(self) -> VectorColumn:
        """The vector as a field of the collection."""
        assert self.model is not None
        return vector_column(self.config, vector_field(self.name, self.model))

    def ranked(self, queries: Sequence[LoggedQuery], held_out: Sequence[HeldOut] = ()) -> Ranked:
        """The exact rankings; see `rank_exactly`."""
        assert self.model is not None
        encoder = self.model.load()
        embedded = embed_queries(queries, encoder, self.model.modalities)
        return rank_exactly(self.rows, self.name, embedded, self.column.metric, held_out_vectors(held_out, encoder))

    def item_hashes(self) -> NDArray[np.uint64]:
        """Hashes of all item ids, sorted and each once: 8 bytes per item."""
        found: set[int] = set()
        for table in self.rows.tables(["item_id"]):
            for item in table.column("item_id").unique().to_pylist():
                found.add(int.from_bytes(hashlib.blake2b(item.encode(), digest_size=8).digest(), "big"))
        return np.array(sorted(found), np.uint64)


def open_rows(
    config: Config, names: Sequence[str] = (), *, served: bool = False, remedy: str = ALONE
) -> ConfiguredRows:
    """The rows of the newest snapshot of a configuration's space, or of what is served.

    Args:
        names: of vectors.
        remedy: of the error if no dense vector is named.

    Raises:
        ConfigurationError: if no dense vector is named, unless `served`.
        CheckpointError, SpaceMismatchError: see `open_snapshot`.
        CollectionError: with `served`, if nothing is served; of another space, a `SpaceMismatchError`.
    """
    prepare_filesystems(config)
    if served:
        rows = current_rows(config, served=True)
    else:
        checkpoint, snapshot, _ = open_snapshot(config)
        rows = LiveRows(checkpoint, snapshot)
        _ = rows.schema  # a snapshot without rows is refused here
    try:
        if len(names) > 1:
            raise ConfigurationError("--vector: the hits of several vectors are fused by the served search alone")
        name = rows.vector_named(names[0] if names else "")
    except ConfigurationError as error:
        if served:
            return ConfiguredRows(config, rows, None, "")
        raise ConfigurationError(f"{config.name}: {error.message}", remedy) from None
    model = models_of(config, rows)[name] if served else query_model(config, name)
    return ConfiguredRows(config, rows, model, name)
