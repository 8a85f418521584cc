"""The map: rows as points on a plane, near ones near each other as far as a plane can show it."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.web.site import Site
from schemas.errors import ConfigurationError
from transforms.explore.live_rows import Sample
from transforms.explore.plane import by_pca

POINTS = 100_000
"""Most rows that a map shows: of more, a sample."""
COLOURS = 9
"""Values of a column that have a colour of their own; all others share one."""
SHOWN_CHARACTERS = 300
_STEPS = 65_535


def page(site: Site, colour: str) -> dict[str, Any]:
    """What the template needs: the columns that points can be coloured by.

    Raises:
        ConfigurationError: if there is no such column.
        CheckpointError, CollectionError: see `Site.rows`.
    """
    return {"columns": _columns(site, colour), "colour": colour, "has_dense": site.rows().has_dense}


def points(site: Site, colour: str) -> dict[str, Any]:
    """All points: places as uint16[n, 2] in base64, little-endian, of which 0 and 65,535 are the borders; their ids;
    and the colour of each as uint8[n] in base64, with what the colours mean.

    Raises:
        ConfigurationError: if there is no such column, or the rows have no dense vector.
        CheckpointError, CollectionError: see `Site.rows`.
    """
    _columns(site, colour)
    sample, places = site.once("map", lambda: _projected(site), seconds=600)
    codes, names = _colours(sample.rows.column(colour)) if colour else (np.zeros(len(sample), np.uint8), ["rows"])
    return {
        "places": base64.b64encode(places.astype("<u2").tobytes()).decode(),
        "colours": base64.b64encode(codes.tobytes()).decode(),
        "names": names,
        "ids": sample.rows.column("id").to_pylist(),
        "total": sample.total,
    }


def rows(site: Site, ids: list[str]) -> list[dict[str, Any]]:
    """What some points are, by their ids."""
    wanted = pa.array(ids[:50], pa.string())
    sample, _ = site.once("map", lambda: _projected(site), seconds=600)
    found = sample.rows.filter(pc.is_in(sample.rows.column("id"), value_set=wanted)).to_pylist()
    return [
        {"id": row["id"], "item_id": row["item_id"], "text": str(row.get("text") or row.get("uri"))[:SHOWN_CHARACTERS]}
        for row in found
    ]


def _projected(site: Site) -> tuple[Sample, NDArray[np.uint16]]:
    live = site.rows()
    columns = [name for name in site.config.corpus.metadata if name in live.schema.names]
    sample = live.sample(live.vector_named(), columns, most=POINTS)
    plane = by_pca(sample.normalised).points
    least, most = plane.min(axis=0), plane.max(axis=0)
    spread = np.where(most > least, most - least, 1)
    return sample, np.asarray(np.rint((plane - least) / spread * _STEPS), np.uint16)


def _columns(site: Site, colour: str) -> list[str]:
    """The columns that points can be coloured by, of which `colour` is one."""
    columns = [name for name, field in site.config.corpus.metadata.items() if field.type in ("string", "bool", "int")]
    if colour and colour not in columns:
        raise ConfigurationError(f"color: there is no column {colour!r}", f"there are {', '.join(columns) or 'none'}")
    return columns


def _colours(column: pa.ChunkedArray) -> tuple[NDArray[np.uint8], list[str]]:
    """The colour of each row, and what they mean; the last one is for all other values."""
    texts = pc.fill_null(column.cast(pa.string()), "(none)").combine_chunks()
    counts = pc.value_counts(texts)
    order = pc.sort_indices(counts.field("counts"), [("", "descending")])[:COLOURS]
    names: list[str] = counts.field("values").take(order).to_pylist()
    codes = pc.fill_null(pc.index_in(texts, value_set=pa.array(names, pa.string())), len(names))
    found = codes.to_numpy(zero_copy_only=False).astype(np.uint8)
    return found, [*names, "others"] if len(counts) > len(names) else names
