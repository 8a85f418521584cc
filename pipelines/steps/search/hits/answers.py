"""The sentence of a hit that is nearest to the query: extractive question answering."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.steps.search.queries.query import Query
from pipelines.steps.search.queries.query_model import query_settings, vector_for
from pipelines.steps.search.search_options import SearchOptions
from schemas.config import Config
from schemas.errors import ConfigurationError
from schemas.layout import VectorKind
from schemas.modality import Modality
from transforms.encoders import Encoder, resolve, text_inputs

NAME = "answer"
"""The key of a hit."""
_LANGUAGE = "en"
"""Of abbreviations: the ends of sentences of other languages and scripts are found as well."""
Floats = NDArray[np.float32]


class Sentence(NamedTuple):
    """A sentence of a text, without spaces around it; `start` and `end` are characters of the text."""

    text: str
    start: int
    end: int


def sentences_of(text: str) -> Iterator[Sentence]:
    """The sentences of a text, by sentencex.

    >>> [sentence.text for sentence in sentences_of("It rains.  Is he here? ")]
    ['It rains.', 'Is he here?']
    """
    import sentencex

    end = 0
    for piece in sentencex.segment(_LANGUAGE, text):
        start, end = end, end + len(piece)
        stripped = piece.strip()
        if stripped:
            start += piece.index(stripped)
            yield Sentence(stripped, start, start + len(stripped))


def answering_vector(config: Config, queries: Sequence[Query], options: SearchOptions) -> str:
    """The vector whose encoder compares queries and sentences: of the searched ones, or of all, the first that fits.

    Raises:
        ConfigurationError: if no vector is dense and of texts, or a metadata column has the name of the answer.
    """
    if NAME in config.corpus.metadata:
        raise ConfigurationError(
            f"corpus.metadata has a column {NAME}, and so would each hit",
            f"rename the column, for example {NAME}_: {{from: {NAME}, type: string}}",
        )
    searched = options.vector or vector_for(config, queries)
    names = [searched] if isinstance(searched, str) else list(searched)
    for name in dict.fromkeys([*(one for one in names if one in config.vectors), *config.vectors]):
        model = resolve(query_settings(config, name))
        if model.kind is VectorKind.DENSE and Modality.TEXT in model.modalities:
            return name
    raise ConfigurationError(
        "--answer compares sentences with the query, and no vector of the rows is dense and of texts",
        "add an encoder of texts to the configuration, or leave --answer out",
    )


def with_answers(
    hits: Sequence[Sequence[dict[str, Any]]], queries: Floats, encoder: Encoder
) -> list[list[dict[str, Any]]]:
    """Hits with `answer`: `text`, `start`, `end` and `score` of a sentence of theirs; None if they have no text.

    All sentences are embedded together.

    Args:
        hits: of each query.
        queries: float32[queries, dimensions].
        encoder: of the space of `queries`.
    """
    found = {text: list(sentences_of(text)) for own in hits for hit in own if (text := hit.get("text"))}
    texts = list(dict.fromkeys(one.text for sentences in found.values() for one in sentences))
    vectors = _units(encoder, texts)
    units = queries / np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    answered = []
    for query, own in zip(units, hits, strict=True):
        answered.append([{**hit, NAME: _best(query, found.get(hit.get("text") or "", []), vectors)} for hit in own])
    return answered


def _units(encoder: Encoder, texts: Sequence[str]) -> dict[str, Floats]:
    """The unit vectors of texts, without those that the model can't embed."""
    if not texts:
        return {}
    encoded = encoder.encode(text_inputs(texts))
    matrix = encoded.matrix
    lengths = np.linalg.norm(matrix, axis=1)
    usable = [row for row in range(len(texts)) if row not in encoded.refused and lengths[row] > 0]
    return {texts[row]: matrix[row] / lengths[row] for row in usable}


def _best(query: Floats, sentences: Sequence[Sentence], vectors: dict[str, Floats]) -> dict[str, Any] | None:
    known = [one for one in sentences if one.text in vectors]
    if not known:
        return None
    scores = [float(vectors[one.text] @ query) for one in known]
    best = int(np.argmax(scores))
    return {**known[best]._asdict(), "score": round(scores[best], 6)}
