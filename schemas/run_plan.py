"""What a run would do: the result of `vecbeam plan`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from schemas.modality import Modality
from schemas.run_report import Failure, Rejected

Action = Literal["nothing", "backfill", "sync", "reindex"]


class PlannedItems(BaseModel):
    """Items by what the run would find; counted, except for what only an encoder rejects."""

    new: int = 0
    changed: int = 0
    moved: int = 0
    unchanged: int = 0
    deleted: int = 0
    rejected: int = 0


class Estimate(BaseModel):
    """A number from a sample.

    Attributes:
        value: the estimate.
        error: half of its 95 % confidence interval, as a share of it; 0 if all was counted.
    """

    value: int = 0
    error: float = 0.0


class PlannedSeconds(BaseModel):
    """Seconds on this machine; `tokens_per_second` and where it is from.

    `per_second` is the same in the unit of the corpus: tokens, images, or seconds of sound.
    """

    total: float = 0.0
    embed: float = 0.0
    other: float = 0.0
    tokens_per_second: float = 0.0
    per_second: float = 0.0
    measured: str = Field("", description="An earlier run, a calibration, or nothing to embed")


class PlannedPool(BaseModel):
    """The same on the workers of `runner.cost`, each taken to be as fast as this machine."""

    workers: int
    seconds: float
    usd: float


class PlannedFit(BaseModel):
    """A model that the run would fit on the corpus before it embeds."""

    vector: str
    model: str
    items: int = Field(0, description="That it is fitted on")


class PlannedCollection(BaseModel):
    """Planned changes in Milvus."""

    served: str = Field("", description="What the alias points to now")
    collection: str = Field("", description="What it would point to; the same if the collection is changed in place")
    reasons: list[str] = Field(default_factory=list, description="Why it is built or changed")
    index: str = ""
    rows: int = 0
    index_bytes: int = Field(0, description="Memory of the index in Milvus, by its type and parameters")
    candidates: list[str] = Field(
        default_factory=list, description="Indexes of collection.index: auto, measured on a sample, the best first"
    )


class Outcome(BaseModel):
    """How the run would end, as far as that can be known before it.

    Attributes:
        exit_code: 0, 3 or 4.
        error: what it would be refused or end with; null if it would not.
        served: whether the good rows would be served anyway.
    """

    exit_code: int = 0
    error: Failure | None = None
    served: bool = True


class Plan(BaseModel):
    """The plan of a run."""

    name: str
    action: Action = "nothing"
    space: str = ""
    modality: Modality = Modality.TEXT
    items: PlannedItems = Field(default_factory=PlannedItems)
    fits: list[PlannedFit] = Field(default_factory=list, description="Models that are fitted on the corpus first")
    chunks: Estimate = Field(default_factory=Estimate, description="To embed")
    tokens: Estimate = Field(
        default_factory=Estimate, description="To embed; of sound milliseconds instead, and nothing of images"
    )
    dropped: Estimate = Field(
        default_factory=Estimate,
        description="What is over the encoder's limit or not known, of what is to embed, in the same unit",
    )
    rejects: dict[str, int] = Field(default_factory=dict, description="Rejects of the whole corpus, by error")
    rejected: list[Rejected] = Field(default_factory=list, description="The first of them by name")
    sampled: int = Field(0, description="Items that chunks and tokens are estimated from; 0 where there are none")
    at_most: bool = Field(False, description="Chunks whose text stays the same keep their vectors")
    checkpoint_bytes: int = Field(0, description="Parquet to be written")
    seconds: PlannedSeconds = Field(default_factory=PlannedSeconds)
    pool: PlannedPool | None = None
    runner: str = Field("", description="Where the pipelines run")
    jobs: list[str] = Field(default_factory=list, description="Steps that are jobs on other machines")
    usd: float | None = Field(None, description="What the embedding servers cost, if their prices are configured")
    milvus: PlannedCollection = Field(default_factory=PlannedCollection)
    outcome: Outcome = Field(default_factory=Outcome)
    vectors: str = Field("", description="What the vectors must keep; empty without limits")
    quality: str = Field("", description="What the answers to verify.queries must pass; empty without them")
    workers: str = Field("", description="Processes and threads of Dataflow's workers with an accelerator; else empty")
    command: str = Field("", description="What to run; empty where there is nothing to do")
    warnings: list[str] = Field(
        default_factory=list, description="Columns that would be null throughout, files left out"
    )

    @property
    def has_work(self) -> bool:
        return self.action != "nothing"

    def as_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json", by_alias=True)
