"""Digests of what determines rows: the settings, and the files with the settings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel

from schemas.config import ChunkConfig, Config, Corpus
from schemas.glob import Glob
from schemas.identity import digest, digest_bytes
from schemas.item_inputs import facts
from schemas.modality import Modality
from schemas.records import SCHEMA_VERSION
from transforms.checkpoint import Snapshot
from transforms.encoders.models import Models
from transforms.read.item import partitions_of
from transforms.read.listing import upgrade
from transforms.support.storage import spill

_TOUCHES_NO_ROW = {"paths", "shard_bytes", "max_deleted"}
_ALWAYS_IN_DIGEST = {
    *("format", "id", "content", "metadata", "on_duplicate"),
    *("type", "max_bytes"),
    *("max_tokens", "overlap_tokens"),
}
"""Keys of version 0.1.0. Each later key counts only where it is set, so that an upgrade changes no digest."""


def settings_digest(config: Config, models: Models) -> str:
    """Digest of the settings that determine rows."""
    exclude = dict.fromkeys(_TOUCHES_NO_ROW, True) | {"metadata": {"__all__": {"default"}}}
    corpus = config.corpus.model_dump(exclude=exclude)
    corpus["metadata"] = {
        name: _set_keys(field, type(config.corpus.metadata[name])) for name, field in corpus["metadata"].items()
    }
    settings = [
        SCHEMA_VERSION,
        models.space.id,
        _set_keys(corpus, Corpus),
        _set_keys(config.chunk.model_dump(), ChunkConfig) if config.chunk else False,
        config.collection.id_max_bytes,
    ]
    if any(field.partition is not None for field in config.corpus.metadata.values()):
        # Folders above the glob's root are not in the paths of the listing, and may be partitions.
        settings.append([partitions_of(Glob(path).root) for path in config.corpus.paths])
    if config.corpus.modality is not Modality.TEXT:
        settings.append(str(config.corpus.modality))  # the columns of a row, whatever the paths are
    if config.inputs:
        settings.append({"inputs": facts(config.inputs)})
    return digest(settings, 32)


def _set_keys(values: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """The values without later keys that have their default."""
    defaults = {
        field.alias or name: field.get_default(call_default_factory=True, validated_data={})
        for name, field in model.model_fields.items()
        if not field.is_required()
    }
    return {
        key: value
        for key, value in values.items()
        if key in _ALWAYS_IN_DIGEST or key not in defaults or value != _plain(defaults[key])
    }


def _plain(value: Any) -> Any:
    return value.model_dump() if isinstance(value, BaseModel) else value


def digest_of(settings_digest: str, files: pa.Table) -> str:
    """What `schemas.identity.digest` makes of the settings' digest and the list of files, a piece at a time.

    Args:
        files: columns name, size, modified, version and by_later_rules. A version that is not known is left out, so
            that local files and those of earlier releases have the digest that they had.
    """

    def described() -> Iterator[bytes]:
        yield f"[{json.dumps(settings_digest)},[".encode()
        for number, piece in enumerate(spill.pieces(files)):
            columns = [column.to_pylist() for column in piece.columns]
            rows = [
                (*row, *([version] if version else []), *([upgrade.RULES] if later else []))
                for *row, version, later in zip(*columns, strict=True)
            ]
            text = json.dumps(rows, separators=(",", ":"), ensure_ascii=True)
            yield f"{',' if number else ''}{text[1:-1]}".encode()
        yield b"]]"

    return digest_bytes(described(), 32)


def read_by_first_rules(base: Snapshot) -> bool:
    """Whether a snapshot is of version 0.1.0, or of a corpus that it read as this version does."""
    files = base.files.select(["path", "size", "modified", "version"])
    files = files.append_column("by_later_rules", pa.array(np.zeros(files.num_rows, bool)))
    return base.corpus_digest == digest_of(base.settings_digest, files)
