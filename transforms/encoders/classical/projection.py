"""Random projection: TF-IDF weights, multiplied by a seeded matrix of normal numbers, which keeps distances roughly.

The matrix is that of scikit-learn's `GaussianRandomProjection`. Johnson and Lindenstrauss, 1984.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError
from schemas.layout import VectorKind
from transforms.encoders.classical.tfidf import TFIDF_KEYS, fitted_vectorizer, learn_tfidf
from transforms.encoders.fitted.dense_projection import projected
from transforms.encoders.fitted.fitted_files import Learned
from transforms.encoders.fitted.term_model import TermModel, describe_terms
from transforms.encoders.fitted.term_reader import TermReader, Terms
from transforms.encoders.model_source import ModelSource


@dataclass(frozen=True)
class ProjectionModel(TermModel):
    """TF-IDF and a random projection."""

    kind: ClassVar = VectorKind.DENSE
    name: ClassVar = "projection"
    keys: ClassVar = TFIDF_KEYS
    own_dimensions: ClassVar = 384

    def learn(self, texts: Sequence[str], reader: TermReader) -> Learned:
        """See `TermModel.learn`."""
        from sklearn.random_projection import GaussianRandomProjection

        learned, weights = learn_tfidf(texts, reader, self.settings)
        dimensions, terms = self.facts.dimensions, len(learned.terms)
        if dimensions > terms:
            raise ConfigurationError(
                f"encoder.dimensions: {dimensions} is more than the {terms} terms of the {len(texts)} items that "
                "projection is fitted on",
                f"set encoder.dimensions: {terms}, or less",
            )
        projection = GaussianRandomProjection(dimensions, random_state=self.settings["seed"]).fit(weights)
        return Learned(learned.terms, {**learned.arrays, "components": projection.components_.astype(np.float32)})

    def embedder(self, learned: Learned) -> Callable[[Sequence[Terms]], pa.Array]:
        """See `TermModel.embedder`."""
        vectorizer = fitted_vectorizer(learned, self.settings)
        return projected(vectorizer, learned.arrays["components"], normalize=self.facts.normalize)


def describe(config: EncoderConfig, source: ModelSource) -> TermModel:
    """The model; see `describe_terms`."""
    return describe_terms(ProjectionModel, config, source)
