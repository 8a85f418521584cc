"""A collection of Milvus as one side of a comparison: its own index ranks, by the model that made its vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.steps.collection.rollback_target import is_finished
from pipelines.steps.collection.served import open_for_search, with_index
from pipelines.steps.quality.ranked import QUERIES_AT_ONCE, Floats, Ranked, embed_queries, first_items
from pipelines.steps.search.queries.query_model import query_settings
from schemas.config import Config
from schemas.errors import CollectionError, ConfigurationError, SpaceMismatchError
from schemas.layout import VECTORS, Space, VectorField
from schemas.milvus import VECTOR_TYPES
from transforms import milvus
from transforms.encoders import Model, resolve
from transforms.encoders.fitted.kept_fits import KeptFits
from transforms.encoders.models import corpus_root
from transforms.load.specification import vector_column
from transforms.quality.judged_queries import LoggedQuery


@dataclass(frozen=True)
class CollectionRows:
    """The rows of a collection, whether an alias points to it or not.

    Attributes:
        config: whose encoder made the vectors, and whose Milvus has the collection.
        model: of the vector.
        name: of the vector.
    """

    config: Config
    state: milvus.CollectionState
    model: Model
    name: str

    @property
    def basis(self) -> dict[str, str]:
        """Which rows these are."""
        held = self.state.target_id or self.state.snapshot_id or ""
        return {"collection": self.state.name, "snapshot": held, "space": self.state.space_id or ""}

    def ranked(self, queries: Sequence[LoggedQuery]) -> Ranked:
        """The rankings of the collection's index.

        Raises:
            CollectionError: if the collection is gone, or Milvus does not answer.
            ConfigurationError: for queries of a modality that the model does not embed.
        """
        embedded = embed_queries(queries, self.model.load(), self.model.modalities)
        found: list[list[str]] = []
        with milvus.connected(self.config.collection, create=False) as connection:
            state = open_for_search(connection, self.state.name) or self.state
            for start in range(0, len(embedded.ids), QUERIES_AT_ONCE):
                found += self._nearest(connection, state, embedded.vectors[start : start + QUERIES_AT_ONCE])
        notes = list(embedded.notes)
        if not is_finished(self.state):
            notes.append(f"{self.state.name} was never finished: rows may be missing")
        return Ranked(dict(zip(embedded.ids, found, strict=True)), notes)

    def _nearest(self, connection: milvus.Milvus, state: milvus.CollectionState, vectors: Floats) -> list[list[str]]:
        index = state.indexes.get(self.name)
        if index is None:
            raise CollectionError(f"{state.name} has no index on {self.name}", "build it again: vecbeam reindex")
        field = VectorField(self.name, self.model.space, self.model.dimensions)
        column = vector_column(with_index(self.config, state), field)
        # Search parameters go with the type of index that they are of.
        parameters = column.search_parameters if column.index_type == index.type else {}

        def nearest(places: Sequence[int], rows: int) -> list[list[str]]:
            some = vectors[list(places)]
            hits = milvus.search_each(
                connection, state.name, some, rows, "", ["item_id"], parameters, index.type, self.name
            )
            return [[str(hit.fields["item_id"]) for hit in own] for own in hits]

        return first_items(len(vectors), nearest)


def open_collection(state: milvus.CollectionState, configs: Sequence[Config], vector: str = "") -> CollectionRows:
    """A collection with the model that made its vectors.

    Args:
        configs: those whose encoders may have made it.
        vector: by default the first dense one.

    Raises:
        ConfigurationError: if it has no such dense vector.
        SpaceMismatchError: if no configuration's encoder made the vectors.
    """
    dense = [one.name for one in state.vectors if one.type == VECTOR_TYPES["dense"]]
    name = vector or next(iter(dense), "")
    if name not in dense:
        raise ConfigurationError(
            f"--vector: {state.name} has no dense vector {name!r}; the dense vectors are: {', '.join(dense) or 'none'}",
            f"name one of these: --vector {dense[0]}" if dense else "compare collections with a dense vector",
        )
    whole = Space.from_json(state.space_json) if state.space_json else Space({})
    space = Space(whole.facts[VECTORS][name]) if VECTORS in whole.facts else whole
    differences = []
    for config in configs:
        if name in config.vectors:
            fits = KeptFits(corpus_root(config), lambda: [whole], name, any_whole=False)
            model = resolve(query_settings(config, name), fits)
            if model.space.id == space.id:
                return CollectionRows(config, state, model, name)
            differences.append("; ".join(model.space.differences(space)))
    raise SpaceMismatchError(
        f"{state.name} holds vectors of space {state.space_id}, which the encoder of no given configuration makes"
        + (f": {differences[0]}" if differences else ""),
        "name the configuration that built it too: -c other.yaml, next to -c of this one",
    )
