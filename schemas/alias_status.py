"""What `vecbeam status` finds: the state of an alias and its checkpoint, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class ServedCollection:
    """The collection behind the alias.

    Attributes:
        rows: null if a server does not have it in its memory.
        index: of each vector, in words.
        snapshot_rows: what the snapshot that it holds has.
        updating_to: the snapshot of an update that was begun and has not ended.
        published, published_by: when a run moved the alias to it (UTC), and which; "" if no report says so.
        updated, updated_by: the last run that finished with this snapshot.
    """

    collection: str
    rows: int | None
    loaded: bool
    index: dict[str, str]
    space: str
    snapshot: str
    snapshot_rows: int | None = None
    updating_to: str = ""
    published: str = ""
    published_by: str = ""
    updated: str = ""
    updated_by: str = ""


@dataclass(frozen=True)
class Previous:
    """The collection that `vecbeam rollback` moves the alias to; one that is not `ready` is refused there."""

    collection: str
    space: str = ""
    snapshot: str = ""
    ready: bool = False


@dataclass(frozen=True)
class Newest:
    """The newest snapshot of the checkpoint, of any space."""

    name: str
    snapshot: str
    space: str
    rows: int
    items: int
    written: str
    rejects: dict[str, int]


@dataclass(frozen=True)
class ConfiguredEncoder:
    """The encoder of the configuration; the space is "" and the error tells why, if its files are not here.

    Attributes:
        is_served: whether its space is that of what is served; null if one of them is not known.
    """

    model: str
    space: str = ""
    is_served: bool | None = None
    error: str = ""


@dataclass(frozen=True)
class Status:
    """The state of an alias and its checkpoint.

    Attributes:
        server: kind and version of Milvus; "" if it does not answer.
        error: why it does not.
        served: null if nothing is served, or Milvus does not answer.
        previous: null also if there is none.
        newest: null before the first run has ended.
        last_run: run_id, command, exit_code and error of the last run that could change data.
        lock: who holds the checkpoint.
        notes: what needs attention, one sentence each.
    """

    alias: str
    uri: str
    checkpoint: str
    encoder: ConfiguredEncoder
    server: str = ""
    error: str = ""
    served: ServedCollection | None = None
    previous: Previous | None = None
    newest: Newest | None = None
    last_run: dict[str, Any] | None = None
    lock: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {"format_version": 1, **asdict(self)}
