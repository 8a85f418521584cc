"""The model that embeds queries: that of the searched vector, of what is served."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from functools import partial

from pipelines.steps.corpus.known_spaces import known_spaces
from pipelines.steps.search.queries.query import OF_ROWS, Query
from schemas.config import Config, EncoderConfig
from schemas.config.encoder import SubtitlesEncoderConfig
from schemas.errors import ConfigurationError
from schemas.layout import Space
from transforms import milvus
from transforms.encoders import Encoder, Model, resolve
from transforms.encoders.fitted.kept_fits import KeptFits
from transforms.encoders.models import corpus_root
from transforms.support.storage import filesystem


def vector_named(config: Config, name: str) -> str:
    """The vector to search: the one of a name, or the first.

    Raises:
        ConfigurationError: if rows have no vector of that name.
    """
    if name and name not in config.vectors:
        raise ConfigurationError(
            f"rows have no vector {name!r}",
            f"name one of: {', '.join(config.vectors)}; without --vector it is the first",
        )
    return name or next(iter(config.vectors))


def vector_for(config: Config, queries: Sequence[Query]) -> str:
    """The vector that is searched where none is named: the first, or "" for it.

    Where vectors describe different inputs of an item: the first of texts for texts, and of media for media. Subtitles
    of films are texts.
    """
    kinds = {isinstance(query, str) for query in queries if not isinstance(query, OF_ROWS)}
    of_texts = {name: one.is_text for name, one in config.inputs.items()} or {
        name: isinstance(one, SubtitlesEncoderConfig) for name, one in config.vectors.items()
    }
    if len(kinds) != 1 or len({*of_texts.values()}) == 1:
        return ""
    [is_text] = kinds
    return next(name for name in config.vectors if of_texts[name] == is_text)


def query_settings(config: Config, vector: str = "") -> EncoderConfig:
    """How queries are embedded: in float32 where the corpus is in int8, which would need its sample of texts.

    Args:
        vector: for which vector; the first one for "".
    """
    encoder = config.vectors[vector_named(config, vector)]
    return encoder.model_copy(update={"precision": "float32"}) if encoder.precision == "int8" else encoder


def query_encoder(config: Config) -> Encoder:
    """The encoder for queries; see `query_settings`."""
    return query_model(config).load()


def query_model(config: Config, vector: str = "", connected: Future[milvus.Milvus] | None = None) -> Model:
    """The model for queries; see `query_settings`. One that is fitted on the corpus is that of what is served.

    Args:
        connected: gives a connection to Milvus; by default one is opened where such a model needs it.
    """
    spaces = partial(known_spaces_of, config, connected)
    return resolve(query_settings(config, vector), KeptFits(corpus_root(config), spaces, vector_named(config, vector)))


def known_spaces_of(config: Config, connected: Future[milvus.Milvus] | None) -> Iterable[Space]:
    """See `known_spaces`."""
    if not filesystem.is_local(config.checkpoint):
        from pipelines.run.jobs.beam_options import prepare_filesystems

        prepare_filesystems(config)
    return known_spaces(config, None if connected is None else connected.result())
