"""docs/scale.md against the scripts that its figures are from."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import scale

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))
PAGE = (ROOT / "docs" / "scale.md").read_text()
BOTH = [scale.DOCUMENTS, scale.IMAGES]


def figure(corpus: scale.Corpus, what: str) -> scale.Row:
    return next(row for row in scale.rows_of(corpus) if row.what == what)


@pytest.mark.parametrize("line", [*scale.table(BOTH), *scale.inputs_table(BOTH)])
def test_the_tables_of_the_page_are_those_of_the_script(line: str) -> None:
    assert f"\n{line}\n" in PAGE


@pytest.mark.parametrize(
    ("corpus", "what", "prose"),
    [
        (scale.IMAGES, "shards", "are {} shards of 64 MiB"),
        (scale.IMAGES, "launcher's memory: listing", "files need {} there"),
        (scale.IMAGES, "writes of parts a second", "{}"),
    ],
)
def test_the_figures_in_its_prose_are_those_of_the_table(corpus: scale.Corpus, what: str, prose: str) -> None:
    shown = scale.text(figure(corpus, what)).removesuffix(" 1/s")
    assert prose.format(shown) in PAGE.replace("\n", " ")


@pytest.mark.parametrize("one", [*scale.DOCUMENTS.inputs.values(), *scale.IMAGES.inputs.values()])
def test_each_measured_input_names_a_heading_or_a_page(one: scale.Input) -> None:
    assert one.kind in (scale.MEASURED, scale.SETTING, scale.ASSUMED, scale.CORPUS)
    if one.kind == scale.MEASURED:
        name, _, _ = one.source.partition(":")
        if name.startswith("architecture.md"):
            name, page = "### The diff", (ROOT / "docs" / "architecture.md").read_text()
        else:
            name, page = f"## {name.partition(',')[0]}", (ROOT / "docs" / "benchmarks.md").read_text()
        assert f"\n{name}" in page or f"\n#{name}" in page


def test_the_rows_follow_the_inputs() -> None:
    one = scale.DOCUMENTS.changed({"items": 1000.0, "chunks": 3.0, "batch_rows": 100.0, "dimensions": 10.0})
    assert figure(one, "rows").value == 3000
    assert figure(one, "parts").value == 10
    assert figure(one, "bytes of the checkpoint").value == 3000 * (40 + 700)
    assert one.inputs["items"].kind == "given"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["documents", "--set", "rows=3"], "unknown input 'rows'"),
        (["--set", "items=many"], "'many' is not a number"),
        (["--set", "items=0"], "items must be positive"),
        (["films"], "'films' is not a corpus"),
    ],
)
def test_a_wrong_input_is_named(words: list[str], message: str) -> None:
    done = subprocess.run([sys.executable, scale.__file__, *words], capture_output=True, text=True)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


class TestTheSimulationOfPreemptions:
    def test_without_kills_it_is_the_work_alone(self) -> None:
        import preemption

        one = preemption.Setting(2, 4, 5, batch=2, part=0.5, kill_every=1e12, start=10, spread=0, straggler=0)
        assert preemption.simulate(one, 0) == (0, 0, 0, 0, 10 + 2 * 5 * 2.5)

    def test_each_kill_costs_at_most_the_batch_in_flight(self) -> None:
        import preemption

        one = preemption.Setting(3, 20, 10, batch=2, part=0.5, kill_every=30, start=5, spread=0, straggler=0)
        for seed in random.Random(0).sample(range(1000), 20):
            found = preemption.simulate(one, seed)
            assert found == preemption.simulate(one, seed)
            assert 0 < found.again <= found.kills
            assert 0 < found.lost < found.again * 2.5

    def test_larger_batches_lose_more_and_write_less(self) -> None:
        import preemption

        one = preemption.Setting(10, 40, 16, batch=4, part=0.3, kill_every=300, start=20)
        rows = preemption.by_batch_size(one, 2048, (512, 2048, 8192), runs=10)
        lost, parts = [row["lost, %"] for row in rows], [row["parts, %"] for row in rows]
        assert lost == sorted(lost)
        assert parts == sorted(parts, reverse=True)
