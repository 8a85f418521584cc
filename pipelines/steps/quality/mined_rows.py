"""The rows of a collection as hard negatives: with the vectors of its checkpoint, and its encoder for queries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.run.jobs.beam_options import prepare_filesystems
from pipelines.steps.collection.held import open_snapshot
from pipelines.steps.search.queries.query_model import query_model
from schemas.config import Config
from schemas.errors import ConfigurationError
from schemas.modality import Modality
from transforms.encoders import text_inputs
from transforms.explore.live_rows import LiveRows
from transforms.support.vectors import matrix_of, unit_vectors
from transforms.train.hard_negatives import MinedTable, NegativeSource

Floats = NDArray[np.float32]


def mined_rows(config: Config, vector: str = "") -> NegativeSource:
    """The rows of the newest snapshot of a configuration, as texts that may be negatives.

    Args:
        vector: by which they are near to a query; the first dense one for "".

    Raises:
        ConfigurationError: if the rows have no text, or the vector is not dense or does not embed texts.
        CheckpointError, SpaceMismatchError: see `open_snapshot`.
    """
    prepare_filesystems(config)
    checkpoint, snapshot, _ = open_snapshot(config)
    rows = LiveRows(checkpoint, snapshot)
    rows.check_columns(["text"], "--hard-negatives")
    name = rows.vector_named(vector)
    model = query_model(config, name)
    if Modality.TEXT not in model.modalities:
        raise ConfigurationError(
            f"--hard-negatives: the encoder of {name} embeds no text", "name another vector with --vector"
        )
    encoder = model.load()

    def embed(texts: Sequence[str], *, query: bool) -> Floats:
        encoded = encoder.encode(text_inputs(texts), query=query)
        vectors = unit_vectors(encoded.matrix)
        vectors[list(encoded.refused)] = 0
        return vectors

    def tables() -> Iterator[MinedTable]:
        for table in rows.tables(["item_id", "text", name]):
            texts = table.filter(pc.and_(pc.is_valid(table.column("text")), pc.is_valid(table.column(name))))
            if texts.num_rows:
                vectors = unit_vectors(matrix_of(texts.column(name).combine_chunks()))
                yield MinedTable(texts.column("item_id").to_pylist(), texts.column("text").to_pylist(), vectors)

    return NegativeSource(
        f"{config.name}, snapshot {snapshot.id}",
        lambda texts: embed(texts, query=True),
        lambda texts: embed(texts, query=False),
        tables,
    )
