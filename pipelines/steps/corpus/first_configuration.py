"""The configuration of an `Index` that begins with what is added to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from schemas.modality import Modality

TEXTS = "texts.jsonl"
ENCODER: dict[str, Any] = {"model": "all-MiniLM-L6-v2", "precision": "float32"}
_MODELS = {Modality.AUDIO: "whisper-base"}
"""Where the first things are not texts: of recordings; `conse` embeds images, films and texts."""
_FOR_TEXTS = {"chunk": {"max_tokens": 256, "overlap_tokens": 32}, "encoder": ENCODER}
_TYPES: dict[type, str] = {bool: "bool", int: "int", float: "float", str: "string"}


def first_configuration(path: Path, given: list[Any], media: Collection[Modality] = ()) -> dict[str, Any]:
    """The configuration of an index that begins with texts, media files or both.

    Args:
        given: the texts.
        media: modalities of the files; the paths of the files are not in the configuration yet.
    """
    corpus: dict[str, Any] = {"paths": [TEXTS] if given or not media else [], "id": "id", "content": ["text"]}
    if metadata := _columns([record for record in given if isinstance(record, Mapping)]):
        corpus["metadata"] = metadata
    return {
        "name": index_name(path),
        "corpus": corpus,
        **({"encoder": {"model": _MODELS.get(min(media), "conse")}} if media else _FOR_TEXTS),
        "checkpoint": "checkpoint",
        "collection": {
            "uri": "./milvus.db",
            "metric": "COSINE",
            "index": {"type": "HNSW", "M": 16, "efConstruction": 200},
        },
    }


def index_name(path: Path) -> str:
    """A name for the collection, from that of the folder of a configuration."""
    name = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in path.absolute().parent.name)
    return (name if name[:1].isalpha() else f"index_{name}")[:100]


def _columns(records: list[Mapping[Any, Any]]) -> dict[str, str]:
    """The fields of records that can be columns, with their types."""
    found: dict[str, str] = {}
    for name in dict.fromkeys(name for record in records for name in record):
        values = [record[name] for record in records if record.get(name) is not None]
        kinds = {type(value) for value in values}
        kind = "float" if kinds == {int, float} else _TYPES.get(kinds.pop()) if len(kinds) == 1 else None
        if name not in ("id", "text") and isinstance(name, str) and kind and _is_column(name, kind, values):
            found[name] = kind
    return found


def _is_column(name: str, kind: str, values: list[Any]) -> bool:
    from schemas.config import Corpus, MetadataField

    try:
        corpus = Corpus.model_validate({"paths": [TEXTS], "metadata": {name: kind}})
    except ValueError:  # a reserved name, or none that Milvus takes
        return False
    field: MetadataField = corpus.metadata[name]
    return kind != "string" or all(len(value) <= field.max_bytes for value in values)
