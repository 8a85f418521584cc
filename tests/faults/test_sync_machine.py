"""A corpus that changes in every way, killed and damaged on the way: after each sync all is as a dictionary says."""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
import yaml
from corpora import WORDS
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pipelines.backfill import backfill
from pipelines.sync import sync
from schemas.config import Config
from schemas.config.loader import load_config
from schemas.errors import SpaceMismatchError
from schemas.layout import item_schema
from schemas.modality import Modality
from transforms import milvus
from transforms.checkpoint import Checkpoint
from transforms.embed.work import with_facts
from transforms.encoders import resolve, text_inputs
from transforms.load import delta, upsert_parts
from transforms.load.upsert_parts import Ledger

STEPS = int(os.environ.get("VECBEAM_STEPS", "3000"))
"""`make test-campaign` takes ten thousand."""
STEPS_OF_AN_EXAMPLE = 400
MOST_CAMPAIGNS = 20
STEPS_ON_A_SERVER = 150
FILES = ("a.jsonl", "b.jsonl", "c.jsonl")

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

numbers = st.integers(min_value=0, max_value=10**6)


class Killed(BaseException):
    """Stands for SIGKILL within one process; tests/faults/test_sigkill.py sends the real one."""


class Machine(RuleBasedStateMachine):
    """Edits files of records; `expected` is what they hold, chunked and embedded apart from the pipeline."""

    steps = 0
    syncs = 0
    kills = 0
    uri: str | None = None
    between = (50, 75)
    """After so many steps without a run one may come, and after so many one comes."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="machine-"))
        self.files: dict[str, list[dict[str, str]]] = {name: [] for name in FILES}
        self.max_tokens, self.dimensions = 16, 16
        self.made = 0
        self.served: int | None = 0  # dimensions of the published collection; None after a kill, when either may be
        self.since_run = 0

    # The corpus

    def records(self) -> list[tuple[str, dict[str, str]]]:
        return [(name, record) for name, records in self.files.items() for record in records]

    def some(self, number: int) -> tuple[str, dict[str, str]] | None:
        records = self.records()
        return records[number % len(records)] if records else None

    def text(self, number: int, words: int) -> str:
        chosen = random.Random(number)
        return " ".join(chosen.choices(WORDS, k=words)) + f" {number}"

    def took(self) -> None:
        type(self).steps += 1
        self.since_run += 1

    def edited(self) -> bool:
        return self.since_run >= self.between[0]

    @initialize()
    def begin(self) -> None:
        for number in range(6):
            self.insert(number, 4)

    @rule(number=numbers, words=st.integers(1, 60))
    def insert(self, number: int, words: int) -> None:
        self.took()
        self.made += 1
        record = {"id": f"item-{self.made}", "text": self.text(number, words), "kind": WORDS[number % 3]}
        self.files[FILES[number % 3]].append(record)

    @rule(number=numbers, words=st.integers(1, 60))
    def edit(self, number: int, words: int) -> None:
        self.took()
        if found := self.some(number):
            found[1]["text"] = self.text(number, words)

    @rule(number=numbers)
    def shrink(self, number: int) -> None:
        self.took()
        if found := self.some(number):
            found[1]["text"] = " ".join(found[1]["text"].split()[:3])

    @rule(number=numbers)
    def grow(self, number: int) -> None:
        self.took()
        if found := self.some(number):
            found[1]["text"] += " " + self.text(number, 30)

    @rule(number=numbers)
    def change_metadata(self, number: int) -> None:
        self.took()
        if found := self.some(number):
            found[1]["kind"] = WORDS[number % 7]

    @rule(number=numbers)
    def move(self, number: int) -> None:
        self.took()
        if found := self.some(number):
            self.made += 1
            found[1]["id"] = f"moved-{self.made}"

    @rule(number=numbers)
    def move_to_another_file(self, number: int) -> None:
        self.took()
        if found := self.some(number):
            name, record = found
            self.files[name].remove(record)
            self.files[FILES[(FILES.index(name) + 1) % 3]].insert(0, record)

    @rule(number=numbers)
    def swap_ids(self, number: int) -> None:
        self.took()
        records = self.records()
        if len(records) > 1:
            (_, one), (_, other) = records[number % len(records)], records[(number + 1) % len(records)]
            one["id"], other["id"] = other["id"], one["id"]

    @rule(number=numbers)
    def delete(self, number: int) -> None:
        self.took()
        if len(self.records()) > 3 and (found := self.some(number)):
            self.files[found[0]].remove(found[1])

    @rule(one=st.integers(0, 2), other=st.integers(0, 2))
    def rename_files(self, one: int, other: int) -> None:
        self.took()
        first, second = FILES[one], FILES[other]
        self.files[first], self.files[second] = self.files[second], self.files[first]

    @rule(tokens=st.sampled_from([16, 20, 24]))
    def change_chunking(self, tokens: int) -> None:
        self.took()
        self.max_tokens = tokens

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

    # Runs

    def configure(self) -> Config:
        values = {
            "name": f"m{abs(hash(self.folder.name))}",
            "corpus": {"paths": ["corpus/*.jsonl"], "metadata": {"kind": "string"}, "max_deleted": 1.0},
            "chunk": {"max_tokens": self.max_tokens, "overlap_tokens": 4},
            "encoder": {"model": "fake", "dimensions": self.dimensions},
            "batch_rows": 8,
            "checkpoint": "checkpoint",
            "collection": {"uri": self.uri or "./milvus.db", "index": {"type": "FLAT"}},
            "verify": {"max_rejected": 1.0},
        }
        (self.folder / "corpus").mkdir(exist_ok=True)
        for name, records in self.files.items():
            data = "".join(json.dumps(record) + "\n" for record in records)
            path = self.folder / "corpus" / name
            if not records:  # an empty file would be a reject
                path.unlink(missing_ok=True)
                continue
            if not path.exists() or path.read_text() != data:
                before = path.stat().st_mtime_ns if path.exists() else 0
                path.write_text(data)
                if path.stat().st_mtime_ns <= before:  # a clock too coarse for this
                    os.utime(path, ns=(before + 1000, before + 1000))
        (self.folder / "vecbeam.yaml").write_text(yaml.safe_dump(values))
        return load_config(self.folder / "vecbeam.yaml")

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
                self.run()
            except (Killed, RuntimeError) as error:
                if "Killed" not in repr(error):  # Beam may wrap it
                    raise
                type(self).kills += 1
                return
        self.check()

    @rule(number=numbers)
    def change_model(self, number: int) -> None:
        self.took()
        if number % 8 == 0:
            self.dimensions = 12 if self.dimensions == 16 else 16

    def run(self) -> None:
        self.since_run = 0
        config = self.configure()
        served = self.served_dimensions(config) if self.served is None else self.served
        self.served = None
        if served not in (0, self.dimensions):
            with pytest.raises(SpaceMismatchError, match=r"dimensions: \d+ here, \d+ there"):
                sync(config)
            backfill(config)
        else:
            sync(config)
        self.served = self.dimensions

    def served_dimensions(self, config: Config) -> int:
        with milvus.connected(config.collection) as connection:
            name = milvus.served(connection, config.name)
            if name is None:
                return 0
            fields = connection.client.describe_collection(name)["fields"]
        return next(int(field["params"]["dim"]) for field in fields if field["name"] == "vector")

    def synchronise(self) -> None:
        type(self).syncs += 1
        self.run()
        self.check()
        if self.syncs % 5 == 0:
            report = sync(self.configure())
            assert (report.chunks.embedded, report.chunks.loaded, report.chunks.deleted) == (0, 0, 0)
            assert report.items.unchanged == len(self.records())

    def check(self) -> None:
        config = self.configure()
        expected = self.expected(config)
        with milvus.connected(config.collection) as connection:
            connection.client.load_collection(milvus.served(connection, config.name))
            rows = connection.client.query(config.name, filter='id != ""', limit=16384, output_fields=["*"])
        assert_same(rows, expected)
        checkpoint = Checkpoint(config.checkpoint, config.name, resolve(config.encoder).space.id)
        snapshot = checkpoint.current_snapshot()
        assert snapshot is not None
        live = [checkpoint.read_live(part) for part in snapshot.live_parts]
        assert_same([row for table in live for row in table.to_pylist()], expected)
        assert snapshot.total("rows") == len(expected)
        assert snapshot.total("items") == snapshot.total("items_read") == len(self.records())
        assert snapshot.total("tokens") == sum(row["tokens"] for row in expected.values())

    def expected(self, config: Config) -> dict[str, dict[str, Any]]:
        model = resolve(config.encoder)
        records = [record for _, record in self.records()]
        items = pa.table(
            {
                "item_id": [record["id"] for record in records],
                "@uri": ["a.jsonl"] * len(records),
                "@place": [""] * len(records),
                "@content": [record["text"] for record in records],
                "kind": [record["kind"] for record in records],
            },
            schema=item_schema({"kind": "string"}),
        )
        chunks, rejects = model.chunker(config, Modality.TEXT).chunk(with_facts(items, b""))
        assert rejects.num_rows == 0
        rows = chunks.to_pylist()
        vectors = model.load().encode(text_inputs([row["text"] for row in rows])).matrix
        return {row["id"]: {**row, "vector": vector} for row, vector in zip(rows, vectors, strict=True)}

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


def assert_same(rows: list[dict[str, Any]], expected: dict[str, dict[str, Any]]) -> None:
    assert sorted(row["id"] for row in rows) == sorted(expected)
    for row in rows:
        wanted = expected[row["id"]]
        for name in ("item_id", "chunk", "text", "start", "end", "content_hash", "tokens", "kind"):
            assert row[name] == wanted[name], (row["id"], name)
        np.testing.assert_allclose(row["vector"], wanted["vector"], atol=1e-6)


QUIET = settings(
    deadline=None,
    database=None,
    derandomize=True,
    print_blob=False,
    report_multiple_bugs=False,
    phases=[Phase.generate],  # what fails shows its steps; to shrink them would run thousands of syncs
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.timeout(3000)
def test_after_each_sync_all_is_as_a_dictionary_says() -> None:
    class OnLite(Machine):
        steps = syncs = kills = 0

    examples = STEPS * 6 // 5 // STEPS_OF_AN_EXAMPLE  # some are cut short
    for campaign in range(MOST_CAMPAIGNS):  # how often chance kills is not known beforehand
        run_state_machine_as_test(
            seed(campaign)(OnLite),
            settings=settings(QUIET, max_examples=examples, stateful_step_count=STEPS_OF_AN_EXAMPLE),
        )
        if OnLite.steps >= STEPS and OnLite.syncs >= STEPS // 100 and OnLite.kills >= STEPS // 1000:
            break
        examples = max(1, STEPS // 5 // STEPS_OF_AN_EXAMPLE)
    assert OnLite.steps >= STEPS
    assert OnLite.syncs >= STEPS // 100
    assert OnLite.kills >= STEPS // 1000
    print(f"{OnLite.steps} steps, {OnLite.syncs} syncs, {OnLite.kills} kills")


@pytest.mark.server
def test_on_a_server(milvus_server: Any) -> None:
    class OnServer(Machine):
        steps = syncs = kills = 0
        uri = milvus_server.uri
        between = (15, 40)

    run_state_machine_as_test(OnServer, settings=settings(QUIET, max_examples=2, stateful_step_count=STEPS_ON_A_SERVER))
    assert OnServer.steps >= STEPS_ON_A_SERVER
