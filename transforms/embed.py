"""Chunks to rows: texts through the encoder, and what it fails on apart."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import EncoderError, VecbeamError
from schemas.records import ON_THE_WAY, TOKEN_IDS, row_schema
from transforms import metrics, stopping
from transforms.embedded import EmbeddedBatch
from transforms.encoders import Encoded, Encoder, TokenIds
from transforms.rejects import Reject, rejects_table

log = logging.getLogger("vecbeam")
_KNOWN_GOOD = "a short sentence that every encoder can embed"


def nothing_embedded(chunks: pa.Table) -> EmbeddedBatch:
    """The batch of a table whose rows have all their vectors already."""
    return EmbeddedBatch(_rows(chunks.slice(0, 0), [], [], []), rejects_table([]), 0, {})


def embed_table(chunks: pa.Table, encoder: Encoder, advance: Callable[[int], None] | None = None) -> EmbeddedBatch:
    """Embeds a table; what the encoder fails on is tried again in halves, down to single chunks.

    An item of which a chunk fails, or gets a vector that is not finite or of length 0, is rejected whole, so that no
    searcher sees a part of it.

    Args:
        chunks: table of `schemas.records.chunk_schema`.
        advance: is told how many tokens have gone through the model, on the way.

    Raises:
        EncoderError: where the encoder fails on a text that is known to be fine: then it is the encoder.
    """
    texts = chunks.column("text").to_pylist()
    ids = _token_ids(chunks.column(TOKEN_IDS))
    vectors: list[np.ndarray[Any, Any]] = []
    kept: list[int] = []
    tokens: list[np.ndarray[Any, Any]] = []
    dropped: list[np.ndarray[Any, Any]] = []
    padded = 0
    failed: dict[int, tuple[str, str]] = {}
    for start, outcome in _attempts(texts, ids, 0, encoder, _stopping(advance)):
        if isinstance(outcome, Exception):
            failed[start] = ("EncoderFailed", f"{type(outcome).__name__}: {outcome}")
            continue
        bad = _bad_vectors(outcome)
        failed.update({start + row: reason for row, reason in bad.items()})
        good = np.array([row for row in range(len(outcome.vectors)) if row not in bad], np.int64)
        kept.extend((good + start).tolist())
        vectors.append(outcome.vectors[good])
        tokens.append(outcome.tokens[good])
        dropped.append(outcome.tokens_dropped[good])
        padded += outcome.tokens_padded
    rows = _rows(chunks.take(pa.array(kept, pa.int64())), vectors, tokens, dropped)
    rejects = _rejects(chunks, failed)
    if failed:
        # The whole item goes: half a document in the collection would be a silent truncation.
        gone = pa.array(sorted(set(rejects.column("id").to_pylist())), pa.string())
        rows = rows.filter(pc.invert(pc.is_in(rows.column("item_id"), gone)))
    return EmbeddedBatch(rows, rejects, padded, encoder.runtime())


def _stopping(advance: Callable[[int], None] | None) -> Callable[[int], None]:
    """The same, and a safe point between groups of tokens: a table of long texts takes minutes."""

    def told(tokens: int) -> None:
        stopping.check()
        if advance is not None:
            advance(tokens)

    return told


def _token_ids(column: pa.ChunkedArray) -> list[TokenIds | None]:
    lists = column.combine_chunks()
    values, offsets = lists.values.to_numpy(), lists.offsets.to_numpy()
    pairs = zip(offsets[:-1], offsets[1:], lists.is_valid().to_pylist(), strict=True)
    return [values[start:end] if known else None for start, end, known in pairs]


def _attempts(
    texts: Sequence[str],
    ids: Sequence[TokenIds | None],
    start: int,
    encoder: Encoder,
    advance: Callable[[int], None] | None,
) -> Iterator[tuple[int, Encoded | Exception]]:
    """Yields (first row, vectors) for runs that succeed and (row, error) for single texts that fail, in order."""
    if not texts:
        return
    try:
        encoded = encoder.encode(texts, token_ids=ids, advance=advance)
        metrics.count("encoder_busy_us", round(encoded.busy_seconds * 1e6))
        metrics.count("encoder_megaflops", round(encoded.operations / 1e6))
        metrics.count("encoder_megaflops_possible", round(encoded.possible_operations / 1e6))
        yield start, encoded
        return
    except VecbeamError:
        raise
    except Exception as error:
        failure = error
    if len(texts) == 1:
        _check_alive(encoder, failure)
        yield start, failure
        return
    metrics.count("embed_retries", 1)
    log.warning("a table of %d texts failed (%s); trying it in halves", len(texts), failure)
    middle = len(texts) // 2
    yield from _attempts(texts[:middle], ids[:middle], start, encoder, advance)
    yield from _attempts(texts[middle:], ids[middle:], start + middle, encoder, advance)


def _check_alive(encoder: Encoder, failure: Exception) -> None:
    try:
        encoder.encode([_KNOWN_GOOD])
    except Exception as error:
        raise EncoderError(
            f"the encoder fails on every text: {type(failure).__name__}: {failure}",
            "check the model and the device, and run the same command again; no item was rejected for it",
        ) from error


def _bad_vectors(encoded: Encoded) -> dict[int, tuple[str, str]]:
    finite = np.isfinite(encoded.vectors).all(axis=1)
    empty = finite & ~encoded.vectors.any(axis=1)
    bad = {
        int(row): ("VectorNotFinite", "the encoder made NaN or infinity of this text")
        for row in np.flatnonzero(~finite)
    }
    bad.update(
        {
            int(row): ("VectorZero", "the encoder made a vector of length 0 of this text")
            for row in np.flatnonzero(empty)
        }
    )
    return bad


def _rejects(chunks: pa.Table, failed: Mapping[int, tuple[str, str]]) -> pa.Table:
    taken = chunks.take(pa.array(sorted(failed), pa.int64())).select(["item_id", "chunk", "@uri", "@place"]).to_pylist()
    first: dict[str, Reject] = {}
    for row, (error, reason) in zip(taken, (failed[index] for index in sorted(failed)), strict=True):
        reason = f"chunk {row['chunk']}: {reason}"
        first.setdefault(row["item_id"], Reject(row["item_id"], row["@uri"], row["@place"], "embed", error, reason))
    return rejects_table(first.values())


def _rows(
    chunks: pa.Table,
    vectors: Sequence[np.ndarray[Any, Any]],
    tokens: Sequence[np.ndarray[Any, Any]],
    dropped: Sequence[np.ndarray[Any, Any]],
) -> pa.Table:
    rows = chunks.drop_columns([name for name in chunks.column_names if name in ON_THE_WAY])
    matrix = np.concatenate(vectors) if vectors else np.zeros((0, 1), np.float32)
    offsets = pa.array(np.arange(len(matrix) + 1, dtype=np.int32) * matrix.shape[1])
    schema = row_schema({})
    lists = pa.ListArray.from_arrays(offsets, pa.array(matrix.reshape(-1)), type=schema.field("vector").type)
    rows = rows.add_column(rows.column_names.index("tokens"), schema.field("vector"), lists)
    for name, values in (("tokens", tokens), ("tokens_dropped", dropped)):
        column = np.concatenate(values) if values else np.zeros(0, np.int64)
        rows = rows.set_column(rows.column_names.index(name), schema.field(name), pa.array(column))
    return rows
