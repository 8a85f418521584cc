"""The ledger, against a set."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from snapshots import SPACE_ID

from transforms.checkpoint import Checkpoint
from transforms.load.import_jobs import BegunJob, JobLedger
from transforms.load.upsert_parts import Ledger

PROPERTY = settings(derandomize=True, database=None, deadline=None, max_examples=30)
NAMES = ["docs-0000-00000-00ff.parquet", "docs-0000-00000-00ff.parquet.json", "a.json", "compact-00002-aa.parquet"]

names = st.sampled_from(NAMES)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("acknowledge"), names),
        st.tuples(st.just("forget"), st.lists(names, max_size=3)),
        st.tuples(st.sampled_from(["begin job", "end job", "close"]), st.none()),
    ),
    max_size=12,
)


@PROPERTY
@given(steps=steps)
def test_a_ledger_is_a_set_on_disk(steps: list[tuple[str, object]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Checkpoint(folder, "tested", SPACE_ID)
        other = Ledger(checkpoint, "tested_1", "ff-00")
        other.acknowledge("other.parquet", 1)
        known: set[str] = set()
        importing = False
        for step, given in steps:
            ledger = Ledger(checkpoint, "tested_1", "ff")  # another process
            if step == "acknowledge":
                ledger.acknowledge(str(given), 3)
                known.add(str(given))
            elif step == "forget":
                assert isinstance(given, list)
                ledger.forget(given)
                known -= set(given)
            elif step == "close":
                ledger.close()
                known, importing = set(), False
            else:
                job = BegunJob(1, ("docs.parquet",), ("before",))
                (JobLedger(ledger).write if step == "begin job" else JobLedger(ledger).remove)(job)
                importing = step == "begin job"
                assert JobLedger(ledger).open_jobs() == ([job] if importing else [])
            assert ledger.acknowledged() == known
            assert ledger.import_broke_off == importing
        assert other.acknowledged() == {"other.parquet"}
        Ledger(checkpoint, "tested_1", "ff").close()
        assert [path.name for path in Path(folder, "tested", "loads").iterdir()] == ["tested_1-ff-00"]
