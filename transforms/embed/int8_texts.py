"""The texts that int8 takes its ranges from: chunks of items that digests choose, kept with the space.

Every run of a corpus chooses the same ones, on one machine or on many.
"""

from __future__ import annotations

import pyarrow as pa

from schemas.config import Config, EncoderConfig
from transforms.checkpoint import write_table
from transforms.chunk.base import Chunker
from transforms.embed.sampled_items import bare, sampled_items
from transforms.encoders.models import Described, chunker_on_worker
from transforms.support.storage import filesystem

TEXTS = 256


def needs_texts(config: Config) -> bool:
    """Whether an encoder takes the ranges of its numbers from texts of the corpus."""
    return any(is_int8(encoder) for encoder in config.vectors.values())


def is_int8(encoder: EncoderConfig) -> bool:
    """Whether an encoder computes with quantized numbers."""
    return encoder.precision == "int8" and encoder.model != "fake"


def chosen_texts(sample: pa.Table, config: Config, chunker: Chunker) -> list[str]:
    """The texts for int8.

    Args:
        sample: table of `transforms.diff.findings.SAMPLE_SCHEMA`, by digest.
        chunker: of `bare(config)`.
    """
    chunks, _ = chunker.chunk(sampled_items(sample.slice(0, TEXTS), config))
    texts: list[str] = chunks.column("text").slice(0, TEXTS).to_pylist()
    return texts


def keep_texts(uri: str, sample: pa.Table, config: Config, models: Described) -> None:
    """Writes the texts for int8 on a worker, unless they are kept: a table with the column `text`.

    Args:
        uri: of the table.
        sample: table of `transforms.diff.findings.SAMPLE_SCHEMA`, by digest.

    Raises:
        SpaceMismatchError: if this worker's model is of another space than the run's.
    """
    if not filesystem.exists(uri):
        write_texts(uri, chosen_texts(sample, config, chunker_on_worker(bare(config), models.layout, models.cutting)))


def write_texts(uri: str, texts: list[str]) -> None:
    """Writes texts as a table with the column `text`; none where there are none."""
    if texts:
        write_table(uri, pa.table({"text": pa.array(texts, pa.string())}))
