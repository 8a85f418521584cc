"""The sample of a comparison as items, which a chunker can cut."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from schemas.config import Config
from schemas.layout import ITEM_MODALITY, LOCATOR, item_schema
from transforms.embed.work import with_facts

MOST_CHARACTERS = 100_000
"""A sampled item."""


def bare(config: Config) -> Config:
    """A configuration without metadata, which a sample does not have."""
    return config.model_copy(update={"corpus": config.corpus.model_copy(update={"metadata": {}})})


def sampled_items(sample: pa.Table, config: Config) -> pa.Table:
    """Items whose ids are their numbers in the sample, for a chunker of `bare(config)`.

    Args:
        sample: table of `transforms.diff.findings.SAMPLE_SCHEMA`.
    """
    rows = sample.num_rows
    # The beginning of a long text shows its tokens per byte as well.
    contents = sample.column("content")
    if not config.inputs:
        contents = pc.utf8_slice_codeunits(contents, 0, MOST_CHARACTERS)
    schema = item_schema({}, config.corpus.modality)
    columns = {
        "item_id": pa.array([str(number) for number in range(rows)], pa.string()),
        "@uri": sample.column("uri"),
        "@place": pa.array([""] * rows, pa.string()),
        LOCATOR: sample.column("locator"),
        ITEM_MODALITY: sample.column("modality"),
        "@content": contents,
    }
    return with_facts(pa.table([columns[name] for name in schema.names], schema=schema), b"")
