"""The configuration file: pydantic models of the YAML. Every mistake is refused here, before anything is read."""

from schemas.config.chunk import ChunkConfig
from schemas.config.collection import AutoIndex, Collection, IndexConfig, Verify
from schemas.config.configuration import Config
from schemas.config.corpus import (
    RESERVED_COLUMNS,
    Corpus,
    Csv,
    HashedId,
    MetadataField,
    Pages,
    suggested_column,
)
from schemas.config.encoder import EmbeddingServer, EncoderConfig
from schemas.config.fit import FitConfig
from schemas.config.runner import Cost, Runner
from schemas.config.zilliz import Zilliz

__all__ = [
    "RESERVED_COLUMNS",
    "AutoIndex",
    "ChunkConfig",
    "Collection",
    "Config",
    "Corpus",
    "Cost",
    "Csv",
    "EmbeddingServer",
    "EncoderConfig",
    "FitConfig",
    "HashedId",
    "IndexConfig",
    "MetadataField",
    "Pages",
    "Runner",
    "Verify",
    "Zilliz",
    "suggested_column",
]
