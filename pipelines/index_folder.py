"""The files of an `Index` in a folder of its own: the configuration that it writes, texts and media."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.steps.corpus.first_configuration import TEXTS, first_configuration, index_name
from pipelines.steps.corpus.index_arguments import checked_path, refuse_itself
from schemas.config.loader import load_config, parse_config
from schemas.errors import ConfigurationError
from schemas.modality import Modality

if TYPE_CHECKING:
    from pipelines.run.progress import Progress
    from schemas.config import Config
    from schemas.run_report import Report

# Commands are imported when they are called, as in `pipelines.index`.

log = logging.getLogger("vecbeam")


class IndexFolder:
    """What an index in a folder of its own adds to its corpus and removes from it; each change ends with a sync.

    Args:
        path: of the configuration, which need not exist before something is added.
        shown: makes what shows the progress of a run.
    """

    def __init__(self, path: Path, shown: Callable[[], Progress]) -> None:
        self._path = path
        self._shown = shown

    @property
    def config(self) -> Config:
        """The configuration as it is now."""
        return load_config(self._path)

    @property
    def _texts(self) -> Path:
        return self._path.parent / TEXTS

    def delete(self, config: Config, wanted: set[str]) -> Report:
        """Deletes texts and media that were added; see `Index.delete`.

        Args:
            config: as it is before.
            wanted: ids of items.
        """
        from pipelines.steps.collection.items_served import items_served
        from pipelines.steps.corpus.added_media import names_among, paths_of
        from pipelines.steps.corpus.added_texts import Texts, undone_if_refused

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

    def add(self, given: list[Any], ids: list[Any] | None) -> Report:
        """Adds texts, records and media; see `Index.add`."""
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

    def add_path(self, source: str | Path) -> Report:
        """Adds files to the corpus; see `Index.index`."""
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


def _allowing(config: Config, deleted: int) -> Config:
    """A configuration whose corpus.max_deleted allows so many items to be deleted, if it does not anyway."""
    from pipelines.steps.corpus.source import open_checkpoint

    snapshot = open_checkpoint(config)[0].current_snapshot()
    items = snapshot.total("items") if snapshot is not None else 0
    share = min(1.0, (deleted + 0.5) / items) if items else 1.0
    most = max(config.corpus.max_deleted, share)
    return config.model_copy(update={"corpus": config.corpus.model_copy(update={"max_deleted": most})})
