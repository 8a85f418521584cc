"""The command line as a Python object: index something, search it.

from pipelines.index import Index

with Index("islands") as index:
    index.add(["Japan spans 6852 islands.", "Kenya is in East Africa."])
    hits = index.search("How many islands?")
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, overload

from pipelines.steps.collection.query import OneQuery, as_query
from pipelines.steps.collection.search_options import SearchKeywords, SearchOptions
from pipelines.steps.corpus.first_configuration import TEXTS, first_configuration, index_name
from pipelines.steps.corpus.given_media import is_one
from pipelines.steps.corpus.index_arguments import (
    as_lists,
    checked_ids,
    checked_path,
    checked_place,
    is_text,
    refuse_itself,
)
from schemas.config.loader import load_config, parse_config
from schemas.errors import ConfigurationError
from schemas.modality import Modality

if TYPE_CHECKING:
    from pipelines.explore.explorer import Explorer
    from pipelines.export import Exported
    from pipelines.run.progress import Progress
    from pipelines.steps.collection.searcher import Searcher
    from pipelines.steps.results.finding import Finding
    from schemas.alias_status import Status
    from schemas.config import Config
    from schemas.run_plan import Plan
    from schemas.run_report import Report

# Commands are imported when they are called: a process that only searches loads no Beam.

CONFIGURATION = "vecbeam.yaml"
log = logging.getLogger("vecbeam")


class Index:
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

    @property
    def explore(self) -> Explorer:
        """What the vectors tell: `index.explore.duplicates(above=0.95).table`, and the other commands of explore."""
        from pipelines.explore.explorer import Explorer

        return Explorer(lambda: self.config)

    def evaluate(self, **options: Any) -> Finding:
        """How good the answers to queries with known answers are; see `pipelines.evaluate.evaluate`."""
        from pipelines.evaluate import evaluate

        return evaluate(self.config, **options)

    def compare(self, old: Config | str = "", new: Config | str = "", **options: Any) -> Finding:
        """How the answers of two collections of this index differ, without labels; see `pipelines.compare.compare`.

        Args:
            old, new: names of collections, or other configurations. Without both, what `rollback` goes to is compared
                with what is served.
        """
        from pipelines.compare import compare

        return compare(old, new, **{"configs": [self.config]} | options)

    def train(self, pairs: str | Path, out: str | Path, **options: Any) -> Finding:
        """Trains a model on pairs, from the encoder of this index; see `pipelines.train.train`.

        The index does not use it before its configuration names it, and `reindex` ran.
        """
        from pipelines.train import train

        return train(pairs, out, None if options.get("model") else self.config, **options)

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
            return self._add(given, names)

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
            from pipelines.steps.collection.items_served import items_served
            from pipelines.steps.corpus.added_media import names_among, paths_of
            from pipelines.steps.corpus.added_texts import Texts, undone_if_refused

            config = self.config
            texts = Texts(self._texts, config.corpus)
            folder = self._path.absolute().parent
            files = names_among(folder, wanted)
            mine = texts.among(wanted) | files
            if others := items_served(config, wanted - mine):
                raise ConfigurationError(
                    f"{', '.join(map(repr, others[:5]))} came from a file of corpus.paths, not through add",
                    "remove it there and call index()",
                )
            with undone_if_refused(self._texts, self._path, *paths_of(folder, files)):
                if mine - files:
                    texts.remove(mine - files)
                for path in paths_of(folder, files):
                    path.unlink()
                return self._without_files(config, folder, len(mine))

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
            return self._add_path(source)

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

    def status(self) -> Status:
        """What is served, what the checkpoint has, and the last run; see `pipelines.status`."""
        from pipelines.status import status

        return status(self.config)

    def export(self, path: str | Path, **options: Any) -> Exported:
        """Writes the live rows as a file, or for TensorBoard; see `pipelines.export` for the options."""
        from pipelines.export import export

        return export(self.config, path, **options)

    def _run(self, command: Callable[[Config, Progress], Report]) -> Report:
        with self._writing:
            return command(self.config, self._shown())

    def _shown(self) -> Progress:
        from pipelines.run.progress import Progress

        return Progress(quiet=not self._progress)

    @property
    def _texts(self) -> Path:
        return self._path.parent / TEXTS

    def _open(self) -> Searcher:
        """The open search, with the configuration as its file has it now."""
        from pipelines.steps.collection.searcher import Searcher

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

    def _add(self, given: list[Any], ids: list[Any] | None) -> Report:
        from pipelines.init import write_values
        from pipelines.reindex import reindex
        from pipelines.steps.corpus.added_media import check_media, is_media, paths_of, write_media
        from pipelines.steps.corpus.added_texts import RefusedTextsError, Texts, check, undone_if_refused
        from pipelines.sync import sync
        from transforms.encoders.models import Models

        placed = list(enumerate(given))
        texts = [one for one in placed if not is_media(one[1])]
        media = check_media([one for one in placed if is_media(one[1])], ids)
        folder = self._path.absolute().parent
        before = None
        if self._path.exists():
            before = self.config
            values = self._values()
        else:
            values = first_configuration(self._path, [text for _, text in texts], media.modalities)
        values["corpus"]["paths"] = self._with_globs(values["corpus"]["paths"], media.globs, has_texts=bool(texts))
        if not values["corpus"]["paths"]:
            raise RefusedTextsError.of(media.refused, len(given), "items")
        config = parse_config(values, source="add", folder=folder)
        self._check_takes_texts(config, ids)
        checked = check(texts, ids, config, Models.of(config))
        if texts and not checked.lines and not self._texts.exists():
            # It would match no file.
            values["corpus"]["paths"] = [path for path in values["corpus"]["paths"] if path != TEXTS]
            config = parse_config(values, source="add", folder=folder) if media.files else config
        refused = sorted([*checked.refused, *media.refused], key=lambda one: one.position)
        noun = "items" if len(texts) < len(given) else "texts"
        refusal = RefusedTextsError.of(refused, len(given), noun) if refused else None
        if refusal is not None and not (checked.lines or media.files):
            raise refusal
        if checked.unknown:
            log.warning(
                "corpus.metadata of %s does not name %s: kept in %s, no column of the collection",
                self._path,
                ", ".join(sorted(checked.unknown)),
                TEXTS,
            )
        with undone_if_refused(self._texts, self._path, *paths_of(folder, media.files)):
            if checked.lines:
                Texts(self._texts, config.corpus).replace(checked.lines)
            write_media(folder, media.files)
            if before is None or before.corpus.paths != config.corpus.paths:
                write_values(self._path, values)
            # Other modalities are other columns, and so another collection.
            is_same = before is None or before.corpus.modality is config.corpus.modality
            report = (sync if is_same else reindex)(self.config, self._shown())
        if refusal is not None:
            refusal.report = report
            raise refusal
        return report

    def _check_takes_texts(self, config: Config, ids: list[Any] | None) -> None:
        if config.corpus.format not in (None, "jsonl"):
            raise ConfigurationError(
                f"corpus.format of {self._path} is {config.corpus.format}, and texts are kept as jsonl",
                "leave corpus.format out where the suffixes tell",
            )
        if config.corpus.modality is Modality.RECORD:
            raise ConfigurationError(
                f"{self._path} embeds texts and media of records, and a text has no media",
                f"write records into a file that corpus.paths of {self._path} matches, and run vecbeam sync",
            )
        if ids is not None and not isinstance(config.corpus.id, str):
            raise ConfigurationError(
                f"{self._path} makes ids from the fields {', '.join(config.corpus.id_fields)}", "add texts without ids"
            )

    def _values(self) -> dict[str, Any]:
        """The configuration as it is written."""
        import yaml

        values: dict[str, Any] = yaml.safe_load(self._path.read_text(encoding="utf-8"))
        paths = values["corpus"]["paths"]
        values["corpus"]["paths"] = [paths] if isinstance(paths, str) else paths
        return values

    def _with_globs(self, paths: list[str], globs: list[str], *, has_texts: bool) -> list[str]:
        """The paths of a corpus that takes in the file of texts and media files, as far as there are some."""
        there = self.config.corpus.paths if self._path.exists() else paths
        needed = [TEXTS] if has_texts and TEXTS not in paths and not any(map(self._is_of_texts, there)) else []
        return [*paths, *(path for path in [*needed, *globs] if path not in paths)]

    def _is_of_texts(self, pattern: str) -> bool:
        """Whether a glob of the corpus matches the file of texts."""
        from schemas.glob import Glob

        return Glob(pattern).matches(str(self._texts.absolute()))

    def _without_files(self, config: Config, folder: Path, deleted: int) -> Report:
        """Updates the collection after items were removed; a path that matches no file any more would be a reject."""
        from pipelines.reindex import reindex
        from pipelines.steps.corpus.added_media import unmatched
        from pipelines.sync import sync

        written = self._values()["corpus"]["paths"]
        gone = unmatched(folder, written)
        has_no_texts = self._texts.exists() and not self._texts.stat().st_size
        if has_no_texts:
            gone += [path for path, whole in zip(written, config.corpus.paths, strict=True) if self._is_of_texts(whole)]
        if not set(written) - set(gone):
            raise ConfigurationError(
                f"these are all the items of {self._path.parent}, and a collection without rows can't be published",
                "add others first, or delete the folder to start from nothing",
            )
        if gone:
            if has_no_texts:
                self._texts.unlink()
            self._change_paths([], without=[TEXTS, str(self._texts.absolute()), *unmatched(folder, written)])
        now = _allowing(self.config, deleted)
        # Other modalities are other columns, and so another collection.
        is_same = now.corpus.modality is config.corpus.modality
        return (sync if is_same else reindex)(now, self._shown())

    def _add_path(self, source: str | Path) -> Report:
        from pipelines.init import propose, write_values
        from pipelines.steps.corpus.added_texts import undone_if_refused
        from pipelines.sync import sync

        where = checked_path(source)
        refuse_itself(self._path.parent.absolute(), where)
        values, _ = propose([where], self._path, index_name(self._path))
        for pattern in values["corpus"]["paths"]:
            refuse_itself(self._path.parent.absolute(), pattern)
        with undone_if_refused(self._path):
            if self._path.exists():
                self._change_paths(values["corpus"]["paths"])
            else:
                write_values(self._path, values)
            return sync(self.config, self._shown())

    def _change_paths(self, more: list[str], without: Sequence[str] = ()) -> None:
        from pipelines.init import write_values

        values = self._values()
        kept = [path for path in values["corpus"]["paths"] if path not in without]
        values["corpus"]["paths"] = [*kept, *(path for path in more if path not in kept)]
        write_values(self._path, values)


def _version(path: Path) -> tuple[int, int, int]:
    """Facts that change with a file's content; cheap enough to read before each search."""
    try:
        status = path.stat()
    except OSError:
        return (0, 0, 0)
    return status.st_ino, status.st_mtime_ns, status.st_size


def _allowing(config: Config, deleted: int) -> Config:
    """A configuration whose corpus.max_deleted allows so many items to be deleted, if it does not anyway."""
    from pipelines.steps.corpus.source import open_checkpoint

    snapshot = open_checkpoint(config)[0].current_snapshot()
    items = snapshot.total("items") if snapshot is not None else 0
    share = min(1.0, (deleted + 0.5) / items) if items else 1.0
    most = max(config.corpus.max_deleted, share)
    return config.model_copy(update={"corpus": config.corpus.model_copy(update={"max_deleted": most})})
