"""The sections `collection` and `verify`: where the rows go, their index, and what they must pass."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import ConfigDict, Field, PrivateAttr, field_validator, model_validator

from schemas import milvus
from schemas.config.base import Section, Text
from schemas.config.zilliz import Zilliz

SERVER_WRITERS = 8
"""Parts that are written to a server at once where `writers` is not set."""
MOST_WRITERS = 1024
_ZILLIZ_HOST = re.compile(
    r"https?://((?P<cluster>in\d\d-\w+)\.)?[^/:]*\.(zillizcloud|cloud\.zilliz)\.com(\.cn)?(:\d+)?(/|$)", re.IGNORECASE
)


class IndexConfig(Section):
    """The vector index. Parameters are keys next to the type: {type: HNSW, M: 16, efConstruction: 200}."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    type: Literal["AUTOINDEX", "FLAT", "HNSW", "IVF_FLAT", "IVF_SQ8"] = Field("HNSW", description="Milvus index type")

    @property
    def parameters(self) -> dict[str, int]:
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _parameters_fit(self) -> IndexConfig:
        milvus.check_index_parameters(self.type, self.parameters)
        return self


class AutoIndex(Section):
    """An index that vecbeam chooses by measurement. `index: auto` is short for {type: auto}."""

    type: Literal["auto"] = Field("auto", description="vecbeam chooses type and parameters")
    recall_at_10: float | None = Field(
        None, gt=0, le=1, description="Least recall@10 of the index; by default `verify.recall_at_10`"
    )
    memory_gb: float | None = Field(None, gt=0, description="Most memory of the index in Milvus, in GB of 10^9 bytes")
    filters: list[Text] = Field(
        default_factory=list, description="Milvus expressions under which the recall must be reached too"
    )

    @property
    def parameters(self) -> dict[str, int]:
        return {}


class Collection(Section):
    uri: Text = Field(
        description="A path ending in .db: Milvus Lite, embedded; or http(s)://host:19530, token from MILVUS_TOKEN"
    )
    database: Text | None = Field(None, description="Database of a Milvus server")
    metric: Literal["COSINE", "IP", "L2"] = Field("COSINE", description="Metric of the vector index")
    index: IndexConfig | AutoIndex = Field(
        default_factory=lambda: IndexConfig(type="HNSW"),
        description="Type and build parameters; `auto`, or {type: auto, ...}, chooses them by measurement",
    )
    search: dict[str, int] = Field(
        default_factory=dict, description="Search parameters of the index type, e.g. {ef: 64} or {nprobe: 16}"
    )
    id_max_bytes: int = Field(
        512, ge=16, le=65535, description="Longest row id in UTF-8 bytes; vecbeam rejects longer ones"
    )
    message_bytes: int = Field(
        16 << 20, ge=65536, le=64 << 20, description="Most bytes per upsert message (servers refuse more than 64 MiB)"
    )
    message_rows: int = Field(2000, ge=1, le=16384, description="Most rows per upsert message")
    load: Literal["upsert", "import"] = Field(
        "upsert",
        description="How vecbeam fills a new collection: upsert sends rows; import lets the server read the parts, "
        "from its own disk or its own bucket, or Zilliz Cloud from yours (see zilliz). vecbeam upserts later changes",
    )
    zilliz: Zilliz | None = Field(None, description="How Zilliz Cloud imports the parts, with load: import")
    writers: int | None = Field(
        None,
        description="Most parts that a job writes to Milvus at the same time, over all its workers; by default 8 for a "
        "server and 1 for Milvus Lite",
    )
    timeout_s: float = Field(60.0, gt=0, description="Timeout of one call to Milvus, in seconds")
    retry_s: float = Field(120.0, ge=0, description="Seconds for which vecbeam retries calls that fail temporarily")
    _promise: AutoIndex | None = PrivateAttr(None)

    @field_validator("index", mode="before")
    @classmethod
    def _either(cls, value: object) -> object:
        """`auto` or a mapping, as the one model that its type means: so errors name the keys of that one alone."""
        if value == "auto":
            return AutoIndex(type="auto")
        if isinstance(value, dict):
            return (AutoIndex if value.get("type") == "auto" else IndexConfig).model_validate(value)
        if not isinstance(value, (IndexConfig, AutoIndex)):
            raise ValueError(f"{value!r} is neither auto nor a mapping with a type, as in {{type: HNSW, M: 16}}")
        return value

    @field_validator("writers")
    @classmethod
    def _some_writers(cls, value: int | None) -> int | None:
        if value is not None and not 1 <= value <= MOST_WRITERS:
            raise ValueError(
                f"{value} is not a number of writers from 1 to {MOST_WRITERS}; without the key a server gets "
                f"{SERVER_WRITERS}"
            )
        return value

    @field_validator("uri")
    @classmethod
    def _no_secret(cls, value: str) -> str:
        if re.match(r"^https?://[^/]*@", value):
            raise ValueError("carries a user or password; put them into the environment: MILVUS_TOKEN=user:password")
        if not re.match(r"^(https?://[^/]+|[^:]+\.db/?)$", value):
            raise ValueError(f"{value!r} is neither a path that ends in .db (Milvus Lite) nor http(s)://host:port")
        return value

    @property
    def promise(self) -> AutoIndex | None:
        """What an index must keep that vecbeam chooses, or has chosen; None for one that the configuration names."""
        return self.index if isinstance(self.index, AutoIndex) else self._promise

    def with_chosen(self, index: IndexConfig, search: dict[str, int]) -> Collection:
        """The section with the index that vecbeam has chosen, and its search parameters."""
        chosen = self.model_copy(update={"index": index, "search": search})
        chosen._promise = self.promise
        return chosen

    @property
    def most_writers(self) -> int:
        """Most parts that a job writes at the same time."""
        return 1 if self.is_lite else (self.writers or SERVER_WRITERS)

    @property
    def is_lite(self) -> bool:
        return not self.uri.startswith(("http://", "https://"))

    @model_validator(mode="after")
    def _search_fits(self) -> Collection:
        if isinstance(self.index, AutoIndex):
            if self.search:
                raise ValueError("search is chosen with index: auto: remove collection.search")
        else:
            milvus.check_search_parameters(self.index.type, self.search)
        if self.is_lite and (self.writers or 1) > 1:
            raise ValueError(f"writers is {self.writers}, and Milvus Lite takes one writer: remove it, or use a server")
        if self.zilliz is not None and self.load != "import":
            raise ValueError("zilliz says how Zilliz Cloud imports: set load: import, or remove it")
        if self.load == "import" and self.zilliz is None and (cloud := _ZILLIZ_HOST.match(self.uri)):
            shown = cloud["cluster"] or "in01-0123456789abcde"
            raise ValueError(f"Zilliz Cloud imports through its REST API alone: set zilliz: {{cluster_id: {shown}}}")
        if self.load == "import" and self.is_lite:
            raise ValueError("load import needs a Milvus server, Milvus Lite has no bulk import: set load: upsert")
        return self


class Verify(Section):
    recall_at_10: float = Field(
        0.95, ge=0, le=1, description="Smallest recall@10 against exact search with which the gate passes"
    )
    sample: int = Field(
        100, ge=1, le=10000, description="Number of rows that vecbeam searches the neighbours of to measure recall"
    )
    max_rejected: float = Field(0.01, ge=0, le=1, description="Most rejects as a share of the items read")
    max_dropped_tokens: float = Field(0.05, ge=0, le=1, description="Most tokens dropped as a share of all tokens")
    max_duplicates: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Most near duplicates of other rows, as a share of the rows; see docs/guides/explore.md",
    )
    duplicates_above: float = Field(0.95, gt=0, le=1, description="Least cosine of near duplicates")
    max_outliers: float | None = Field(None, ge=0, le=1, description="Most outliers, as a share of the rows")
    max_drift: float | None = Field(
        None,
        ge=0.5,
        le=1,
        description="Largest AUC with which a classifier tells new rows from those that are served; 0.5 is chance",
    )
    queries: Text | None = Field(
        None, description="File of queries whose answers the gate measures; see docs/guides/evaluate.md"
    )
    truth: Text | None = Field(None, description="File with the grades of items for these queries")
    ndcg_at_10: float | None = Field(None, ge=0, le=1, description="Smallest nDCG@10 with which the gate passes")
    max_loss: float | None = Field(
        None, ge=0, le=1, description="By how much nDCG@10 may fall against what is served, query by query"
    )
    on_too_few: Literal["pass", "fail"] = Field(
        "pass", description="What the gate does if it can't tell whether more than max_loss is lost"
    )

    @model_validator(mode="after")
    def _queries_and_truth(self) -> Verify:
        if (self.queries is None) != (self.truth is None):
            there, missing = ("truth", "queries") if self.queries is None else ("queries", "truth")
            raise ValueError(f"{there} is set and {missing} is missing; name both files")
        limits = [name for name in ("ndcg_at_10", "max_loss") if getattr(self, name) is not None]
        if limits and self.queries is None:
            raise ValueError(f"{limits[0]} needs queries and truth; name both files, or remove it")
        if self.queries is not None and not limits:
            raise ValueError("queries need a limit; set ndcg_at_10, max_loss or both")
        return self
