"""The models of a configuration: one for each vector of a row."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from schemas.config import Config
from schemas.config.encoder import VECTOR
from schemas.config.loader import as_config
from schemas.errors import ConfigurationError, EncoderError
from schemas.item_inputs import Input
from schemas.layout import Layout, Space
from schemas.modality import Modality
from transforms.chunk.base import Chunker
from transforms.chunk.by_input import InputsChunker
from transforms.chunk.by_modality import MixedChunker
from transforms.encoders.base import Model, corpus_modalities, vector_field
from transforms.encoders.catalogue import CATALOGUE
from transforms.encoders.families import resolve, resolve_on_worker
from transforms.encoders.fitted.fitted_model import FittedModel
from transforms.encoders.fitted.kept_fits import KeptFits
from transforms.support.storage import filesystem

if TYPE_CHECKING:
    from transforms.encoders.fitted.term_model import TermModel


@contextmanager
def naming(config: Config, name: str) -> Iterator[None]:
    """Errors about one of several encoders name its own key: `encoders.title.model`, not `encoder.model`."""
    try:
        yield
    except (ConfigurationError, EncoderError) as error:
        if not config.encoders:
            raise
        said = (_KEY.sub(f"encoders.{name}.", words) for words in (error.message, error.remedy))
        raise type(error)(*said) from error


_KEY = re.compile(r"\bencoder\.(?=[a-z])")


class Described(NamedTuple):
    """The part of `Models` that travels to the workers, each of which finds its own files.

    Attributes:
        layout: what a row holds; its spaces are what each worker's models must be of.
        cutting: see `Models.cutting`.
    """

    layout: Layout
    cutting: tuple[str, ...]


@dataclass(frozen=True)
class Models:
    """Models by the name of the vector that each fills, in the order of the configuration.

    They hold paths of this machine, so they do not travel; `layout` does.
    """

    by_name: Mapping[str, Model]
    metadata: Mapping[str, str]
    modality: Modality = Modality.TEXT
    inputs: Mapping[str, Input] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Config, spaces: Callable[[], Iterable[Space]] = tuple, *, refit: bool = False) -> Models:
        """Finds the models of a configuration.

        Args:
            spaces: of rows that there are; those that name the fitted models count. Called for a fitted model alone.
            refit: leaves out the fitted models that there are.

        Raises:
            ConfigurationError: if a name is unknown, a folder holds no model, or a model does not embed what the
                corpus holds.
            EncoderError: if files can't be fetched, or are not those that the catalogue pins.
        """
        root = "" if refit else corpus_root(config)
        models = {}
        for name, encoder in config.vectors.items():
            with naming(config, name):
                models[name] = resolve(encoder, KeptFits(root, spaces, name))
        for name, model in models.items():
            if name in config.inputs:
                _check_input(name, model, config.inputs[name])
                continue
            for modality in sorted(config.corpus.modalities):
                _check_modality(name, model, modality)
        found = cls(models, config.corpus.column_types, config.corpus.modality, config.inputs)
        found.check_searchable()
        return found

    @cached_property
    def layout(self) -> Layout:
        """What a row holds."""
        vectors = tuple(vector_field(name, model, self.inputs.get(name)) for name, model in self.by_name.items())
        return Layout(vectors, self.metadata, self.modality)

    @property
    def space(self) -> Space:
        """The space of the rows."""
        return self.layout.space

    @property
    def cutting(self) -> tuple[str, ...]:
        """The name of the vector whose model cuts items into chunks: the one with the shortest limit.

        Where vectors describe different inputs of an item, one for each input.
        """
        names: dict[Input | None, list[str]] = {}
        for one in self.layout.encoded:
            names.setdefault(one.input, []).append(one.name)

        def shortest(own: Input | None) -> str:
            modality = self.modality if own is None else own.modality
            limit = "max_seconds" if modality.unit == "seconds" else "max_tokens"
            return min(names[own], key=lambda name: getattr(self.by_name[name], limit, 1 << 62))

        return tuple(map(shortest, names))

    @property
    def to_fit(self) -> dict[str, TermModel]:
        """The models that must be fitted on the corpus before they embed, by the name of the vector."""
        from transforms.encoders.fitted.term_model import TermModel

        return {name: model for name, model in self.by_name.items() if isinstance(model, TermModel) and model.needs_fit}

    def with_fitted(self, fitted: Mapping[str, TermModel]) -> Models:
        """The same, with some models fitted."""
        return replace(self, by_name={**self.by_name, **fitted})

    def check_searchable(self) -> None:
        """Refuses rows without a vector that Milvus can search.

        Raises:
            ConfigurationError: if each vector is one of tokens.
        """
        _check_searchable(self.layout)

    def check_runnable(self) -> None:
        """Refuses models that can't run on this machine, as far as their families know that before loading them.

        Raises:
            MissingExtraError: if a package is missing.
        """
        for model in self.by_name.values():
            check = getattr(model, "check_runnable", None)
            if check is not None:
                check()

    def chunker(self, config: Config) -> Chunker:
        """The chunker for all models."""
        return chunker_of({name: self.by_name[name] for name in self.cutting}, config)


def corpus_root(config: Config) -> str:
    """The corpus' folder in the checkpoint."""
    return filesystem.join(config.checkpoint, config.name)


def _check_searchable(layout: Layout) -> None:
    if any(one.in_collection for one in layout.vectors):
        return
    name = layout.vectors[0].name
    piece, other = ("patch", "conse") if layout.modality.is_media else ("token", "all-MiniLM-L6-v2")
    raise ConfigurationError(
        f"encoder{'' if name == VECTOR else f's.{name}'}.model: it has a vector for each {piece}, which Milvus does "
        "not hold: it ranks the rows that another vector finds",
        f"name a dense or sparse encoder in addition, for example encoders: {{meaning: {{model: {other}}}, "
        f"{'late' if name == VECTOR else name}: {{model: ...}}}}",
    )


def _check_modality(name: str, model: Model, modality: Modality) -> None:
    taken = corpus_modalities(model)
    if modality not in taken:
        key = "encoder.model" if name == VECTOR else f"encoders.{name}.model"
        fitting = {modality, Modality.IMAGE} if modality is Modality.VIDEO else {modality}
        known = [entry.name for entry in CATALOGUE.values() if fitting & {*entry.modalities}]
        raise ConfigurationError(
            f"{key}: {model.config.model} embeds {' and '.join(sorted(taken))}, and the corpus has items of "
            f"the modality {modality}",
            f"name a model that embeds {modality}"
            + (f", for example {known[0]}" if known else "")
            + (
                ", or set input: sound to embed the sound track"
                if modality is Modality.VIDEO and Modality.AUDIO in taken
                else ", or set corpus.format to what the files are"
            ),
        )


def _check_input(name: str, model: Model, own: Input) -> None:
    taken = corpus_modalities(model)
    if own.modality not in taken:
        known = [entry.name for entry in CATALOGUE.values() if own.modality in entry.modalities]
        raise ConfigurationError(
            f"encoders.{name}.model: {model.config.model} embeds {' and '.join(sorted(taken))}, and its "
            f"input, {own}, is of the modality {own.modality}",
            f"name a model that embeds {own.modality}{f', for example {known[0]}' if known else ''}, or another input",
        )
    if isinstance(model, FittedModel):
        raise ConfigurationError(
            f"encoders.{name}.model: {model.config.model} is fitted on whole items, and its input is {own}",
            "name a model that is not fitted on the corpus, or embed the same texts with all encoders",
        )


def chunker_of(cutting: Mapping[str, Model], config: Config) -> Chunker:
    """The chunker of models for the corpus: of several modalities, one for each of them.

    Args:
        cutting: the model of each vector of `Models.cutting`.
    """
    corpus = config.corpus
    if corpus.inputs:
        chunkers_of = {
            corpus.inputs[name]: model.chunker(config, corpus.inputs[name].modality) for name, model in cutting.items()
        }
        return InputsChunker(config, chunkers_of)
    [model] = cutting.values()
    if corpus.modality is not Modality.MIXED:
        return model.chunker(config, corpus.modality)
    chunkers = {modality: model.chunker(config, modality) for modality in sorted(corpus.modalities)}
    return MixedChunker(chunkers, corpus.column_types)


def described(config: Config, spaces: Callable[[], Iterable[Space]] = tuple) -> Described:
    """The facts of a configuration's models for workers.

    Args:
        spaces: see `Models.of`.

    Raises:
        ConfigurationError: if a model must be fitted first; and what `Models.of` raises.
    """
    models = Models.of(config, spaces)
    for model in models.to_fit.values():
        raise model.not_fitted()
    return Described(models.layout, models.cutting)


def configured(
    config: Config | str, models: Described | None, spaces: Callable[[Config], Iterable[Space]]
) -> tuple[Config, Described]:
    """The arguments of a public transform, completed: the configuration, also from its file, and its models.

    Args:
        spaces: of the rows in the configuration's checkpoint; see `Models.of`.
    """
    config = as_config(config)
    return config, models or described(config, lambda: spaces(config))


def chunker_on_worker(config: Config, layout: Layout, cutting: Sequence[str]) -> Chunker:
    """The chunker of a run on this worker, which finds its own files of the model.

    Args:
        cutting: see `Models.cutting`.

    Raises:
        SpaceMismatchError: if this worker's model is of another space than the run's.
    """
    models = {}
    for name in cutting:
        space = layout.vector(name).space
        models[name] = resolve_on_worker(config.vectors[name], space.id, space, corpus_root(config))
    return chunker_of(models, config)
