"""The section `encoder.fit`: how a model of the corpus' own terms is fitted."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from schemas.config.base import Section


class FitConfig(Section):
    """Keys of all families of `transforms.encoders.classical`; each family takes those that it has."""

    sample: int = Field(
        100_000,
        ge=1,
        description="Most items that vecbeam fits the model on. Hashes of the seed and the ids choose them, whatever "
        "the order of the corpus. vecbeam holds at most 256 MB of their texts",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Of the sample, and of everything random in the fit")
    stop_words: Literal["english", "none"] | None = Field(
        None, description="Words that are not terms; by default english (scikit-learn's list), and none for word2vec"
    )
    ngrams: int = Field(1, ge=1, le=3, description="Most words in a row that are a term. Not for word2vec")
    min_df: int = Field(1, ge=1, description="Least number of sampled items in which a term must occur")
    max_df: float = Field(1.0, gt=0, le=1, description="Largest share of the sampled items in which a term may occur")
    max_features: int = Field(
        100_000, ge=1, description="Most terms: those that are most frequent in the sampled items are kept"
    )
    sublinear_tf: bool = Field(True, description="Takes 1 + log(count) of a term in a text instead of its count")
    window: int = Field(8, ge=1, description="word2vec: most words between a word and one that it predicts")
    min_count: int = Field(2, ge=1, description="word2vec: least number of occurrences of a word in the sampled items")
    epochs: int = Field(20, ge=1, description="word2vec: how many times the fit reads the sampled items")
    idf: bool = Field(
        True, description="word2vec: weighs each word of a text by its inverse document frequency in the sampled items"
    )
