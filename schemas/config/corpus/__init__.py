"""The section `corpus` and the sections in it."""

from schemas.config.corpus.corpus import Corpus, Pages
from schemas.config.corpus.csv_dialect import Csv
from schemas.config.corpus.item_id import HashedId
from schemas.config.corpus.metadata_columns import RESERVED_COLUMNS, MetadataField, suggested_column

__all__ = ["RESERVED_COLUMNS", "Corpus", "Csv", "HashedId", "MetadataField", "Pages", "suggested_column"]
