"""Word2Vec fitted on the corpus by gensim: a text's vector is the mean of the vectors of its words, weighed by IDF.

Skip-gram: Mikolov and others, 2013, https://arxiv.org/abs/1301.3781. gensim fits in one thread, as its result depends
on the order of the threads. It is needed for the fit alone: texts are embedded without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from schemas.config import EncoderConfig, FitConfig
from schemas.errors import ConfigurationError
from schemas.layout import VectorKind
from transforms.encoders.fitted.dense_projection import scaled
from transforms.encoders.fitted.fitted_files import Learned
from transforms.encoders.fitted.term_model import SAMPLE_KEYS, TermModel, describe_terms
from transforms.encoders.fitted.term_reader import TermReader, Terms
from transforms.encoders.model_source import ModelSource
from transforms.support.vectors import dense_array


@dataclass(frozen=True)
class Word2VecModel(TermModel):
    """Vectors of words that occur together in the corpus."""

    kind: ClassVar = VectorKind.DENSE
    name: ClassVar = "word2vec"
    keys: ClassVar = (*SAMPLE_KEYS, "stop_words", "max_features", "window", "min_count", "epochs", "idf")
    modules: ClassVar = ("sklearn", "gensim")
    pooling: ClassVar = "mean"
    own_dimensions: ClassVar = 100
    defaults: ClassVar = MappingProxyType({"stop_words": "none"})

    def rough(self) -> TermModel:
        """See `TermModel.rough`: one epoch gives the same words."""
        fit = (self.config.fit or FitConfig()).model_copy(update={"epochs": 1})
        return replace(self, config=self.config.model_copy(update={"fit": fit}))

    def learn(self, texts: Sequence[str], reader: TermReader) -> Learned:
        """See `TermModel.learn`."""
        from gensim.models import Word2Vec

        settings = self.settings
        known: dict[str, str] = {}  # each word once in memory
        sentences = [[known.setdefault(word, word) for word in reader.terms(text)] for text in texts]
        model = Word2Vec(
            vector_size=self.facts.dimensions,
            window=settings["window"],
            min_count=settings["min_count"],
            max_final_vocab=settings["max_features"],
            epochs=settings["epochs"],
            seed=settings["seed"],
            sg=1,
            workers=1,
        )
        model.build_vocab(sentences)
        words = list(model.wv.index_to_key)
        if not words:
            raise self._too_rare(len(texts)) if known else ValueError("empty vocabulary")
        model.train(sentences, total_examples=model.corpus_count, epochs=model.epochs)
        order = sorted(range(len(words)), key=words.__getitem__)
        vectors = np.asarray(model.wv.vectors, np.float32)[order]
        terms = [words[at] for at in order]
        return Learned(terms, {"vectors": vectors, "idf": _idf(terms, sentences)})

    def _too_rare(self, items: int) -> ConfigurationError:
        return ConfigurationError(
            f"encoder.fit.min_count: no word occurs {self.settings['min_count']} times in the {items} items that "
            "word2vec is fitted on",
            "lower encoder.fit.min_count",
        )

    def embedder(self, learned: Learned) -> Callable[[Sequence[Terms]], pa.Array]:
        """See `TermModel.embedder`."""
        table = learned.arrays["vectors"]
        if self.settings["idf"]:
            table = table * learned.arrays["idf"][:, None]

        def embed(documents: Sequence[Terms]) -> pa.Array:
            vectors = np.zeros((len(documents), table.shape[1]), np.float32)
            for row, terms in enumerate(documents):
                if terms:
                    vectors[row] = table[[learned.places[term] for term in terms]].mean(axis=0)
            return dense_array(scaled(vectors) if self.facts.normalize else vectors)

        return embed


def _idf(terms: Sequence[str], sentences: Sequence[Sequence[str]]) -> Any:
    """Inverse document frequencies as scikit-learn smooths them, float32[terms]."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer=list, vocabulary={term: row for row, term in enumerate(terms)})
    return np.asarray(vectorizer.fit(sentences).idf_, np.float32)


def describe(config: EncoderConfig, source: ModelSource) -> TermModel:
    """The model; see `describe_terms`."""
    return describe_terms(Word2VecModel, config, source)
