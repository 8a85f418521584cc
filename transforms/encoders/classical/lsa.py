"""Latent semantic analysis: TF-IDF weights, projected on the directions in which the corpus varies most.

scikit-learn's `TruncatedSVD` finds the directions. Deerwester and others, 1990: Indexing by latent semantic analysis.
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

_LEAST_SHARE = 1e-4
"""Of the largest singular value: under it a direction is rounding."""


@dataclass(frozen=True)
class LsaModel(TermModel):
    """TF-IDF and a truncated singular value decomposition."""

    kind: ClassVar = VectorKind.DENSE
    name: ClassVar = "lsa"
    keys: ClassVar = TFIDF_KEYS
    own_dimensions: ClassVar = 200

    def learn(self, texts: Sequence[str], reader: TermReader) -> Learned:
        """See `TermModel.learn`."""
        from sklearn.decomposition import TruncatedSVD

        learned, weights = learn_tfidf(texts, reader, self.settings)
        dimensions = self.facts.dimensions
        self._check_rank(min(weights.shape), weights.shape)
        with np.errstate(invalid="ignore"):  # a share of a variance of 0, which is not used
            decomposition = TruncatedSVD(dimensions, random_state=self.settings["seed"]).fit(weights)
        strengths = decomposition.singular_values_
        self._check_rank(int((strengths > strengths[0] * _LEAST_SHARE).sum()), weights.shape)
        return Learned(learned.terms, {**learned.arrays, "components": decomposition.components_.astype(np.float32)})

    def _check_rank(self, rank: int, shape: tuple[int, int]) -> None:
        if rank < self.facts.dimensions:
            raise ConfigurationError(
                f"encoder.dimensions: {self.facts.dimensions} is more than the {rank} directions in which the "
                f"{shape[0]} items that lsa is fitted on differ, with {shape[1]} terms",
                f"set encoder.dimensions: {rank}, or less",
            )

    def embedder(self, learned: Learned) -> Callable[[Sequence[Terms]], pa.Array]:
        """See `TermModel.embedder`."""
        vectorizer = fitted_vectorizer(learned, self.settings)
        return projected(vectorizer, learned.arrays["components"], normalize=self.facts.normalize)


def describe(config: EncoderConfig, source: ModelSource) -> TermModel:
    """The model; see `describe_terms`."""
    return describe_terms(LsaModel, config, source)
