"""A state machine of syncs: a corpus that changes in every way, runs that are killed, and parts that are damaged.

What the corpus holds, and how it changes, is in `corpus_machines`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import yaml
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pipelines.backfill import backfill
from pipelines.sync import sync
from schemas.config import Config
from schemas.config.loader import load_config
from schemas.errors import SpaceMismatchError
from schemas.run_report import Report
from transforms import milvus
from transforms.checkpoint import Checkpoint
from transforms.encoders.models import Models
from transforms.load import delta, upsert_parts
from transforms.load.upsert_parts import Ledger

KILLED_AT: list[tuple[Any, str]] = [
    (Checkpoint, "write_part"),
    (Checkpoint, "write_snapshot"),
    (Ledger, "acknowledge"),
    (Ledger, "close"),
    (delta.milvus, "upsert"),
    (delta.milvus, "delete"),
    (delta.milvus, "set_properties"),
    (delta.milvus, "finish"),
    (delta.milvus, "verify_rows"),
    (upsert_parts.milvus, "publish"),
    (delta, "settle"),
]
Expected = dict[str, dict[str, Any]]
"""Row id to the values that the row must have."""

TIME_NS = 10**18
"""When the first file was written."""

numbers = st.integers(min_value=0, max_value=10**6)


class Killed(BaseException):
    """Stands for SIGKILL within one process; tests/faults/test_sigkill.py sends the real one."""


class SyncMachine(RuleBasedStateMachine):
    """Runs commands over a corpus, and compares what they leave with what the corpus is, embedded apart from them."""

    steps = 0
    syncs = 0
    kills = 0
    uri: str | None = None
    between = (50, 75)
    """After so many steps without a run one may come, and after so many one comes."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="machine-"))
        self.dimensions = 16
        self.served: int | None = 0  # dimensions of the published collection; None after a kill, when either may be
        self.since_run = 0
        self.ticks = 0

    # The corpus

    def configuration(self) -> dict[str, Any]:
        """The sections of the configuration that follow from the corpus."""
        return {"corpus": {"paths": [], "metadata": {}, "max_deleted": 1.0}}

    def write(self) -> None:
        """Writes the corpus."""

    def expected(self, config: Config) -> Expected:  # noqa: ARG002 (corpora have it)
        """What the collection must hold."""
        return {}

    def rejected(self) -> set[str]:
        """Ids of items that are in the corpus and can't be embedded."""
        return set()

    def amount(self, expected: Expected) -> int:
        """What went through the model; see `transforms.support.amounts.amounts_of`."""
        return sum(row.get("tokens", 0) for row in expected.values())

    def put(self, path: Path, data: bytes | None, modified: int | None = None) -> None:
        """Makes a file so, or removes it; it gets the given modification time, or one that no file had before."""
        if data is None:
            path.unlink(missing_ok=True)
            return
        time = None if modified is None else TIME_NS + modified * 1000
        if path.exists() and path.read_bytes() == data and time in (None, path.stat().st_mtime_ns):
            return
        if time is None:
            self.ticks += 1
            time = TIME_NS + self.ticks * 1000
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, ns=(time, time))

    def took(self) -> None:
        type(self).steps += 1
        self.since_run += 1

    def edited(self) -> bool:
        return self.since_run >= self.between[0]

    # Runs

    @rule(number=numbers, how=st.sampled_from(["cut", "gone", "items gone"]))
    def damage_a_part(self, number: int, how: str) -> None:
        self.took()
        folder = "items" if how == "items gone" else "parts"
        parts = sorted(self.folder.glob(f"checkpoint/*/*/{folder}/*.parquet"))
        if parts and number % 4 == 0:
            part = parts[number % len(parts)]
            if how == "cut":
                part.write_bytes(part.read_bytes()[: number % 200])
            else:
                part.unlink()

    @rule(number=numbers)
    def change_model(self, number: int) -> None:
        self.took()
        if number % 8 == 0:
            self.dimensions = 12 if self.dimensions == 16 else 16

    @precondition(edited)
    @rule()
    def sync_now(self) -> None:
        self.took()
        self.synchronise()

    @invariant()
    def sync_at_last(self) -> None:
        if self.since_run >= self.between[1]:
            self.synchronise()

    @precondition(edited)
    @rule(where=st.sampled_from(KILLED_AT), call=st.sampled_from([1, 1, 2]))
    def kill(self, where: tuple[Any, str], call: int) -> None:
        self.took()
        target, name = where
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(target, name, killing(getattr(target, name), call))
            try:
                report = self.run()
            except (Killed, RuntimeError) as error:
                if "Killed" not in repr(error):  # Beam may wrap it
                    raise
                type(self).kills += 1
                return
        self.check(report)

    def configure(self) -> Config:
        values = {
            "name": f"m{abs(hash(self.folder.name))}",
            "batch_rows": 8,
            "checkpoint": "checkpoint",
            "collection": {"uri": self.uri or "./milvus.db", "index": {"type": "FLAT"}},
            "verify": {"max_rejected": 1.0},
            **self.configuration(),
        }
        self.write()
        (self.folder / "vecbeam.yaml").write_text(yaml.safe_dump(values))
        return load_config(self.folder / "vecbeam.yaml")

    def run(self) -> Report:
        self.since_run = 0
        config = self.configure()
        served = self.served_dimensions(config) if self.served is None else self.served
        self.served = None
        if served not in (0, self.dimensions):
            with pytest.raises(SpaceMismatchError, match=r"dimensions: \d+ here, \d+ there"):
                sync(config)
            report = backfill(config)
        else:
            report = sync(config)
        self.served = self.dimensions
        return report

    def served_dimensions(self, config: Config) -> int:
        with milvus.connected(config.collection) as connection:
            name = milvus.served(connection, config.name)
            if name is None:
                return 0
            fields = connection.client.describe_collection(name)["fields"]
        return next(int(field["params"]["dim"]) for field in fields if field["name"] == next(iter(config.vectors)))

    def synchronise(self) -> None:
        type(self).syncs += 1
        report = self.run()
        self.check(report)
        if self.syncs % 5 == 0:
            again = sync(self.configure())
            assert (again.chunks.embedded, again.chunks.loaded, again.chunks.deleted) == (0, 0, 0)
            assert again.items.unchanged == report.items.read - len(self.rejected())

    def check(self, report: Report) -> None:
        config = self.configure()
        expected = self.expected(config)
        with milvus.connected(config.collection) as connection:
            connection.client.load_collection(milvus.served(connection, config.name))
            rows = connection.client.query(config.name, filter='id != ""', limit=16384, output_fields=["*"])
        assert_same(rows, expected)
        checkpoint = Checkpoint(config.checkpoint, config.name, Models.of(config).space.id)
        snapshot = checkpoint.current_snapshot()
        assert snapshot is not None
        live = [checkpoint.read_live(part) for part in snapshot.live_parts]
        assert_same([row for table in live for row in table.to_pylist()], expected)
        items = {row["item_id"] for row in expected.values()}
        assert not items & self.rejected()
        assert {reject.id for reject in report.rejected} == self.rejected()
        assert snapshot.total("rows") == len(expected) == report.verify.found
        assert snapshot.total("items") == len(items) == report.items.read - report.items.rejected
        assert snapshot.total("items_read") == report.items.read == len(items | self.rejected())
        assert snapshot.total("tokens") == self.amount(expected)

    def teardown(self) -> None:
        try:
            self.synchronise()
        finally:
            milvus.release(self.configure().collection)
            shutil.rmtree(self.folder)


def killing(function: Callable[..., Any], call: int) -> Callable[..., Any]:
    calls = [0]

    def killed(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            raise Killed
        return function(*args, **kwargs)

    return killed


def assert_same(rows: list[dict[str, Any]], expected: Expected) -> None:
    assert sorted(row["id"] for row in rows) == sorted(expected)
    for row in rows:
        for name, wanted in expected[row["id"]].items():
            if isinstance(wanted, np.ndarray):
                np.testing.assert_allclose(row[name], wanted, atol=1e-5, err_msg=f"{row['id']}: {name}")
            else:
                assert row[name] == wanted, (row["id"], name)
