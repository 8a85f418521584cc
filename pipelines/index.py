"""The command line as a Python object: index something, search it.

from pipelines.index import Index
Index("vecbeam.yaml").search("How many islands?")
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from pipelines.init import propose, write_values
from pipelines.plan import plan
from pipelines.progress import Progress
from pipelines.reindex import reindex
from pipelines.search import search
from pipelines.sync import sync
from pipelines.verify import verify
from schemas.config import Config
from schemas.errors import ConfigurationError
from schemas.identity import content_hash
from schemas.plan import Plan
from schemas.report import Report
from schemas.settings import load_config
from transforms import filesystem
from transforms.read.listing import FORMAT_OF_SUFFIX

CONFIGURATION = "vecbeam.yaml"
TEXTS = "texts.jsonl"


class Index:
    """A corpus and its collection, under one configuration.

    Args:
        where: a configuration file; or a folder, which need not exist: then `index` writes the configuration into it,
            and checkpoint and Milvus Lite lie there too.
        progress: shows progress on standard error.

    Raises:
        ConfigurationError: for a configuration that is wrong.
    """

    def __init__(self, where: str | Path = "vecbeam_index", *, progress: bool = False) -> None:
        path = Path(where)
        self._path = path if path.suffix in (".yaml", ".yml") else path / CONFIGURATION
        self._owns = self._path is not path
        self._progress = progress
        if not self._owns or self._path.exists():
            load_config(self._path)

    @property
    def config(self) -> Config:
        """The configuration as it is now.

        Raises:
            ConfigurationError: where there is none yet.
        """
        return load_config(self._path)

    def index(self, source: str | Path | None = None, *, id: str | None = None) -> Report:
        """Brings the collection in step with the corpus, after adding something to it.

        Args:
            source: a path or glob of files, or a text; None adds nothing. Only an index in a folder of its own takes
                any: with a configuration file, that says what the corpus is.
            id: of a text, which replaces an earlier one of that id; without it one made of the text's hash.

        Returns:
            The report of the sync.
        """
        if source is not None:
            self._add(source, id)
        return sync(self.config, self._shown())

    def search(self, query: str, k: int = 10, *, filter: str = "") -> list[dict[str, Any]]:
        """The `k` rows nearest to a text, best first: a dict a row, with score, id, item_id, text and the fields."""
        return search(self.config, query, k=k, filter_expression=filter)

    def plan(self) -> Plan:
        """What `index` would do."""
        return plan(self.config, self._shown())

    def reindex(self) -> Report:
        """Builds another collection beside the served one, as the configuration asks for now."""
        return reindex(self.config, self._shown())

    def verify(self, *, repair: bool = False, quick: bool = False) -> Report:
        """Compares the collection with the checkpoint, row by row: all columns, or ids and hashes where it is quick."""
        return verify(self.config, self._shown(), repair=repair, quick=quick)

    def _shown(self) -> Progress:
        return Progress(quiet=not self._progress)

    def _add(self, source: str | Path, item_id: str | None) -> None:
        if not self._owns:
            raise ConfigurationError(
                f"{self._path} says what the corpus is, so nothing can be added to it here",
                "put files where corpus.paths finds them and call index(), or make an Index of a folder",
            )
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if item_id is None and (isinstance(source, Path) or _is_path(source)):
            self._add_path(str(source))
        else:
            self._add_text(str(source), item_id)

    def _add_path(self, source: str) -> None:
        where = str(Path(source).absolute()) if filesystem.is_local(source) else source
        values, _ = propose([where], self._path, _name(self._path))
        if self._path.exists():
            found = values["corpus"]["paths"]
            values = yaml.safe_load(self._path.read_text(encoding="utf-8"))
            values["corpus"]["paths"] += [path for path in found if path not in values["corpus"]["paths"]]
        write_values(self._path, values)

    def _add_text(self, text: str, item_id: str | None) -> None:
        texts = self._path.parent / TEXTS
        rows = [json.loads(line) for line in texts.read_text().splitlines()] if texts.exists() else []
        row = {"id": item_id or f"text-{content_hash(text)}", "text": text}
        rows = [old for old in rows if old["id"] != row["id"]] + [row]
        data = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in rows)
        filesystem.write_atomic(str(texts.absolute()), data.encode())
        self._add_path(str(texts))


def _name(path: Path) -> str:
    name = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in path.absolute().parent.name)
    return name if name[:1].isalpha() else f"index_{name}"


def _is_path(source: str) -> bool:
    """Whether a string is meant as a path: it is one that exists, a URI, or a glob that ends in a known suffix."""
    if "\n" in source or len(source) > 1000:
        return False
    if "://" in source and " " not in source:
        return True
    try:
        if Path(source).exists():
            return True
    except OSError:
        return False
    return " " not in source and any(source.lower().endswith(suffix) for suffix in FORMAT_OF_SUFFIX)
