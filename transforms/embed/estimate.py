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
from schemas.run_plan import Estimate
from transforms.embed.lazy_encoders import load_fillers
from transforms.embed.rows import embed_table
from transforms.embed.sampled_items import bare, sampled_items
from transforms.encoders.models import Models
from transforms.support.amounts import amounts_of, weights_of
from transforms.support.storage.parquet_file import parquet

CONFIDENCE = 1.96
"""Standard errors of a 95 % confidence interval."""

WARM_UP_CHUNKS = (2, 8, 32)


class ItemRate(NamedTuple):
    """How many of something items have: `each` for an item, and `per_byte` for each byte of its content.

    Attributes:
        deviation: standard deviation of an item's number from that.
        mean_bytes: of the content of an item of the sample.
        sampled, population: how many items the sample has, and how many it was drawn from.
    """

    each: int
    per_byte: float
    deviation: float
    mean_bytes: float
    sampled: int
    population: int

    def total(self, items: int, size: int) -> Estimate:
        """Returns the number of some items of the population, with a content of `size` bytes.

        The error has two sources: items that are not in the sample, and how the given items differ from the others.
        Each is of a finite population (Cochran, Sampling Techniques, 3rd edition, sections 2.6 and 6.4), so there is no
        error if the sample and the given items are all of it.
        """
        value = max(0.0, self.each * items + self.per_byte * size)
        if not value:
            return Estimate()
        unseen = max(0.0, 1 - self.sampled / max(1, self.population))
        others = max(0.0, 1 - items / max(1, self.population))
        of_rate = math.sqrt(unseen / max(1, self.sampled)) * size / self.mean_bytes
        error = CONFIDENCE * self.deviation * math.hypot(of_rate, math.sqrt(others * items)) / value
        return Estimate(value=round(value), error=round(error, 4))


class ChunkSample(NamedTuple):
    """The chunks and rates of a sample of items.

    Attributes:
        items: how many.
        table: of `schemas.layout.chunk_schema`.
        chunks: an item has one, and more by the bytes of its content.
        tokens: by the bytes of content.
        dropped: tokens over the limit.
        seconds_per_byte: of chunking.
    """

    items: int
    table: pa.Table
    chunks: ItemRate
    tokens: ItemRate
    dropped: ItemRate
    seconds_per_byte: float


def chunk_sample(sample: pa.Table, population: int, config: Config, models: Models) -> ChunkSample:
    """Chunks some items.

    Args:
        sample: table of `transforms.diff.findings.SAMPLE_SCHEMA`.
        population: how many items it was drawn from.
    """
    chunker = models.chunker(bare(config))
    start = time.perf_counter()
    items = sampled_items(sample, config)
    chunks, _ = chunker.chunk(items)
    seconds = time.perf_counter() - start
    rows = items.num_rows
    sizes = pc.binary_length(items.column("@content")).to_numpy().astype(np.float64)
    numbers = np.array(chunks.column("item_id").to_pylist(), dtype=np.int64)
    tokens, dropped = (np.bincount(numbers, weights=amount, minlength=rows) for amount in amounts_of(chunks))
    counts = np.bincount(numbers, minlength=rows).astype(np.float64)
    of_chunks, of_tokens, of_dropped = (
        _rate(each, values, sizes, population) for each, values in ((1, counts), (0, tokens), (0, dropped))
    )
    return ChunkSample(rows, chunks, of_chunks, of_tokens, of_dropped, seconds / max(1.0, float(sizes.sum())))


def _rate(each: int, values: np.ndarray[Any, Any], sizes: np.ndarray[Any, Any], population: int) -> ItemRate:
    """Ratio estimator of what is more than `each`."""
    count, total = len(values), float(sizes.sum())
    if count == 0 or total == 0:
        return ItemRate(each, 0.0, 0.0, 1.0, count, population)
    over = values - each
    ratio = float(over.sum()) / total
    if count == 1:  # it does not tell how others differ
        deviation = float(values.sum()) / CONFIDENCE
    else:
        residuals = over - ratio * sizes
        deviation = math.sqrt(float((residuals**2).sum()) / (count - 1))
    return ItemRate(each, ratio, deviation, total / count, count, population)


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
