"""The report that each run leaves in the checkpoint and prints with --json."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from schemas.modality import Modality
from schemas.run_amounts import Bytes, Chunks, Items, Rates, Seconds, Sound, Tokens

FORMAT_VERSION = 2
"""Version of the report as JSON. Reports without one are of version 1: there `error` is text."""

CHANGING = frozenset({"backfill", "sync", "reindex", "load", "replay", "rollback", "gc"})
"""Commands that can change data; of a report without `could_change`, the command tells it."""


LOAD_AND_VERIFY = "load and verify"
"""Step of one job on other machines that loads a collection, builds its index and compares it."""


class Fit(BaseModel):
    """A model that the run fitted on the corpus.

    Attributes:
        vector: which vector it makes.
        items, terms: that it was fitted on, and that it knows.
        seconds: of the fit, without reading the sample.
    """

    vector: str
    model: str
    items: int
    terms: int
    dimensions: int
    seconds: float


class Loss(BaseModel):
    """What int8 costs on the texts that it takes its ranges from, against float32.

    Attributes:
        texts: how many.
        cosine_mean, cosine_min: to the float32 vectors.
        neighbours_kept: share of each text's ten nearest texts that are still among them.
    """

    texts: int
    cosine_mean: float
    cosine_min: float
    neighbours_kept: float


class Verification(BaseModel):
    """Collection against snapshot, in rows; `recall_at_10` is null if it was not measured.

    Attributes:
        stale: rows whose content hash differs.
        damaged: rows whose hash is right, and which differ in another column.
        columns: of the damaged rows, how many differ in each column.
        compared: what was compared: all columns; ids and hashes; sampled, which is all columns of what the run wrote
            and of some other rows; "" where nothing was.
        recalls: of each vector, by its name, where rows have several; `recall_at_10` is the least of them.
    """

    expected: int = 0
    found: int = 0
    missing: int = 0
    unexpected: int = 0
    stale: int = 0
    damaged: int = 0
    columns: dict[str, int] = Field(default_factory=dict)
    compared: str = ""
    recall_at_10: float | None = None
    recalls: dict[str, float] = Field(default_factory=dict)
    published: bool = False
    index_chosen: str = Field("", description="The index that vecbeam chose, in words, with its recall@10")
    promise: str = Field("", description="recall@10 that `verify` found for what `index: auto` promises, in words")


class MeasuredIndex(BaseModel):
    """The recall of an index that a run measured.

    Attributes:
        vector: "" where an index was measured for all vectors.
        type, parameters, search: the index, and how it was searched.
        unseen_at_10: what queries that are not rows of the collection find, where `index: auto` needs it.
        rows: that it was measured on.
        of: "sample", with faiss, to choose an index; or "collection", in Milvus.
        filter: of the searches.
    """

    vector: str = ""
    type: str
    parameters: dict[str, int | float] = Field(default_factory=dict)
    search: dict[str, int] = Field(default_factory=dict)
    recall_at_10: float
    unseen_at_10: float | None = None
    rows: int = 0
    of: str = "collection"
    filter: str = ""


class VectorFindings(BaseModel):
    """What the vectors of the snapshot are like, where `verify` limits it; what was not measured is null.

    Attributes:
        rows, rows_seen: of the snapshot, and of the sample that was compared.
        duplicates, outliers: shares of the rows seen.
        drift: AUC of a classifier that tells new items from those that are served, with its 95% interval.
        new_items: that it was measured on.
        reason: why the drift was not measured.
    """

    rows: int = 0
    rows_seen: int = 0
    duplicates: float | None = None
    outliers: float | None = None
    drift: float | None = None
    drift_low: float | None = None
    drift_high: float | None = None
    new_items: int = 0
    reason: str = ""


class Quality(BaseModel):
    """The answers to `verify.queries`, by exact search over the snapshot's vectors.

    Attributes:
        low, high: the 95% interval of `ndcg_at_10`; null for one query.
        served: nDCG@10 of what is served, with the same queries; null where it was not compared with.
        difference: to that, with its 95% interval, null with fewer than ten queries; and the queries won and lost.
        verdict: passed, worse, too few queries to tell, or not known; "" where nothing is compared.
        reason: why it is not known.
    """

    queries: int
    ndcg_at_10: float
    low: float | None = None
    high: float | None = None
    served: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    won: int = 0
    lost: int = 0
    verdict: str = ""
    reason: str = ""


class Expected(BaseModel):
    """What the run expected before it embedded, next to the facts in the rest of the report.

    Chunks and tokens come from a sample; seconds from an earlier run, and are null if there was none.
    """

    items: dict[str, int] = Field(default_factory=dict)
    chunks: int = 0
    tokens: int = 0
    embed_seconds: float | None = None


class Failure(BaseModel):
    """The error that a run ended with."""

    model_config = ConfigDict(populate_by_name=True)

    kind: str = Field(alias="class", description="Class of schemas/errors.py, or of another exception")
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.message.rstrip('.')}. {self.remedy}" if self.remedy else self.message


class Rejected(BaseModel):
    """A reject: its place, its id (null if it could not be read) and the reason."""

    file: str
    place: str = ""
    id: str | None = None
    error: str
    reason: str

    def __str__(self) -> str:
        where = f"{self.file}, {self.place}" if self.place else self.file
        shown = f" ({self.id})" if self.id and self.id not in self.file else ""
        return f"{where}{shown}: {self.error}: {self.reason}"


class RemoteJob(BaseModel):
    """A job on other machines.

    Attributes:
        id: in its runner.
        step: that it was for.
        seconds: wall time from its submission to its end; null if the run ended before it.
        start_seconds: until a worker had counted something; null if the runner did not tell.
        left: whether it runs on after the command: the same command attaches to it, or continues after it.
    """

    id: str
    runner: str
    step: str
    seconds: float | None = None
    start_seconds: float | None = None
    left: bool = False


class Served(BaseModel):
    """What the alias pointed to at the end of the run.

    Attributes:
        collection: "" if the alias did not exist.
        before: what it pointed to before the run moved it; "" if the run did not move it, or the alias did not exist.
        moved: whether this run moved it.
    """

    collection: str = ""
    before: str = ""
    moved: bool = False


class Report(BaseModel):
    """One run."""

    format_version: int = 1
    run_id: str
    command: str
    name: str
    model: str = ""
    space: str = ""
    snapshot: str = ""
    collection: str = ""
    alias: str = ""
    items: Items = Field(default_factory=Items)
    reason: str = Field("", description="What a reindex found to have changed, or a gc removed")
    rejects: dict[str, int] = Field(default_factory=dict, description="Rejects by error")
    rejected: list[Rejected] = Field(default_factory=list, description="The first rejects by name, 100 at most")
    chunks: Chunks = Field(default_factory=Chunks)
    modality: Modality = Modality.TEXT
    tokens: Tokens = Field(default_factory=Tokens)
    sound: Sound | None = Field(None, description="Of recordings; null for other corpora")
    bytes: Bytes = Field(default_factory=Bytes)
    seconds: Seconds = Field(default_factory=Seconds)
    rates: Rates = Field(default_factory=Rates)
    usd: float | None = Field(None, description="Cost of the embedding server, if its price is configured")
    loss: Loss | None = None
    fits: list[Fit] = Field(default_factory=list, description="Models that were fitted on the corpus")
    peak_rss_mb: int = 0
    retries: int = 0
    throttled: int = Field(0, description="Answers by which Milvus or Zilliz Cloud throttled a call")
    verify: Verification = Field(default_factory=Verification)
    measured_indexes: list[MeasuredIndex] = Field(default_factory=list, description="Recall by index and parameters")
    vectors: VectorFindings | None = Field(None, description="Where verify limits duplicates, outliers or drift")
    quality: Quality | None = Field(None, description="Of the answers, where verify.queries are configured")
    plan: Expected | None = None
    runtime: dict[str, str] = Field(default_factory=dict, description="Engine, device and precision of the encoder")
    versions: dict[str, str] = Field(default_factory=dict)
    served: Served | None = Field(None, description="What is served now; null where Milvus did not answer")
    could_change: bool | None = Field(None, description="Whether the run was one that can change data")
    steps: list[str] = Field(default_factory=list, description="Steps that the run came to")
    jobs: list[str] = Field(default_factory=list, description="Jobs that it started where workers are other machines")
    remote_jobs: list[RemoteJob] = Field(default_factory=list, description="The same, with their times")
    warnings: list[str] = Field(default_factory=list)
    exit_code: int = 0
    error: Failure | None = None

    @field_validator("error", mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        """Version 1 had the error as text, "" where there was none."""
        if isinstance(value, str):
            return {"class": "VecbeamError", "message": value} if value else None
        return value

    @property
    def changing(self) -> bool:
        """Whether the run was one that can change data."""
        return self.command in CHANGING if self.could_change is None else self.could_change

    def balance(self) -> list[str]:
        """Returns the books that do not balance, one phrase each; empty if all do."""
        items = self.items
        problems = []
        if items.read != items.new + items.changed + items.moved + items.unchanged + items.rejected:
            problems.append(f"items read {items.read} is not new + changed + moved + unchanged + rejected")
        if min(items.model_dump().values()) < 0:
            problems.append(f"a number of items is below 0: {items.model_dump()}")
        if self.verify.published and self.verify.found != self.verify.expected:
            problems.append(f"the collection holds {self.verify.found} rows, the snapshot {self.verify.expected}")
        return problems

    def as_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json", by_alias=True)
