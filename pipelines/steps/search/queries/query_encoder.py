"""Queries as vectors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipelines.steps.search.queries.query import MediaQuery, Query, RowsQuery, shown
from pipelines.steps.search.queries.word_arithmetic import SMALLEST, Arithmetic
from schemas.config import Config
from schemas.errors import ConfigurationError
from schemas.layout import Layout, VectorField, VectorKind
from schemas.modality import Modality
from transforms.encoders import Encoder, Model, text_inputs
from transforms.encoders.base import media_inputs
from transforms.encoders.fitted.fitted_model import FittedModel
from transforms.encoders.models import Models
from transforms.support.vectors import dense_array, matrix_of

log = logging.getLogger("vecbeam")
Stored = Callable[[Sequence[str]], pa.Array]
"""Takes ids of rows; returns their vectors, as Arrow."""


class QueryEncoder(NamedTuple):
    """The encoder of queries.

    Attributes:
        layout: of the rows that are searched.
        field: the vector that is searched.
        modalities: what the model embeds.
        is_fitted: whether a model is fitted on the corpus: the model that is served may become another one.
    """

    layout: Layout
    field: VectorField
    encoder: Encoder
    modalities: frozenset[Modality]
    is_fitted: bool = False

    @classmethod
    def of(cls, config: Config, models: dict[str, Model], vector: str) -> QueryEncoder:
        """Loads the model of a vector.

        Args:
            models: for queries, of all vectors: their spaces are part of what the collection is made of.
        """
        found = Models(models, config.corpus.column_types, config.corpus.modality)
        found.check_searchable()
        layout = found.layout
        is_fitted = any(isinstance(model, FittedModel) for model in models.values())
        modalities = frozenset(models[vector].modalities)
        return cls(layout, layout.vector(vector), models[vector].load(), modalities, is_fitted)

    def embed(self, queries: Sequence[Query], arithmetic: Arithmetic, stored: Stored) -> Any:
        """The vectors of some queries: float32[n, dimensions], or an Arrow array of sparse ones.

        Where Milvus computes them, their texts.

        Args:
            stored: gives the vectors, or the texts, of rows of the collection.

        Raises:
            ConfigurationError: if the model can't embed a query, or vectors are added that are not dense.
        """
        is_dense = self.field.kind is VectorKind.DENSE
        if arithmetic.texts and not is_dense:
            raise ConfigurationError(
                f"the vector {self.field.name} is {self.field.kind}: only dense vectors are added and subtracted",
                "name a dense vector with --vector, or leave --plus and --minus out",
            )
        wanted: list[Query] = [*queries, *arithmetic.texts]
        pieces: list[pa.Array] = []
        places: list[int] = []
        of_rows = partial(self._rows, stored)
        for kind, made in ((str, self._texts), (MediaQuery, self._media), (RowsQuery, of_rows)):
            here = [at for at, query in enumerate(wanted) if isinstance(query, kind)]
            if here:
                given: list[Any] = [wanted[at] for at in here]
                pieces.append(made(given))
                places += here
        vectors = pa.concat_arrays(pieces) if pieces else pa.nulls(0, self.field.kind.arrow_type)
        vectors = vectors.take(pa.array(np.argsort(places, kind="stable")))
        if self.field.computed:
            return vectors.to_pylist()
        if not is_dense:
            return vectors
        return arithmetic.sums(matrix_of(vectors)) if arithmetic.texts else matrix_of(vectors)

    def _texts(self, texts: Sequence[str]) -> pa.Array:
        self._check(Modality.TEXT, "a text")
        encoded = self._encoded(text_inputs(texts), texts)
        return pa.array(texts, pa.string()) if self.field.computed else encoded

    def _media(self, queries: Sequence[MediaQuery]) -> pa.Array:
        for query in queries:
            modality = query.modality or self.layout.modality
            self._check(modality if modality.is_media else self._other(), _named(query.modality or Modality.IMAGE))
        return self._encoded(media_inputs(one.content for one in queries), queries)

    def _rows(self, stored: Stored, queries: Sequence[RowsQuery]) -> pa.Array:
        vectors = stored([row for query in queries for row, _ in query.weights])
        if all(len(query.weights) == 1 and query.weights[0][1] > 0 for query in queries):
            return vectors
        if self.field.kind is not VectorKind.DENSE:
            raise ConfigurationError(
                f"the vector {self.field.name} is {self.field.kind}: only of dense vectors there is a mean",
                "name one row with --like, or a dense vector with --vector",
            )
        units = matrix_of(vectors)
        units = units / np.maximum(np.linalg.norm(units, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        sums, at = [], 0
        for query in queries:
            shares = np.asarray([weight for _, weight in query.weights], np.float32)
            found = shares @ units[at : at + len(shares)]
            at += len(shares)
            length = float(np.linalg.norm(found))
            if length < SMALLEST:
                raise ConfigurationError(
                    f"{shown(query)}: what is liked and what is disliked cancel each other out",
                    "name other rows with --like or --not-like",
                )
            sums.append(found / length)
        return dense_array(np.stack(sums))

    def _other(self) -> Modality:
        """What media a text corpus' model embeds as well."""
        return next((one for one in sorted(self.modalities) if one.is_media), Modality.IMAGE)

    def _check(self, modality: Modality, what: str) -> None:
        if modality not in self.modalities:
            raise ConfigurationError(
                f"the encoder of {self.field.name} embeds {' and '.join(sorted(self.modalities))}: {what} can't be "
                "searched for",
                "search with what it embeds, or with --like and the id of a row",
            )

    def _encoded(self, inputs: pa.Table, queries: Sequence[Query]) -> pa.Array:
        encoded = self.encoder.encode(inputs, query=True)
        for row, (_, reason) in sorted(encoded.refused.items()):
            other = "name other words to look for" if isinstance(queries[row], str) else "name another file"
            raise ConfigurationError(f"can't search for {shown(queries[row])}: {reason}", other)
        for row, dropped in enumerate(encoded.dropped.tolist()):
            if dropped and isinstance(queries[row], str):
                log.warning("%d tokens of %s were dropped: not known, or over the limit", dropped, shown(queries[row]))
        return encoded.vectors


def _named(modality: Modality) -> str:
    return f"{'a' if modality is Modality.VIDEO else 'an'} {modality} file"
