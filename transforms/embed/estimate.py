"""How much must be embedded and how long it takes: from a sample, and from a few seconds of the encoder."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.config import Config
from schemas.layout import ITEM_MODALITY, LOCATOR, item_schema
from transforms.embed.lazy_encoders import load_fillers
from transforms.embed.rows import embed_table
from transforms.embed.work import with_facts
from transforms.encoders.models import Models
from transforms.support.amounts import amounts_of, weights_of
from transforms.support.storage.parquet_file import parquet

CONFIDENCE = 1.96
"""Standard errors of a 95 % confidence interval."""

WARM_UP_CHUNKS = (2, 8, 32)
MOST_CHARACTERS = 100_000
"""A sampled item."""


class Ratio(NamedTuple):
    """A number per byte of content, with half of its 95 % confidence interval as a share of the number."""

    value: float
    error: float


class ChunkSample(NamedTuple):
    """The chunks and rates of a sample of items.

    Attributes:
        items: how many.
        chunks: table of `schemas.layout.chunk_schema`.
        chunks_per_byte, tokens_per_byte: of content.
        dropped_per_byte: tokens over the limit.
        seconds_per_byte: of chunking.
    """

    items: int
    chunks: pa.Table
    chunks_per_byte: Ratio
    tokens_per_byte: Ratio
    dropped_per_byte: Ratio
    seconds_per_byte: float


def chunk_sample(sample: pa.Table, population: int, config: Config, models: Models) -> ChunkSample:
    """Chunks some items.

    Args:
        sample: table of `transforms.diff.findings.SAMPLE_SCHEMA`.
        population: how many items it was drawn from.
    """
    bare = config.model_copy(update={"corpus": config.corpus.model_copy(update={"metadata": {}})})
    rows = sample.num_rows
    # The beginning of a long text shows its tokens per byte as well.
    contents = sample.column("content")
    if not config.inputs:
        contents = pc.utf8_slice_codeunits(contents, 0, MOST_CHARACTERS)
    schema = item_schema({}, models.modality)
    columns = {
        "item_id": pa.array([str(number) for number in range(rows)], pa.string()),
        "@uri": sample.column("uri"),
        "@place": pa.array([""] * rows, pa.string()),
        LOCATOR: sample.column("locator"),
        ITEM_MODALITY: sample.column("modality"),
        "@content": contents,
    }
    items = pa.table([columns[name] for name in schema.names], schema=schema)
    sizes = pc.binary_length(contents).to_numpy().astype(np.float64)
    chunker = models.chunker(bare)
    start = time.perf_counter()
    chunks, _ = chunker.chunk(with_facts(items, b""))
    seconds = time.perf_counter() - start
    numbers = np.array(chunks.column("item_id").to_pylist(), dtype=np.int64)
    tokens, dropped = (np.bincount(numbers, weights=amount, minlength=rows) for amount in amounts_of(chunks))
    counts = np.bincount(numbers, minlength=rows).astype(np.float64)
    # The population is finite, and there is no error if all of it was drawn.
    unseen = math.sqrt(max(0.0, 1 - rows / max(1, population)))
    per_byte = [_ratio(values, sizes) for values in (counts, tokens, dropped)]
    of_chunks, of_tokens, of_dropped = (Ratio(ratio.value, ratio.error * unseen) for ratio in per_byte)
    return ChunkSample(rows, chunks, of_chunks, of_tokens, of_dropped, seconds / max(1.0, float(sizes.sum())))


def _ratio(values: np.ndarray[Any, Any], sizes: np.ndarray[Any, Any]) -> Ratio:
    """Ratio estimator and its standard error: Cochran, Sampling Techniques, 3rd edition, section 6.4."""
    count, total = len(values), float(sizes.sum())
    if count == 0 or total == 0:
        return Ratio(0.0, 0.0)
    ratio = float(values.sum()) / total
    if count == 1 or ratio == 0:
        return Ratio(ratio, 1.0)
    residuals = values - ratio * sizes
    error = math.sqrt(float((residuals**2).sum()) / (count - 1) / count) / (total / count)
    return Ratio(ratio, CONFIDENCE * error / ratio)


class Calibration(NamedTuple):
    """Measurements of some seconds of the encoder; `bytes_per_chunk` is of a part on disk.

    `per_second` is tokens of text, milliseconds of recordings, images, or rows of a mixed corpus.
    """

    per_second: float
    load_seconds: float
    bytes_per_chunk: float


def calibrate(chunks: pa.Table, models: Models, seconds: float, sample: Sequence[str] = ()) -> Calibration:
    """Embeds for about the given seconds, as a run would.

    Args:
        chunks: of a sample; table of `schemas.layout.chunk_schema`.
        sample: texts from which int8 determines its ranges.
    """
    start = time.perf_counter()
    layout = replace(models.layout, metadata={})
    fillers = load_fillers(dict(models.by_name), layout, models.cutting, sample)
    loaded = time.perf_counter() - start
    embed_table(chunks.slice(0, 1), fillers, layout)  # includes the set-up of memory and caches
    # Growing passes: one of a slow encoder may take all the time.
    for size in WARM_UP_CHUNKS:
        start = time.perf_counter()
        batch = embed_table(chunks.slice(0, size), fillers, layout)
        spent = time.perf_counter() - start
        if spent > seconds / 3:
            break
    else:
        rate = min(size, chunks.num_rows) / spent
        start = time.perf_counter()
        batch = embed_table(chunks.slice(0, int(min(chunks.num_rows, max(size, rate * seconds)))), fillers, layout)
        spent = time.perf_counter() - start
    amount = int(weights_of(batch.rows).sum())
    size_on_disk = len(parquet(batch.rows, {"schema_version": 1}))
    return Calibration(amount / spent, loaded, size_on_disk / max(1, batch.rows.num_rows))
