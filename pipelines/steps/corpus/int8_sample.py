"""The texts that int8 takes its ranges from, as a run has them, and what int8 costs on them."""

from __future__ import annotations

import json

from pipelines.run.session import Session
from pipelines.steps.corpus.changes import Changes
from schemas.records import SCHEMA_VERSION
from schemas.run_report import Loss
from transforms.checkpoint import read_table
from transforms.embed.int8_texts import chosen_texts, is_int8, needs_texts, write_texts
from transforms.embed.sampled_items import bare
from transforms.encoders import resolve, text_inputs
from transforms.support.storage import filesystem


def sample_texts(session: Session, changes: Changes) -> list[str]:
    """The texts for int8: those that are kept, or else chunks of items that digests choose; [] for other precisions."""
    config = session.config
    if not needs_texts(config):
        return []
    uri = changes.source.checkpoint.sample_uri
    if filesystem.exists(uri):
        kept: list[str] = read_table(uri).column("text").to_pylist()
        return kept
    return chosen_texts(changes.findings.sample, config, changes.source.models.chunker(bare(config)))


def prepare_sample(session: Session, changes: Changes) -> str:
    """Keeps the texts for int8 in the folder of the space and puts into the report what int8 costs on them.

    Returns:
        Uri of a table with the column `text`; "" where the precision is another one.
    """
    texts = sample_texts(session, changes)
    if not texts:
        return ""
    uri = changes.source.checkpoint.sample_uri
    beside = uri.removesuffix(".parquet") + ".json"
    if not filesystem.exists(uri):
        write_texts(uri, texts)
    if not filesystem.exists(beside):
        session.progress.step("quantize")
        measured = {"schema_version": SCHEMA_VERSION, **_measure(session, texts).model_dump()}
        filesystem.write_atomic(beside, json.dumps(measured, indent=2).encode())
    session.report.loss = Loss.model_validate_json(filesystem.read_bytes(beside))
    return uri


def _measure(session: Session, texts: list[str]) -> Loss:
    from transforms.encoders.engines.openvino.int8 import loss

    config = next(encoder for encoder in session.config.vectors.values() if is_int8(encoder))
    inputs = text_inputs(texts)
    reference = resolve(config.model_copy(update={"precision": "float32"})).load().encode(inputs).matrix
    found = resolve(config).load(texts).encode(inputs).matrix
    return Loss(texts=len(texts), **loss(reference, found))
