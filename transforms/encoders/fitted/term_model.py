"""Models of terms: what families that are fitted on the corpus share, and hashing, which needs no fit.

A family says what it learns from the terms of a sample of the corpus, and how the terms of a text become a vector.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from schemas.config import Config, EncoderConfig, FitConfig
from schemas.errors import ConfigurationError
from schemas.identity import digest
from schemas.modality import Modality
from transforms.chunk.text import TextChunker
from transforms.encoders.base import Encoded, Work, text_inputs
from transforms.encoders.counted_words import MOST_TOKENS, CountingChunker, whitespace_tokenizer
from transforms.encoders.fitted.fitted_files import Fitted, Learned, in_memory
from transforms.encoders.fitted.fitted_model import FittedModel
from transforms.encoders.fitted.term_reader import RULE, TermReader, Terms
from transforms.encoders.model_files import lowered
from transforms.encoders.model_source import ModelSource
from transforms.encoders.text_facts import FactedText, TextFacts
from transforms.support.extras import need

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NOT_FITTED = "not fitted"
"""The weights of a model that is not fitted yet."""
TEXT_KEYS = ("stop_words", "ngrams")
SAMPLE_KEYS = ("sample", "seed")


@dataclass(frozen=True)
class TermModel(FittedModel, FactedText):
    """A model of terms. Subclasses are families.

    Attributes:
        fitted: what was learned; None if it is not fitted yet, or needs no fit.
    """

    config: EncoderConfig
    fitted: Fitted | None = None

    name: ClassVar[str]
    """The family's, and the model's."""
    keys: ClassVar[tuple[str, ...]]
    """Keys of `encoder.fit` that it has."""
    modules: ClassVar[tuple[str, ...]] = ("sklearn",)
    """That the fit needs."""
    pooling: ClassVar = "sum"
    own_dimensions: ClassVar = 0
    """By default; 0 if they follow from the corpus."""
    defaults: ClassVar[Mapping[str, Any]] = {"stop_words": "english"}

    @property
    def needs_fit(self) -> bool:
        """Whether it can't embed before it is fitted on the corpus."""
        return self.fitted is None and "sample" in self.keys

    @property
    def settings(self) -> dict[str, Any]:
        """The values of `encoder.fit` that the family has."""
        given = self.config.fit or FitConfig()
        found = {key: getattr(given, key) for key in self.keys}
        return {key: self.defaults[key] if value is None else value for key, value in found.items()}

    @property
    def fit_facts(self) -> dict[str, Any]:
        """The facts of the space that the fit depends on; another value of one needs another fit."""
        facts = {"tokenizer": self.facts.tokenizer, "architecture": dict(self.facts.architecture)}
        return {**facts, "dimensions": self.facts.dimensions} if self.own_dimensions else facts

    @property
    def probe(self) -> pa.Table:
        """See `Model.probe`."""
        return text_inputs([self._learned().terms[0] if self.fitted is not None else "probe"])

    @abstractmethod
    def learn(self, texts: Sequence[str], reader: TermReader) -> Learned:
        """Fits the model on some texts.

        Raises:
            ValueError: if they have no term.
            ConfigurationError: if they are too few for the model.
        """

    @abstractmethod
    def embedder(self, learned: Learned) -> Callable[[Sequence[Terms]], pa.Array]:
        """Gives the vectors of texts, each as known terms; what it gives for a text without any does not count."""

    @property
    def sample_of(self) -> tuple[int, int]:
        """Size and seed of the sample that it is fitted on."""
        return self.settings["sample"], self.settings["seed"]

    @property
    def terms(self) -> Sequence[str]:
        """The terms that it knows."""
        return self._learned().terms

    def check_fit(self) -> None:
        """Raises MissingExtraError if a library that the fit needs is not installed."""
        need("classical", f"encoder.model: fitting {self.name}", *self.modules)

    def rough(self) -> TermModel:
        """The same model with the cheapest fit, from which its speed can be estimated."""
        return self

    def kept_in(self, root: str) -> TermModel:
        """The same model, with its files written into a checkpoint.

        Args:
            root: the corpus' folder in the checkpoint.

        Raises:
            CheckpointError: if they can't be written.
        """
        return self if self.fitted is None else replace(self, fitted=self.fitted.write(root))

    def fit(self, texts: Sequence[str]) -> TermModel:
        """The same model, fitted on some texts; its files are in memory.

        Args:
            texts: in an order that does not depend on the corpus' order: the model may.

        Raises:
            ConfigurationError: if they are too few for the model, or have no term.
            MissingExtraError: if a library is not installed.
        """
        self.check_fit()
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1):  # sums of other numbers of threads differ in their last bits
            learned = self._learn(texts)
        if not learned.terms:
            raise self._no_term(len(texts))
        dimensions = (self.own_dimensions and self.facts.dimensions) or len(learned.terms)
        return self._with(in_memory(learned, self.fit_facts, len(texts), dimensions))

    def _learn(self, texts: Sequence[str]) -> Learned:
        try:
            return self.learn(texts, self._reader(None))
        except ValueError as error:
            # scikit-learn has one class for all; it names what it misses.
            if "no terms remain" in str(error) or "max_df corresponds" in str(error):
                raise ConfigurationError(
                    f"encoder.fit: no term of the {len(texts)} items that {self.name} is fitted on is within min_df "
                    f"{self.settings['min_df']} and max_df {self.settings['max_df']}",
                    "lower encoder.fit.min_df, or raise encoder.fit.max_df",
                ) from error
            if "empty vocabulary" in str(error):
                raise self._no_term(len(texts)) from error
            raise

    def _no_term(self, items: int) -> ConfigurationError:
        return ConfigurationError(
            f"encoder.model: the {items} items that {self.name} is fitted on have no term: only stop words, single "
            "characters and punctuation",
            "set encoder.fit.stop_words: none, or name a model that is not fitted on the corpus",
        )

    def _with(self, fitted: Fitted) -> TermModel:
        return replace(
            self, fitted=fitted, facts=replace(self.facts, weights=fitted.digest, dimensions=fitted.dimensions)
        )

    def _learned(self) -> Learned:
        return self.fitted.read() if self.fitted is not None else Learned((), {})

    def _reader(self, learned: Learned | None) -> TermReader:
        settings = self.settings
        return TermReader(settings["stop_words"], settings.get("ngrams", 1), self.facts.max_tokens, learned)

    def check_runnable(self) -> None:
        """See `transforms.encoders.models.Models.check_runnable`."""
        need("classical", f"encoder.model: {self.name}", "sklearn")

    def tokenizer(self) -> Tokenizer:
        """See `whitespace_tokenizer`."""
        return whitespace_tokenizer()

    def chunker(self, config: Config, modality: Modality) -> CountingChunker:  # noqa: ARG002 (it has one)
        """See `Model.chunker`; of a model that is not fitted yet, all terms count as known."""
        return CountingChunker(TextChunker(config, self), lambda texts: self._known().counts(texts))

    def not_fitted(self) -> ConfigurationError:
        """The error for what needs a fitted model, where there is none."""
        return ConfigurationError(
            f"encoder.model: the checkpoint holds no {self.name} that was fitted with these settings",
            "run vecbeam backfill, which fits it on the corpus; if something else is served, vecbeam reindex",
        )

    def _known(self) -> TermReader:
        self.check_runnable()
        return self._reader(self._learned() if self.fitted is not None else None)

    def load(self, sample: Sequence[str] = ()) -> TermEncoder:  # noqa: ARG002 (the protocol's)
        """See `Model.load`.

        Raises:
            ConfigurationError: if it is not fitted yet.
        """
        if self.needs_fit:
            raise self.not_fitted()
        reader = self._known()
        return TermEncoder(self, reader, self.embedder(self._learned()))


@dataclass(frozen=True)
class TermEncoder:
    """Embeds texts by their known terms."""

    model: TermModel
    reader: TermReader
    embed: Callable[[Sequence[Terms]], pa.Array]

    def encode(self, inputs: pa.Table, *, query: bool = False, advance: Callable[[int], None] | None = None) -> Encoded:  # noqa: ARG002 (the protocol's)
        """See `Encoder.encode`; a text without a known term is refused."""
        start = time.perf_counter()
        read = self.reader.read(inputs.column("text").to_pylist())
        vectors = self.embed([each.known for each in read])
        tokens = np.fromiter((len(each.known) for each in read), np.int64, len(read))
        dropped = np.fromiter((each.dropped for each in read), np.int64, len(read))
        if advance is not None:
            advance(int(tokens.sum()))
        refused = {
            row: ("UnknownWords", self._reason(int(dropped[row]))) for row in np.flatnonzero(tokens == 0).tolist()
        }
        return Encoded(vectors, tokens, dropped, Work(0, time.perf_counter() - start), refused)

    def _reason(self, dropped: int) -> str:
        name = self.model.name
        if not dropped:
            return "the text has no term: only stop words, single characters and punctuation"
        terms = "its term is" if dropped == 1 else f"none of its {dropped} terms is"
        no = "not " if dropped == 1 else ""
        return f"{terms} {no}among those that {name} was fitted on, so that it has no vector"

    def runtime(self) -> dict[str, str]:
        """See `Encoder.runtime`."""
        return {
            "engine": "scikit-learn",
            "device": "cpu",
            "precision": "float32",
            "scikit-learn": version("scikit-learn"),
        }


def describe_terms(family: type[TermModel], config: EncoderConfig, source: ModelSource) -> TermModel:
    """The model of a family: with what the checkpoint has of it, or not fitted yet.

    Raises:
        ConfigurationError: if the configuration has a key that the family does not have.
        EncoderError: if the checkpoint's fitted model is missing or damaged.
    """
    _check(family, config)
    bare = TextFacts(
        weights=NOT_FITTED if "sample" in family.keys else digest(family.name, 64),
        tokenizer=digest(RULE, 64),
        pooling=family.pooling,
        max_tokens=lowered(config, "max_tokens", MOST_TOKENS),
        dimensions=config.dimensions or family.own_dimensions,
        normalize=config.normalize,
    )
    model = family(bare, config)
    model = replace(model, facts=replace(bare, architecture={"model_type": family.name, **model.settings}))
    if not model.needs_fit:
        return model
    fitted = source.fits.find(model.fit_facts)
    return model if fitted is None else model._with(fitted)


def _check(family: type[TermModel], config: EncoderConfig) -> None:
    for key in ("prompt", "query_prompt"):
        if getattr(config, key):
            raise ConfigurationError(
                f"encoder.{key}: a prompt is more words of each text for {family.name}", f"remove encoder.{key}"
            )
    if config.revision is not None:
        raise ConfigurationError(
            f"encoder.revision: {family.name} is fitted on the corpus and has no revision", "remove encoder.revision"
        )
    if config.engine != "auto" or config.device == "cuda":
        key = "engine" if config.engine != "auto" else "device"
        raise ConfigurationError(
            f"encoder.{key}: {family.name} runs on scikit-learn and a CPU alone, not on {getattr(config, key)}",
            f"remove encoder.{key}",
        )
    if config.precision == "int8":
        raise ConfigurationError(f"encoder.precision: {family.name} has no int8", "set encoder.precision: float32")
    if config.dimensions is not None and not family.own_dimensions:
        raise ConfigurationError(
            f"encoder.dimensions: {family.name} makes sparse vectors, with a dimension for each term that it knows",
            "remove encoder.dimensions, or set encoder.fit.max_features",
        )
    for key in sorted(config.fit.model_fields_set) if config.fit is not None else []:
        if key not in family.keys:
            raise ConfigurationError(
                f"encoder.fit.{key}: {family.name} does not have it",
                f"remove it; {family.name} has {', '.join(family.keys)}",
            )
