"""TF-IDF: sparse vectors with a weight for each term, by scikit-learn's `TfidfVectorizer`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from schemas.config import EncoderConfig
from schemas.layout import VectorKind
from transforms.encoders.fitted.fitted_files import Learned
from transforms.encoders.fitted.term_model import SAMPLE_KEYS, TEXT_KEYS, TermModel, describe_terms
from transforms.encoders.fitted.term_reader import TermReader, Terms
from transforms.encoders.model_source import ModelSource
from transforms.support.vectors import sparse_array

TFIDF_KEYS = (*SAMPLE_KEYS, *TEXT_KEYS, "min_df", "max_df", "max_features", "sublinear_tf")


@dataclass(frozen=True)
class TfidfModel(TermModel):
    """TF-IDF weights of the terms of the corpus."""

    kind: ClassVar = VectorKind.SPARSE
    name: ClassVar = "tfidf"
    keys: ClassVar = TFIDF_KEYS

    def learn(self, texts: Sequence[str], reader: TermReader) -> Learned:
        """See `TermModel.learn`."""
        return learn_tfidf(texts, reader, self.settings)[0]

    def embedder(self, learned: Learned) -> Callable[[Sequence[Terms]], pa.Array]:
        """See `TermModel.embedder`."""
        vectorizer = fitted_vectorizer(learned, self.settings, normalize=self.facts.normalize)
        return lambda documents: sparse_rows(vectorizer.transform(documents))


def learn_tfidf(texts: Sequence[str], reader: TermReader, settings: dict[str, Any]) -> tuple[Learned, Any]:
    """Terms with their inverse document frequencies as `idf`, and the texts' weights, scipy.sparse[texts, terms].

    Raises:
        ValueError: if the texts have no term.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        analyzer=reader.terms,
        min_df=settings["min_df"],
        max_df=settings["max_df"],
        max_features=settings["max_features"],
        sublinear_tf=settings["sublinear_tf"],
        dtype=np.float32,
    )
    weights = vectorizer.fit_transform(texts)
    idf = np.asarray(vectorizer.idf_, np.float32)
    return Learned(vectorizer.get_feature_names_out().tolist(), {"idf": idf}), weights


def fitted_vectorizer(learned: Learned, settings: dict[str, Any], *, normalize: bool = True) -> Any:
    """A `TfidfVectorizer` of texts that are lists of terms."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        analyzer=_as_it_is,
        vocabulary=dict(learned.places),
        sublinear_tf=settings["sublinear_tf"],
        norm="l2" if normalize else None,
        dtype=np.float32,
    )
    vectorizer.idf_ = learned.arrays["idf"]
    return vectorizer


def _as_it_is(terms: Terms) -> Terms:
    return terms


def sparse_rows(matrix: Any) -> pa.Array:
    """The rows of a scipy.sparse matrix as sparse vectors."""
    rows = matrix.tocsr()
    borders = zip(rows.indptr[:-1], rows.indptr[1:], strict=True)
    return sparse_array((rows.indices[start:end], rows.data[start:end]) for start, end in borders)


def describe(config: EncoderConfig, source: ModelSource) -> TermModel:
    """The model; see `describe_terms`."""
    return describe_terms(TfidfModel, config, source)
