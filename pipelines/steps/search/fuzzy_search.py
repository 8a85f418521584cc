"""Searches that find words in spite of typing errors: `--fuzzy`."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from pipelines.steps.search.hits.found import columns
from pipelines.steps.search.hits.kept_hits import first_of_items
from pipelines.steps.search.queries.query import Query
from pipelines.steps.search.search_options import SearchOptions
from schemas.config import Config
from schemas.errors import CheckpointError, ConfigurationError
from transforms import milvus
from transforms.checkpoint import Checkpoint
from transforms.explore.live_rows import LiveRows
from transforms.explore.word_index import WordIndex
from transforms.milvus.rows.contents import by_ids
from transforms.milvus.rows.read import query as query_rows
from transforms.support.storage import filesystem

_RANKED = 500
"""Rows with similar words that are looked up, before the filter."""


def check_fuzzy(queries: Sequence[Query], options: SearchOptions) -> list[str]:
    """The queries, which are texts.

    Raises:
        ConfigurationError: for a query that is not a text, or an option that does not go with it.
    """
    texts = [query for query in queries if isinstance(query, str)]
    if len(texts) < len(queries):
        raise ConfigurationError("--fuzzy searches by the words of a text", "write a text, or leave --fuzzy out")
    for name in ("plus", "minus", "rerank", "importance"):
        if getattr(options, name):
            raise ConfigurationError(f"--fuzzy does not go with --{name}", f"leave --fuzzy or --{name} out")
    return texts


class KeptWords:
    """The words of what is served, kept in memory for the snapshot that is searched. Several threads may use it."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._kept: tuple[str, WordIndex] | None = None

    def of(self, config: Config, state: milvus.CollectionState) -> WordIndex:
        """The words of the rows of a collection.

        Raises:
            CheckpointError: if the checkpoint does not have them.
        """
        identity = state.target_id or state.snapshot_id or ""
        with self._changing:
            if self._kept is None or self._kept[0] != identity:
                if not filesystem.is_local(config.checkpoint):
                    from pipelines.run.jobs.beam_options import (
                        prepare_filesystems,  # not before: importing Beam takes a second
                    )

                    prepare_filesystems(config)
                checkpoint = Checkpoint(config.checkpoint, config.name, state.space_id or "")
                snapshot = checkpoint.find_snapshot(identity) if identity else None
                if snapshot is None:
                    raise CheckpointError(
                        f"{checkpoint.root} does not have the snapshot {identity or '(none)'} that {state.name} holds, "
                        "and so not the words of its rows",
                        "run vecbeam sync, or search without --fuzzy",
                    )
                self._kept = (identity, WordIndex(LiveRows(checkpoint, snapshot)))
            return self._kept[1]


def similar_rows(
    words: WordIndex,
    texts: Sequence[str],
    connection: milvus.Milvus,
    state: milvus.CollectionState,
    config: Config,
    options: SearchOptions,
    most: int,
) -> tuple[list[str], list[list[dict[str, Any]]]]:
    """The texts with their words corrected, and the rows with words similar to those of each, best first."""
    there = {column.name for column in state.columns}
    all_ = [*columns(config), *config.corpus.metadata]
    wanted = [name for name in all_ if name in there]
    similar = []
    for text in texts:
        ids = words.ranked(text, _RANKED if options.filter_expression or options.by_item else most)
        asked = f"({options.filter_expression}) and {by_ids(ids)}" if options.filter_expression else by_ids(ids)
        rows = {row["id"]: row for row in query_rows(connection, state.name, asked, wanted)} if ids else {}
        hits = [{"score": 0.0} | {name: rows[one].get(name) for name in all_} for one in ids if one in rows]
        similar.append((first_of_items(hits, lambda hit: hit["item_id"]) if options.by_item else hits)[:most])
    return [words.corrected(text) for text in texts], similar
