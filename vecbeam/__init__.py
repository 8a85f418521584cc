"""vecbeam as a library: the commands as functions, an index as an object, and the steps as Beam transforms.

Names are imported when they are first used: `import vecbeam` loads neither Beam nor torch nor pymilvus, and changes
nothing in its process. They come from the packages `schemas`, `transforms` and `pipelines` next to this one: where
others of these names come first on Python's path, nothing is imported and an ImportError names them.

>>> import vecbeam
>>> vecbeam.Key("docs-0000", 3)
Key(shard='docs-0000', ordinal=3)
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.backfill import backfill
    from pipelines.compare import compare
    from pipelines.doctor import doctor
    from pipelines.evaluate import evaluate
    from pipelines.export import export
    from pipelines.gc import gc
    from pipelines.index import Index
    from pipelines.load import load
    from pipelines.plan import plan
    from pipelines.reindex import reindex
    from pipelines.replay import replay
    from pipelines.report import report
    from pipelines.rollback import rollback
    from pipelines.search import search
    from pipelines.serve import serve
    from pipelines.status import status
    from pipelines.steps.search.queries.history_file import read_history
    from pipelines.steps.search.queries.query import LikeQuery, MediaQuery, PreferenceQuery
    from pipelines.sync import sync
    from pipelines.train import train, train_items
    from pipelines.verify import verify
    from schemas.config import Config
    from schemas.config.loader import load_config, parse_config
    from schemas.errors import VecbeamError
    from schemas.records import Key
    from transforms.embed.embed_chunks import Embed
    from transforms.embed.public.chunk_items import Chunk
    from transforms.embed.public.items_from_records import ItemsFromRecords
    from transforms.embed.public.read_items import ReadItems
    from transforms.embed.public.write_parts import WriteParts, WriteRejects
    from transforms.load.upsert_parts import UpsertParts

    __version__: str

__all__ = [
    "Chunk",
    "Config",
    "Embed",
    "Index",
    "ItemsFromRecords",
    "Key",
    "LikeQuery",
    "MediaQuery",
    "PreferenceQuery",
    "ReadItems",
    "UpsertParts",
    "VecbeamError",
    "WriteParts",
    "WriteRejects",
    "__version__",
    "backfill",
    "compare",
    "doctor",
    "evaluate",
    "export",
    "gc",
    "load",
    "load_config",
    "parse_config",
    "plan",
    "read_history",
    "reindex",
    "replay",
    "report",
    "rollback",
    "search",
    "serve",
    "status",
    "sync",
    "train",
    "train_items",
    "verify",
]

_MODULES = {
    "Chunk": "transforms.embed.public.chunk_items",
    "Config": "schemas.config",
    "Embed": "transforms.embed.embed_chunks",
    "Index": "pipelines.index",
    "ItemsFromRecords": "transforms.embed.public.items_from_records",
    "Key": "schemas.records",
    "LikeQuery": "pipelines.steps.search.queries.query",
    "MediaQuery": "pipelines.steps.search.queries.query",
    "PreferenceQuery": "pipelines.steps.search.queries.query",
    "ReadItems": "transforms.embed.public.read_items",
    "UpsertParts": "transforms.load.upsert_parts",
    "VecbeamError": "schemas.errors",
    "WriteParts": "transforms.embed.public.write_parts",
    "WriteRejects": "transforms.embed.public.write_parts",
    "train_items": "pipelines.train",
    "load_config": "schemas.config.loader",
    "parse_config": "schemas.config.loader",
    "read_history": "pipelines.steps.search.queries.history_file",
    **{
        name: f"pipelines.{name}"
        for name in (
            "backfill",
            "compare",
            "doctor",
            "evaluate",
            "export",
            "gc",
            "load",
            "plan",
            "reindex",
            "replay",
            "report",
            "rollback",
            "search",
            "serve",
            "status",
            "sync",
            "train",
            "verify",
        )
    },
}
"""Where each name is defined."""


HOME = Path(__file__).resolve().parents[1]
"""The folder that vecbeam is installed in."""


def hidden(names: tuple[str, ...] = ("schemas", "transforms", "pipelines")) -> str:
    """Why packages of vecbeam can't be imported: what hides them, and what to do; "" where nothing does."""
    for name in names:
        loaded = sys.modules.get(name)
        spec = find_spec(name) if loaded is None else getattr(loaded, "__spec__", None)
        place = getattr(spec, "origin", None) or next(
            iter(getattr(spec, "submodule_search_locations", None) or ()), None
        )
        if place is None or Path(place).resolve().parents[1] != HOME:
            return (
                f"{place or f'a module {name}'} hides the package {name} of vecbeam in {HOME}: rename it, or start "
                "Python with -P (PYTHONSAFEPATH=1), so that it searches neither the script's folder nor this one"
            )
    return ""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("vecbeam")
    elif name in _MODULES:
        if why := hidden():
            raise ImportError(why)
        value = getattr(import_module(_MODULES[name]), name)
    else:
        raise AttributeError(f"module 'vecbeam' has no attribute {name!r}; it has {', '.join(__all__)}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
