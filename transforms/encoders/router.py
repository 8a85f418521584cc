"""Models of sentence-transformers with two towers of texts: one embeds queries, the other one documents (its `Router`).

Items are embedded by the tower of documents. A tower is loaded when it first embeds something: a run never loads the
tower of queries, and a search never loads that of documents.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from schemas.config import Config, EncoderConfig
from schemas.errors import ConfigurationError
from schemas.layout import Space
from schemas.modality import Modality
from transforms.chunk.text import TextChunker
from transforms.encoders.base import Encoded, Encoder
from transforms.encoders.families import ROUTER_FILE
from transforms.encoders.model_files import read_json
from transforms.encoders.model_source import ModelSource
from transforms.encoders.sentence_transformers import (
    SentenceTransformersModel,
    describe_modules,
    kind_of,
    listed_modules,
)
from transforms.encoders.static_embedding import StaticModel
from transforms.encoders.text_facts import FactedText

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Tower = SentenceTransformersModel | StaticModel
QUERY, DOCUMENT = "query", "document"


@dataclass(frozen=True)
class RouterModel(FactedText):
    """A folder with a `Router` of two routes.

    Attributes:
        facts: of the tower of documents.
    """

    documents: Tower
    queries: Tower

    @property
    def space(self) -> Space:
        of_queries = {f"query_tower.{name}": fact for name, fact in asdict(self.queries.facts).items()}
        return Space(asdict(self.facts) | of_queries)

    @property
    def config(self) -> EncoderConfig:
        return self.documents.config

    def tokenizer(self) -> Tokenizer:
        return self.documents.tokenizer()

    def as_seen(self, text: str, *, query: bool = False) -> str:
        return (self.queries if query else self.documents).as_seen(text, query=query)

    def chunker(self, config: Config, modality: Modality) -> TextChunker:
        return self.documents.chunker(config, modality)

    def check_runnable(self) -> None:
        """See `transforms.encoders.models.Models.check_runnable`."""
        for tower in (self.documents, self.queries):
            if isinstance(tower, SentenceTransformersModel):
                tower.check_runnable()

    def load(self, sample: Sequence[str] = ()) -> RouterEncoder:
        return RouterEncoder(self, sample)


class RouterEncoder:
    """See the module. Several threads may use it at once."""

    def __init__(self, model: RouterModel, sample: Sequence[str]) -> None:
        self._model = model
        self._sample = sample
        self._loaded: dict[bool, Encoder] = {}
        self._loading = threading.Lock()

    def encode(self, inputs: pa.Table, *, query: bool = False, advance: Callable[[int], None] | None = None) -> Encoded:
        return self._tower(query=query).encode(inputs, query=query, advance=advance)

    def runtime(self) -> dict[str, str]:
        """That of the tower of documents, which the rows come from."""
        return self._tower(query=False).runtime()

    def _tower(self, *, query: bool) -> Encoder:
        with self._loading:
            if query not in self._loaded:
                tower = self._model.queries if query else self._model.documents
                self._loaded[query] = tower.load(self._sample)
            return self._loaded[query]


def describe(config: EncoderConfig, source: ModelSource) -> RouterModel:
    """Reads a model's files and fingerprints its space.

    `encoder.max_tokens` is the limit of items; queries have the limit of their tower.

    Raises:
        ConfigurationError: if the folder is incomplete, has other routes, or the model can't do what the configuration
            says.
        EncoderError: if files are damaged.
    """
    folder = source.folder()
    routes = _routes(folder)
    documents = describe_modules(config, source, folder, routes[DOCUMENT], DOCUMENT)
    of_queries = config.model_copy(update={"max_tokens": None})
    queries = describe_modules(of_queries, source, folder, routes[QUERY], QUERY)
    if documents.dimensions != queries.dimensions:
        raise ConfigurationError(
            f"encoder.model: {folder} embeds queries in {queries.dimensions} dimensions, and documents in "
            f"{documents.dimensions}",
            "set encoder.dimensions to a number that both have, if the model was trained for that",
        )
    return RouterModel(documents.facts, documents, queries)


def _routes(folder: Path) -> dict[str, list[tuple[str, str]]]:
    """Kinds and paths of the modules of each route, with those that follow the router."""
    settings = read_json(folder / ROUTER_FILE)
    structure, kinds = settings.get("structure") or {}, settings.get("types") or {}
    mapped = (settings.get("parameters") or {}).get("route_mappings")
    [(first, path), *following] = listed_modules(folder) or [("", "")]
    if {*structure} != {QUERY, DOCUMENT} or mapped or first != "Router" or path:
        raise ConfigurationError(
            f"encoder.model: {folder} has the routes {', '.join(structure) or 'of no Router'}"
            + (", by modality" if mapped else ""),
            "use a model of the routes query and document, as Router.for_query_document makes it",
        )
    return {
        name: [*((kind_of(str(kinds.get(module, ""))), str(module)) for module in modules), *following]
        for name, modules in structure.items()
    }
