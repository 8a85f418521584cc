"""Chunks to rows, by the encoder of each vector; chunks that one of them fails on become rejects."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.config.encoder import VECTOR
from schemas.errors import EncoderError, VecbeamError
from schemas.item_inputs import Input
from schemas.layout import INPUTS, TOKEN_IDS, Layout, VectorField, VectorKind
from schemas.modality import Modality
from schemas.rejects import Reject, rejects_table
from transforms.checkpoint.embedded import EmbeddedBatch
from transforms.encoders import Encoded, Encoder
from transforms.support import memory, metrics, stop
from transforms.support.amounts import Amounts, amount_columns, dropped_of
from transforms.support.vectors import not_finite, without_length

log = logging.getLogger("vecbeam")


class Filler(NamedTuple):
    """The encoder of one vector column.

    Attributes:
        field: the column.
        encoder: loaded.
        probe: inputs that the encoder is known to embed.
        counts_tokens: whether chunks have the token ids of this encoder's model.
    """

    field: VectorField
    encoder: Encoder
    probe: pa.Table
    counts_tokens: bool = True


def nothing_embedded(chunks: pa.Table, layout: Layout) -> EmbeddedBatch:
    """The batch of a table whose rows already have all vectors."""
    empty = {one.name: pa.nulls(0, one.kind.arrow_type) for one in layout.encoded}
    return EmbeddedBatch(_rows(chunks.slice(0, 0), layout, empty, _no_amounts(0)), rejects_table([]), 0, {})


def embed_table(
    chunks: pa.Table, fillers: Sequence[Filler], layout: Layout, advance: Callable[[int], None] | None = None
) -> EmbeddedBatch:
    """Embeds a table; what an encoder fails on is retried in halves, down to single chunks.

    An item of which a chunk fails, or gets a vector that is not finite or of length 0, is rejected whole, so that no
    searcher sees a part of it.

    Args:
        chunks: table of `schemas.layout.chunk_schema`.
        fillers: of the layout's encoded vectors, in their order.
        advance: called with the amount that has gone through the first model, during the embedding.

    Raises:
        EncoderError: if an encoder fails on its probe, or returns vectors that are not of its kind:
            then it is the encoder.
    """
    failed: dict[int, tuple[str, str]] = {}
    made: dict[str, pa.Array] = {}
    amounts: dict[Input | None, Amounts] = {}
    runtime: dict[str, str] = {}
    padded = 0
    for filler in fillers:
        own = filler.field.input
        before = amounts.get(own)
        # Of records with texts and media, rows are counted: once.
        is_counted = not made if layout.modality is Modality.RECORD else before is None
        modality = layout.modality if own is None else own.modality
        found = _fill(chunks, filler, modality, _between(advance if is_counted else None))
        for row, (error, reason) in found.failed.items():
            failed.setdefault(row, (error, reason if own is None else f"{own}: {reason}"))
        made[filler.field.name] = found.vectors
        # What the first encoder of an input took, and the most that any of them dropped.
        amounts[own] = found.amounts
        if before is not None:
            amounts[own] = Amounts(before.taken, np.maximum(before.dropped, found.amounts.dropped))
        padded += found.padded
        prefix = "" if filler.field.name == VECTOR else f"{filler.field.name}."
        runtime |= {f"{prefix}{key}": value for key, value in filler.encoder.runtime().items()}
    rows = _rows(chunks, layout, made, _total(chunks, amounts))
    rejects = _rejects(chunks, failed)
    if failed:
        # The whole item goes: half a document in the collection would be a silent truncation.
        gone = pa.array(sorted(set(rejects.column("id").to_pylist())), pa.string())
        rows = rows.filter(pc.invert(pc.is_in(rows.column("item_id"), gone)))
    return EmbeddedBatch(rows, rejects, padded, runtime)


def _no_amounts(rows: int) -> Amounts:
    return Amounts(np.zeros(rows, np.int64), np.zeros(rows, np.int64))


def _total(chunks: pa.Table, amounts: Mapping[Input | None, Amounts]) -> Amounts:
    """What went through the encoders of each chunk, and what was over their limits: of several inputs, the tokens."""
    found = _no_amounts(chunks.num_rows)
    for own, one in amounts.items():
        if own is None or own.is_text:
            found = Amounts(found.taken + one.taken, found.dropped + one.dropped)
    # A chunker may have dropped what no encoder sees: a text is stored up to Milvus's limit.
    is_of_inputs = None not in amounts and "tokens_dropped" in chunks.column_names
    dropped = chunks.column("tokens_dropped").to_numpy() if is_of_inputs else dropped_of(chunks)
    return Amounts(found.taken, np.maximum(found.dropped, dropped))


class _Filled(NamedTuple):
    vectors: pa.Array  # of failed chunks an empty one
    amounts: Amounts
    failed: dict[int, tuple[str, str]]
    padded: int


def _fill(chunks: pa.Table, filler: Filler, modality: Modality, advance: Callable[[int], None]) -> _Filled:
    others = [TOKEN_IDS] if not filler.counts_tokens and TOKEN_IDS in chunks.column_names else []
    inputs = chunks.drop_columns(others)
    failed: dict[int, tuple[str, str]] = {}
    pieces: list[pa.Array] = []
    amounts = _no_amounts(chunks.num_rows)
    padded = 0
    for start, outcome in _attempts(inputs, 0, filler, advance):
        if isinstance(outcome, Exception):
            failed[start] = ("EncoderFailed", f"{type(outcome).__name__}: {outcome}")
            pieces.append(pa.array([_EMPTY[filler.field.kind]], filler.field.kind.arrow_type))
            continue
        _check_vectors(outcome, filler.field)
        checked = outcome.vectors if filler.field.in_parts else outcome.vectors[:0]
        bad = _bad_vectors(checked, filler.field.kind, modality) | dict(outcome.refused)
        failed |= {start + row: reason for row, reason in bad.items()}
        pieces.append(outcome.vectors)
        rows = slice(start, start + len(outcome.vectors))
        amounts.taken[rows], amounts.dropped[rows] = outcome.amount, outcome.dropped
        padded += outcome.work.padded
    vectors = pa.concat_arrays(pieces) if pieces else pa.nulls(0, filler.field.kind.arrow_type)
    return _Filled(vectors, amounts, failed, padded)


_EMPTY: Mapping[VectorKind, object] = {
    VectorKind.DENSE: [],
    VectorKind.SPARSE: {"indices": [], "values": []},
    VectorKind.MULTI: [],
}


def _between(advance: Callable[[int], None] | None) -> Callable[[int], None]:
    """The same, and what is done between the batches of a model: a table may take minutes."""

    def told(tokens: int) -> None:
        stop.check()
        memory.give_back_sometimes()
        if advance is not None:
            advance(tokens)

    return told


def _attempts(
    inputs: pa.Table, start: int, filler: Filler, advance: Callable[[int], None]
) -> Iterator[tuple[int, Encoded | Exception]]:
    """Yields (first row, vectors) for runs that succeed and (row, error) for single chunks that fail, in order."""
    if not inputs.num_rows:
        return
    try:
        encoded = filler.encoder.encode(inputs, advance=advance)
        metrics.count("encoder_busy_us", round(encoded.work.busy_seconds * 1e6))
        yield start, encoded
        return
    except VecbeamError:
        raise
    except Exception as error:
        failure = error
    if inputs.num_rows == 1:
        _check_alive(filler, failure)
        yield start, failure
        return
    metrics.count("embed_retries", 1)
    log.warning("a table of %d chunks failed (%s); trying it in halves", inputs.num_rows, failure)
    middle = inputs.num_rows // 2
    yield from _attempts(inputs.slice(0, middle), start, filler, advance)
    yield from _attempts(inputs.slice(middle), start + middle, filler, advance)


def _check_alive(filler: Filler, failure: Exception) -> None:
    try:
        filler.encoder.encode(filler.probe)
    except Exception as error:
        raise EncoderError(
            f"the encoder{_of(filler.field)} fails on every input: {type(failure).__name__}: {failure}",
            "check the model and the device, and run the same command again; no item was rejected for it",
        ) from error


def _of(field: VectorField) -> str:
    return "" if field.name == VECTOR else f" of {field.name}"


def _check_vectors(encoded: Encoded, field: VectorField) -> None:
    """Refuses vectors that do not fit the field: that is a fault of the encoder's code, not of a chunk."""
    wanted = field.kind.arrow_type
    if not encoded.vectors.type.equals(wanted):
        raise EncoderError(
            f"the encoder of {field.name} gives vectors of type {encoded.vectors.type}; "
            f"its model promises {field.kind} ones, {wanted}",
            "correct the encoder, or the kind that its model states",
        )
    if field.kind is not VectorKind.DENSE or not len(encoded.vectors):
        return
    lengths = encoded.vectors.value_lengths().to_numpy()
    if (lengths != field.dimensions).any():
        raise EncoderError(
            f"the encoder of {field.name} gives vectors of {lengths[lengths != field.dimensions][0]} dimensions; its "
            f"model promises {field.dimensions}",
            "correct the encoder, or the dimensions that its model states",
        )


def _bad_vectors(vectors: pa.Array, kind: VectorKind, modality: Modality) -> dict[int, tuple[str, str]]:
    infinite = not_finite(vectors)
    bad = {
        int(row): ("VectorNotFinite", f"the encoder made NaN or infinity of this {modality.noun}")
        for row in np.flatnonzero(infinite)
    }
    empty = np.flatnonzero(without_length(vectors) & ~infinite)
    reason = f"the encoder made a vector of length 0 of this {modality.noun}"
    if kind is VectorKind.SPARSE:
        reason = "the encoder gives no word a weight for this text, and Milvus refuses an empty sparse vector"
    return bad | {int(row): ("VectorZero", reason) for row in empty}


def _rejects(chunks: pa.Table, failed: Mapping[int, tuple[str, str]]) -> pa.Table:
    taken = chunks.take(pa.array(sorted(failed), pa.int64())).select(["item_id", "chunk", "@uri", "@place"]).to_pylist()
    first: dict[str, Reject] = {}
    for row, (error, reason) in zip(taken, (failed[index] for index in sorted(failed)), strict=True):
        if INPUTS not in chunks.column_names:  # else an item is one chunk, and the reason names the input
            reason = f"chunk {row['chunk']}: {reason}"
        first.setdefault(row["item_id"], Reject(row["item_id"], row["@uri"], row["@place"], "embed", error, reason))
    return rejects_table(first.values())


def _rows(chunks: pa.Table, layout: Layout, vectors: Mapping[str, pa.Array], amounts: Amounts) -> pa.Table:
    made = {**vectors, **amount_columns(chunks, layout, amounts)}
    schema = layout.rows
    return pa.table({name: made[name] if name in made else chunks.column(name) for name in schema.names}, schema=schema)
