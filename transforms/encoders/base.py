"""Protocols of an encoder, and of a model before its weights are loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.config import Config, EncoderConfig
from schemas.item_inputs import Input
from schemas.layout import LOCATOR, TOKEN_IDS, Space, VectorField, VectorKind
from schemas.modality import Modality
from transforms.chunk.base import Chunker
from transforms.support.vectors import matrix_of

TokenIds = NDArray[np.int32]
"""Ids of a text's tokens, special tokens included."""
_INPUTS = pa.schema([("text", pa.string()), (TOKEN_IDS, pa.list_(pa.field("element", pa.int32(), nullable=False)))])


class Work(NamedTuple):
    """The work of embedding a table.

    Attributes:
        padded: padding that went through the model, in the unit of `Encoded.amount`.
        busy_seconds: in which the device computed.
    """

    padded: int = 0
    busy_seconds: float = 0.0


class Encoded(NamedTuple):
    """Inputs as vectors, in the order of the inputs.

    Attributes:
        vectors: n of them, of the Arrow type of the model's `VectorKind`.
        amount: int64[n], what went through the model for each input: of a text its tokens, special tokens and prompt
            included.
        dropped: int64[n], what was over the model's limit, in the same unit.
        work: of all inputs together.
        refused: inputs that can't be embedded, such as a text without a known word or a damaged image: for the row of
            each an error (CamelCase and countable) and a reason. Their vectors don't count.
    """

    vectors: pa.Array
    amount: NDArray[np.int64]
    dropped: NDArray[np.int64]
    work: Work = Work()
    refused: Mapping[int, tuple[str, str]] = MappingProxyType({})

    @property
    def matrix(self) -> NDArray[np.float32]:
        """Dense vectors as float32[n, dimensions]."""
        return matrix_of(self.vectors)


class Encoder(Protocol):
    """A model, loaded and ready. One lives in each worker process; several threads may use it at once."""

    def encode(self, inputs: pa.Table, *, query: bool = False, advance: Callable[[int], None] | None = None) -> Encoded:
        """Embeds the rows of a table.

        Args:
            inputs: chunks, with the columns of `schemas.layout.chunk_schema` that the modality has, or `text_inputs`,
                or `media_inputs`.
            query: uses the prompt for queries instead of the one for items.
            advance: called with the amount that has gone through the model, after each batch.

        Raises:
            Exception: whatever the model raises; the caller tries smaller tables, then row by row.
        """
        ...

    def runtime(self) -> dict[str, str]:
        """Engine, device, precision and library versions, recorded in addition to the space."""
        ...


class Model(Protocol):
    """A model before it is loaded: cheap to make.

    It may hold paths of the machine that made it, so it does not travel: each worker finds its own from the
    configuration and checks the space id. A model whose vectors Milvus computes has `computed_by_milvus = True`.
    """

    @property
    def config(self) -> EncoderConfig: ...

    @property
    def space(self) -> Space:
        """The space of its vectors."""
        ...

    @property
    def kind(self) -> VectorKind:
        """The kind of its vectors."""
        ...

    @property
    def dimensions(self) -> int:
        """Dimensions of its vectors; see `schemas.layout.VectorField`."""
        ...

    @property
    def modalities(self) -> frozenset[Modality]:
        """The modalities that it embeds, all into one space."""
        ...

    @property
    def probe(self) -> pa.Table:
        """Inputs that it is known to embed: if it fails on these too, the encoder is at fault."""
        ...

    def chunker(self, config: Config, modality: Modality) -> Chunker:
        """Returns the chunker for items of a modality, one of `modalities`.

        Raises:
            ConfigurationError: if the model does not support the configured chunks.
        """
        ...

    def load(self, sample: Sequence[str] = ()) -> Encoder:
        """Loads the weights.

        Args:
            sample: texts from which int8 determines its ranges.

        Raises:
            EncoderError: if they can't be loaded.
        """
        ...


def corpus_modalities(model: Model) -> frozenset[Modality]:
    """The modalities that a corpus may have for a model: all but its attribute `queries_alone`, if it has one."""
    alone: frozenset[Modality] = getattr(model, "queries_alone", frozenset())
    return model.modalities - alone


def vector_field(name: str, model: Model, own: Input | None = None) -> VectorField:
    """The vector column that a model fills.

    Args:
        own: what it embeds of an item; None where all models embed the same.
    """
    computed = bool(getattr(model, "computed_by_milvus", False))
    return VectorField(name, model.space, model.dimensions, model.kind, computed, own)


def text_inputs(texts: Iterable[str], token_ids: Sequence[TokenIds | None] | None = None) -> pa.Table:
    """Texts as the input of `Encoder.encode`.

    Args:
        token_ids: of each text as the model sees it, none over its limit; None if they are not known.
    """
    column = pa.array(list(texts), pa.string())
    ids = pa.nulls(len(column), _INPUTS.field(TOKEN_IDS).type) if token_ids is None else pa.array(token_ids)
    return pa.table([column, ids.cast(_INPUTS.field(TOKEN_IDS).type)], schema=_INPUTS)


MEDIA_BYTES = "@bytes"
"""Column of the inputs of an encoder: the bytes of a media file, where they are in memory already; else null."""


def media_inputs(media: Iterable[str | bytes]) -> pa.Table:
    """Media files as the input of `Encoder.encode`.

    Args:
        media: for each its URI or path, or its bytes.
    """
    rows = [(one, None) if isinstance(one, str) else ("", one) for one in media]
    uris, contents = zip(*rows, strict=True) if rows else ((), ())
    columns = {"@uri": pa.array(uris, pa.string()), LOCATOR: pa.array([""] * len(rows), pa.string())}
    return pa.table({**columns, MEDIA_BYTES: pa.array(contents, pa.binary())})


def token_ids_of(inputs: pa.Table) -> list[TokenIds | None]:
    """The known token ids of each row."""
    if TOKEN_IDS not in inputs.column_names:
        return [None] * inputs.num_rows
    lists = inputs.column(TOKEN_IDS).combine_chunks()
    values, offsets = lists.values.to_numpy(), lists.offsets.to_numpy()
    pairs = zip(offsets[:-1], offsets[1:], lists.is_valid().to_pylist(), strict=True)
    return [values[start:end] if known else None for start, end, known in pairs]
