"""How much a run did: items, rows, tokens, bytes, seconds and rates of its report."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Items(BaseModel):
    """Items of the corpus: read = new + changed + moved + unchanged + rejected.

    `deleted` are items of the snapshot before that are no longer in the corpus; a refused run leaves them in place.
    A moved item has the content of one whose id is gone. Unchanged ones in files that did not change count as read.
    """

    read: int = 0
    new: int = 0
    changed: int = 0
    moved: int = 0
    unchanged: int = 0
    deleted: int = 0
    rejected: int = 0


class Chunks(BaseModel):
    """Rows: embedded by this run, reused from the checkpoint, loaded into the collection by this run.

    `cut`, of a corpus of several modalities: those of which something was over the encoder's limit.
    """

    embedded: int = 0
    reused: int = 0
    loaded: int = 0
    deleted: int = 0
    cut: int = 0


class Tokens(BaseModel):
    """Tokens through the model, padding in addition to them, and tokens over the limit (of the whole corpus).

    `billed` are those that an embedding server has counted; of models on one the others are estimates.
    """

    embedded: int = 0
    padded: int = 0
    dropped: int = 0
    billed: int = 0


class Bytes(BaseModel):
    read: int = 0
    checkpoint: int = 0


class Seconds(BaseModel):
    """Wall seconds by step. `total` is the whole process; `startup` is imports, preflight and model load."""

    total: float = 0.0
    startup: float = 0.0
    survey: float = 0.0
    read: float = 0.0
    chunk: float = 0.0
    embed: float = 0.0
    checkpoint: float = 0.0
    load: float = 0.0
    index: float = 0.0
    verify: float = 0.0


class Sound(BaseModel):
    """Seconds of recordings: what this run embedded, and what of the snapshot is over the encoder's limit."""

    embedded: float = 0.0
    dropped: float = 0.0


class Rates(BaseModel):
    """How well the encoder was used; all 0 if nothing was embedded.

    Attributes:
        tokens_per_second: of the embedding step, padding not counted.
        per_second: the same in the unit of the corpus: tokens, images, or seconds of sound.
        padding_share: of all tokens that went through the model.
        encoder_busy_share: of the time of the embedding step, what the device computed.
        step_shares: each step's part of the wall time.
    """

    tokens_per_second: float = 0.0
    per_second: float = 0.0
    padding_share: float = 0.0
    encoder_busy_share: float = 0.0
    step_shares: dict[str, float] = Field(default_factory=dict)
