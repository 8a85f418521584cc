"""Hashed counts of terms: sparse vectors by scikit-learn's `HashingVectorizer`, which needs no fit and no vocabulary.

The counts have no signs: Milvus takes sparse vectors of positive numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from schemas.config import EncoderConfig
from schemas.layout import VectorKind
from transforms.encoders.classical.tfidf import sparse_rows
from transforms.encoders.fitted.fitted_files import Learned
from transforms.encoders.fitted.term_model import TEXT_KEYS, TermModel, describe_terms
from transforms.encoders.fitted.term_reader import TermReader, Terms
from transforms.encoders.model_source import ModelSource


@dataclass(frozen=True)
class HashingModel(TermModel):
    """Counts of terms, each at the place that its hash gives."""

    kind: ClassVar = VectorKind.SPARSE
    name: ClassVar = "hashing"
    keys: ClassVar = TEXT_KEYS
    own_dimensions: ClassVar = 2**18

    def learn(self, texts: Sequence[str], reader: TermReader) -> Learned:
        """See `TermModel.learn`; nothing is learned."""
        raise NotImplementedError

    def embedder(self, learned: Learned) -> Callable[[Sequence[Terms]], pa.Array]:  # noqa: ARG002 (nothing is learned)
        """See `TermModel.embedder`."""
        from sklearn.feature_extraction.text import HashingVectorizer

        vectorizer = HashingVectorizer(
            analyzer=list,
            n_features=self.facts.dimensions,
            alternate_sign=False,
            norm="l2" if self.facts.normalize else None,
            dtype=np.float32,
        )
        return lambda documents: sparse_rows(vectorizer.transform(documents))


def describe(config: EncoderConfig, source: ModelSource) -> TermModel:
    """The model; see `describe_terms`."""
    return describe_terms(HashingModel, config, source)
