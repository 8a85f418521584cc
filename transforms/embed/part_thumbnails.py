"""The small pictures of a part's rows: made of their media, or those of the rows that they keep the vectors of."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pyarrow as pa

from schemas import locator
from schemas.config import Config
from schemas.errors import CheckpointError
from schemas.item_inputs import ChunkInputs
from schemas.layout import INPUTS, LOCATOR, SOURCE_ROW
from schemas.modality import ROW_MODALITY, Modality
from transforms.checkpoint import Checkpoint
from transforms.checkpoint.snapshot import LivePart
from transforms.checkpoint.thumbnails import COLUMN, SCHEMA, has_thumbnails, read_thumbnails
from transforms.encoders.media.ahead import cores, mapped
from transforms.encoders.media.thumbnail import thumbnail

log = logging.getLogger("vecbeam")


def part_thumbnails(
    rows: pa.Table, chunks: pa.Table, checkpoint: Checkpoint, part_names: list[str], config: Config
) -> pa.Table:
    """The pictures of rows, a table of `transforms.checkpoint.thumbnails.SCHEMA` in their order.

    Args:
        rows: of the part.
        chunks: what they were made from, with `@source_row`.
        part_names: of the snapshot that the column `@source` points into.
    """
    known = _known(chunks, checkpoint, part_names)
    places = {row_id: at for at, row_id in enumerate(chunks.column("id").to_pylist())}
    wanted = [places[row_id] for row_id in rows.column("id").to_pylist()]
    addresses = locator.addresses(chunks.column("@uri"), chunks.column(LOCATOR))
    modalities = _modalities(chunks, config)
    spans = _spans(chunks)

    def picture(at: int) -> bytes | None:
        if at in known:
            return known[at]
        if modalities[at] is Modality.TEXT:
            return None
        return thumbnail(modalities[at], addresses[at], *spans[at])

    pictures = list(mapped(picture, wanted, 4 * cores()))
    return pa.table({"id": rows.column("id"), COLUMN: pa.array(pictures, pa.binary())}, schema=SCHEMA)


def _known(chunks: pa.Table, checkpoint: Checkpoint, part_names: list[str]) -> dict[int, bytes | None]:
    """The pictures of chunks whose content a row of an earlier part has."""
    sources, source_rows = chunks.column("@source").to_numpy(), chunks.column(SOURCE_ROW).to_numpy()
    known: dict[int, bytes | None] = {}
    for source in np.unique(sources[source_rows >= 0]):
        name = part_names[int(source)]
        if not has_thumbnails(checkpoint, name):
            continue
        try:
            kept = read_thumbnails(checkpoint, LivePart(name, np.zeros(0, np.int32))).column(COLUMN)
        except CheckpointError as error:
            log.warning("%s; its pictures are made again", error.message)
            continue
        for at in np.flatnonzero((sources == source) & (source_rows >= 0)).tolist():
            known[at] = kept[int(source_rows[at])].as_py()
    return known


def _modalities(chunks: pa.Table, config: Config) -> list[Modality]:
    if ROW_MODALITY in chunks.column_names:
        return list(map(Modality, chunks.column(ROW_MODALITY).to_pylist()))
    if config.inputs:
        media = next((one.modality for one in config.inputs.values() if not one.is_text), Modality.TEXT)
        return [media] * chunks.num_rows
    return [config.corpus.modality] * chunks.num_rows


def _spans(chunks: pa.Table) -> list[tuple[Any, Any]]:
    if INPUTS in chunks.column_names:
        read = map(ChunkInputs.from_text, chunks.column(INPUTS).to_pylist())
        return [(one.start, one.end) for one in read]
    return list(zip(chunks.column("start").to_pylist(), chunks.column("end").to_pylist(), strict=True))
