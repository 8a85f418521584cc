"""The command line as a Python object: index something, search it.

from pipelines.index import Index

with Index("islands") as index:
    index.add(["Japan spans 6852 islands.", "Kenya is in East Africa."])
    hits = index.search("How many islands?")
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, overload

from pipelines.index_folder import IndexFolder
from pipelines.index_inspection import IndexInspection
from pipelines.steps.corpus.given_media import is_one
from pipelines.steps.corpus.index_arguments import (
    as_lists,
    checked_ids,
    checked_place,
    is_text,
)
from pipelines.steps.search.queries.query import OneQuery, as_query
from pipelines.steps.search.search_options import SearchKeywords, SearchOptions
from schemas.config.loader import load_config
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from pipelines.run.progress import Progress
    from pipelines.steps.search.searcher import Searcher
    from schemas.config import Config
    from schemas.run_plan import Plan
    from schemas.run_report import Report

# Commands are imported when they are called: a process that only searches loads no Beam.

CONFIGURATION = "vecbeam.yaml"


class Index(IndexInspection):
    """A corpus and its collection, under one configuration.

    Model, client and collection stay open between searches. `close`, or the end of a `with` block, frees them; the
    next search opens them again. Several threads may use one Index: searches run in parallel, and methods that write
    (`add`, `delete`, `index`, `reindex`, `verify`) run one at a time.

    Milvus Lite serves one process at a time: while an Index of it is open, no other process can open the same file.

    Args:
        where: a configuration file; or a folder, which need not exist: then `add` and `index` write the configuration
            into it, next to the checkpoint and Milvus Lite.
        progress: shows progress on standard error.

    Raises:
        ConfigurationError: for a configuration that is wrong.
    """

    def __init__(self, where: str | Path = "vecbeam_index", *, progress: bool = False) -> None:
        path = checked_place(where)
        self._path = path if path.suffix in (".yaml", ".yml") else path / CONFIGURATION
        self._owns = self._path is not path
        self._progress = progress
        self._folder = IndexFolder(self._path, self._shown)
        self._writing = threading.RLock()
        self._changing = threading.Lock()
        self._searcher: Searcher | None = None
        self._seen: tuple[int, int, int] | None = None
        if not self._owns or self._path.exists():
            load_config(self._path)

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees model and connection, and stops an embedded Milvus Lite that nothing else in this process uses."""
        with self._changing:
            searcher, self._searcher, self._seen = self._searcher, None, None
        if searcher is not None:
            searcher.close()
        with suppress(ConfigurationError):
            collection = self.config.collection
            from transforms.milvus import release

            release(collection, unused=True)  # a run may have started it

    @property
    def config(self) -> Config:
        """The configuration as it is now.

        Raises:
            ConfigurationError: if there is none yet.
        """
        if self._owns and not self._path.exists():
            raise ConfigurationError(
                f"the index in {self._path.parent} holds nothing yet", "add texts with add(), or files with index()"
            )
        return load_config(self._path)

    @overload
    def search(  # type: ignore[overload-overlap]
        self,
        query: OneQuery,
        k: int = 10,
        *,
        filter: str = "",
        **options: Unpack[SearchKeywords],
    ) -> list[dict[str, Any]]: ...
    @overload
    def search(
        self,
        query: Iterable[OneQuery],
        k: int = 10,
        *,
        filter: str = "",
        **options: Unpack[SearchKeywords],
    ) -> list[list[dict[str, Any]]]: ...
    def search(
        self,
        query: OneQuery | Iterable[OneQuery],
        k: int = 10,
        *,
        filter: str = "",
        **options: Unpack[SearchKeywords],
    ) -> Any:
        """The `k` rows nearest to a query, best first.

        Args:
            query: a text; for media a pathlib.Path, the bytes of a file, a PIL image or an array of pixels; a
                `LikeQuery` with the id of a row. Or several, which are embedded together and searched in one call.
            filter: Milvus expression over the columns, e.g. 'author == "ting-yili"'.
            options: the keyword arguments `plus`, `minus`, `vector`, `rerank`, `candidates` and `importance`, and
                others; see `SearchOptions`.

        Returns:
            One dict per row: `score` (larger is nearer with COSINE and IP, smaller with L2), `id`, `item_id`, `chunk`,
            `text` (of media `uri`), `start`, `end`, and the metadata columns. For several queries a list of such
            lists, in their order.

        Raises:
            ConfigurationError: for a blank query, a filter that Milvus does not understand, or if there is nothing
                to search yet.
            CollectionError: if nothing is published, or Milvus does not answer.
        """
        several = not is_one(query)
        given: Any = query if several else [query]
        queries = [as_query(one) for one in given]
        found = self._open().search(queries, k, SearchOptions(filter, **options))
        return found.hits if several else found.hits[0]

    def add(
        self,
        texts: str | Mapping[str, Any] | Iterable[str | Mapping[str, Any]],
        ids: str | int | Sequence[str | int] | None = None,
    ) -> Report:
        """Adds texts and updates the collection. Only an index in its own folder accepts any.

        Each text is checked before anything is written, and a refused one does not affect the others: they are
        added, and then an error names the refused ones.

        Args:
            texts: a text, a record, or several of these. A record is a dict with the text under `text`, an `id` if it
                has one, and other fields; those that the configuration names under corpus.metadata become columns.
                When `add` makes the configuration, those are the fields with a number, a truth value or a string.
            ids: of the texts, over ids in records. A text replaces an earlier one of its id; one without gets an id
                from its hash, so that the same text is never a duplicate.

        Returns:
            The report of the sync.

        Raises:
            RefusedTextsError: some texts were refused: blank, not a string, a NUL or a lone surrogate in it, an id
                that is too long, a value that does not fit its column. `.refused` has position and reason of each,
                `.report` is the report of the sync with the others.
            ConfigurationError: an index with a configuration file of its own, or not as many ids as texts.
            VecbeamError: what `sync` raises; if it refuses the corpus with the new texts, they are taken out again.
        """
        given, names = as_lists(texts, ids)
        with self._exclusive("nothing can be added to it here"):
            return self._folder.add(given, names)

    def delete(self, ids: str | int | Iterable[str | int]) -> Report:
        """Deletes added texts by their ids (`item_id` of a hit), and updates the collection.

        An id that does not exist is ignored, so that a delete may be repeated.

        Raises:
            ConfigurationError: an index with a configuration file of its own, what is not an id, an id of an item that
                comes from a file of the corpus, or the ids of everything that the index holds; then nothing is
                deleted.
        """
        wanted = checked_ids(ids)
        with self._exclusive("nothing can be deleted from it here"):
            return self._folder.delete(self.config, wanted)

    def index(self, source: str | Path | None = None, *, id: str | None = None) -> Report:
        """Adds files to the corpus, and updates the collection.

        Args:
            source: a file, a folder or a glob that joins the corpus; None adds nothing. Only an index in a
                folder of its own takes any: with a configuration file, that says what the corpus is. A string is a
                path wherever it can be one; it is added as a text only if it has a space or a line break, no slash,
                no suffix of a known format, and is not the name of a file. `add` accepts any text.
            id: makes `source` a text, whatever it looks like: `index(text, id=...)` is `add(text, id)`.

        Returns:
            The report of the sync.

        Raises:
            ConfigurationError: a path that does not exist, is empty, or holds this index itself.
            VecbeamError: what `sync` raises; if it refuses the corpus with the new files, they are taken out again.
        """
        if source is None:
            from pipelines.sync import sync

            return self._run(sync)
        if isinstance(source, str) and (id is not None or is_text(source)):
            return self.add(source, id)
        with self._exclusive("nothing can be added to it here"):
            return self._folder.add_path(source)

    def plan(self) -> Plan:
        """The plan of `index`."""
        from pipelines.plan import plan

        return plan(self.config, self._shown())

    def reindex(self, *, refit: bool = False) -> Report:
        """Builds a new collection for the current configuration, and moves the alias to it.

        Args:
            refit: fits the models again that are fitted on the corpus.
        """
        from pipelines.reindex import reindex

        return self._run(lambda config, progress: reindex(config, progress, refit=refit))

    def verify(self, *, repair: bool = False, quick: bool = False) -> Report:
        """Compares the collection with the checkpoint, row by row: all columns, or ids and hashes where it is quick."""
        from pipelines.verify import verify

        return self._run(lambda config, progress: verify(config, progress, repair=repair, quick=quick))

    def _run(self, command: Callable[[Config, Progress], Report]) -> Report:
        with self._writing:
            return command(self.config, self._shown())

    def _shown(self) -> Progress:
        from pipelines.run.progress import Progress

        return Progress(quiet=not self._progress)

    def _open(self) -> Searcher:
        """The open search, with the configuration as its file has it now."""
        from pipelines.steps.search.searcher import Searcher

        with self._changing:
            seen = _version(self._path)
            if self._searcher is None:
                self._searcher = Searcher(self.config, release=True)
            elif seen != self._seen:
                self._searcher.configure(self.config)
            self._seen = seen
            return self._searcher

    @contextmanager
    def _exclusive(self, refused: str) -> Iterator[None]:
        """Keeps other threads and processes off the files of an index in a folder of its own."""
        from filelock import FileLock

        if not self._owns:
            raise ConfigurationError(
                f"{self._path} says what the corpus is, so {refused}",
                "change the files that corpus.paths finds and call index(), or make an Index of a folder",
            )
        folder = self._path.parent.absolute()
        with self._writing:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".index.lock"):
                yield


def _version(path: Path) -> tuple[int, int, int]:
    """Facts that change with a file's content; cheap enough to read before each search."""
    try:
        status = path.stat()
    except OSError:
        return (0, 0, 0)
    return status.st_ino, status.st_mtime_ns, status.st_size
