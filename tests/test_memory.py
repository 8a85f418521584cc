"""Released memory, as the system sees it."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest
from corpora import configure, text, write_jsonl

from pipelines.backfill import backfill
from pipelines.run.progress import Progress
from transforms.support import memory

PROGRAM = """
import sys
import pyarrow as pa
from transforms.support import process
from transforms.support.memory import give_back, give_back_at_once, give_back_sometimes

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20

warm = bytearray(b"x") * (16 << 20)  # glibc takes no less than this from the system from now on
del warm
if "own" in sys.argv:
    process.take()
if "at once" in sys.argv:
    give_back_at_once()
if "just now" in sys.argv:
    give_back_sometimes()
before = resident()
blocks, between = [], []
for _ in range(200):
    blocks.append(bytearray(b"x") * (1 << 20))
    between.append(bytearray(b"x") * 1000)
full = resident() - before
blocks.clear()
if "later" in sys.argv:
    give_back()
for _ in range(sys.argv.count("sometimes")):
    give_back_sometimes()
print(full, resident() - before, pa.default_memory_pool().backend_name)
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc returns memory on request")


def kept(*how: str) -> tuple[int, int, str]:
    run = subprocess.run([sys.executable, "-c", PROGRAM, *how], capture_output=True, text=True, check=True)
    full, after, pool = run.stdout.split()
    return int(full), int(after), pool


def test_what_is_let_go_of_is_kept_unless_it_is_given_back() -> None:
    full, after, _ = kept()
    assert full >= 195
    assert after >= 150
    assert kept("later")[1] <= 20


def test_between_batches_it_is_given_back_every_few_seconds() -> None:
    assert kept("sometimes")[1] <= 20
    assert kept("just now", "sometimes")[1] >= 150


def test_memory_is_given_back_while_a_batch_is_embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configure(tmp_path)
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": str(number), "text": text(number)} for number in range(3)])
    times: list[str] = []
    monkeypatch.setattr(memory, "SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(memory, "give_back", lambda: times.extend(progress.steps[-1:]))
    progress = Progress(quiet=True)
    backfill(config, progress)
    assert "embed" in times


def test_large_blocks_go_back_at_once() -> None:
    full, after, pool = kept("own", "at once")
    assert full >= 195
    assert after <= 20
    assert pool == "system"


def test_another_program_keeps_its_allocators() -> None:
    _, _, pool = kept()
    assert kept("at once")[2] == pool != "system"
