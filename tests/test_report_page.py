"""`vecbeam report --html`: a run as one HTML file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import configure, text, write_jsonl
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.demo import _page
from pipelines.run.report_store import read_report
from pipelines.steps.collection.current_rows import current_rows
from pipelines.steps.results.report_page import write_report_page
from pipelines.steps.results.row_lengths import length_section
from pipelines.sync import sync
from schemas.config.loader import load_config
from schemas.errors import RejectsError
from schemas.run_report import Expected, MeasuredIndex, Quality, Report
from transforms.milvus import release

pytest.importorskip("plotly", reason="the extra explore is not installed")
pytest.importorskip("jinja2", reason="the extra explore is not installed")

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs: 40 items, nothing to do, and one with a changed item, a new one, and three rejects."""
    folder = tmp_path_factory.mktemp("report-page")
    items = [{"id": f"item-{number}", "text": text(number)} for number in range(40)]
    corpus = write_jsonl(folder / "corpus" / "a.jsonl", items)
    config = configure(folder, verify={"max_rejected": 0.5})
    backfill(config)
    backfill(config)
    lines = [json.dumps(item) for item in [{"id": "item-0", "text": "another"}, *items[1:], {"id": "n", "text": "new"}]]
    corpus.write_text("\n".join([*lines, "{broken", json.dumps({"id": EVIL, "text": " "}), "{"]) + "\n")
    sync(config)
    release(config.collection)
    return folder


def command(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def texts(page: str) -> str:
    """What a page has in addition to plotly's code."""
    return max(re.split(r"<script>|</script>", page)[::2], key=len)


def test_the_page_has_the_items_the_steps_the_rejects_the_gate_and_the_runs(folder: Path) -> None:
    done = command("report", str(folder / "vecbeam.yaml"), "--html", str(folder / "page.html"))
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == f"page      {folder / 'page.html'}"
    whole = (folder / "page.html").read_text()
    page = texts(whole)
    report = read_report(load_config(folder / "vecbeam.yaml"))
    assert (report.items.read, report.items.rejected) == (44, 3)
    for count, kind in ((44, "read"), (1, "new"), (1, "changed"), (39, "unchanged"), (3, "rejected")):
        assert re.search(rf'<td>{kind}</td><td class="number">{count}</td>', page), kind
        assert f"{kind} {count}" in whole.split("Plotly.newPlot")[-6]
    for title in (
        "Items",
        "Seconds by step",
        "Lengths of the rows",
        "Rejects by error",
        "The gate",
        "Plan and fact",
        "Runs",
    ):
        assert f"<h2>{title}</h2>" in page
    assert page.count("<td>InvalidJson</td>") == 2
    assert "a.jsonl" in page
    assert "line 42" in page
    assert "<td>found</td><td>41</td>" in page
    assert [run in page for run in (report.run_id, report.collection, report.snapshot)] == [True] * 3
    rows = page.split("<h2>Runs</h2>")[1]
    assert re.findall(r"<td>(backfill|sync)</td>", rows) == ["sync", "backfill", "backfill"]


def test_the_page_needs_no_network_and_shows_the_corpus_as_text(folder: Path) -> None:
    assert command("report", str(folder / "vecbeam.yaml"), "--html", str(folder / "page.html")).exit_code == 0
    page = (folder / "page.html").read_text()
    assert EVIL not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=", texts(page))
    assert page.count("<script>") == 2


def test_lengths_are_those_of_the_rows(folder: Path) -> None:
    config = load_config(folder / "vecbeam.yaml")
    rows = current_rows(config)
    section = length_section(rows)
    assert section is not None
    assert section.table is not None
    tokens = np.concatenate([table.column("tokens").to_numpy() for table in rows.tables(["tokens"])])
    shown = dict(zip(*(column.to_pylist() for column in section.table.columns), strict=True))
    assert float(shown["rows"]) == len(tokens) == 41
    assert float(shown["mean tokens"]) == pytest.approx(tokens.mean(), rel=1e-4)
    assert float(shown["the longest has, tokens"]) == tokens.max()
    assert float(shown["half of the rows have at most, tokens"]) == np.sort(tokens)[20]
    assert sum(section.figure.data[0].y) == 41


def test_a_page_of_a_named_run_and_json(folder: Path) -> None:
    config, page = str(folder / "vecbeam.yaml"), folder / "first.html"
    runs = json.loads(command("report", config, "--list", "--json").stdout)["runs"]
    first = runs[-1]["run_id"]
    found = json.loads(command("report", config, first, "--html", str(page), "--json").stdout)
    assert (found["run_id"], found["items"]["new"]) == (first, 40)
    assert f"<dd>{first}</dd>" in page.read_text()
    assert "<td>recall at 10</td><td>1.0000</td>" in page.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--html", "page.txt"], "--html: page.txt does not end in .html"),
        (["--html", "missing/page.html"], "--html: the folder missing does not exist"),
        (["--html", "page.html", "--list"], "--html and --list: the page has the runs"),
        (["--html", "page.html", "--rejects"], "--html and --rejects: the page has the runs"),
        (["--list", "--rejects"], "--list and --rejects: the list has all runs"),
        (["nonsense", "--html", "page.html"], "no report of run nonsense"),
    ],
)
def test_a_wrong_page_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str) -> None:
    monkeypatch.chdir(folder)
    refused = command("report", "vecbeam.yaml", *words)
    assert refused.exit_code == 2
    assert message in refused.stderr
    assert not (folder / "missing").exists()


def test_a_run_that_failed_has_its_error_and_no_empty_figures(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.jsonl").write_text("{broken\n")
    with pytest.raises(RejectsError) as refused:
        backfill(configure(tmp_path))
    assert command("report", str(tmp_path / "vecbeam.yaml"), "--html", str(tmp_path / "p.html")).exit_code == 0
    page = texts((tmp_path / "p.html").read_text())
    assert f"RejectsError: {refused.value.message[:40]}" in page
    assert "exit code 4" in page
    assert "The gate" not in page


def test_the_plan_is_compared_with_the_fact(tmp_path: Path) -> None:
    report = Report(run_id="r", command="backfill", name="n", warnings=["look <here>"])
    report.items.read = report.items.new = 12
    report.chunks.embedded, report.tokens.embedded, report.seconds.embed = 30, 900, 3.0
    report.plan = Expected(items={"new": 10}, chunks=20, tokens=1000, embed_seconds=2.0)
    report.quality = Quality(queries=50, ndcg_at_10=0.375, low=0.3, high=0.45, verdict="passed")
    report.verify.recalls = {"title": 0.99, "photo": 0.98}
    write_report_page(tmp_path / "p.html", report, [report], more=7)
    page = texts((tmp_path / "p.html").read_text())
    planned = {
        name: tuple(re.sub("<[^>]*>", " ", row).split()[-3:])
        for name in ("items new", "chunks embedded", "tokens embedded", "seconds of embedding")
        for row in re.findall(rf"<td>{name}</td>.*", page)
    }
    assert planned == {
        "items new": ("10", "12", "+20%"),
        "chunks embedded": ("20", "30", "+50%"),
        "tokens embedded": ("1,000", "900", "-10%"),
        "seconds of embedding": ("2", "3", "+50%"),
    }
    assert "<h2>Recall@10 by vector</h2>" in page
    assert "<td>ndcg at 10</td><td>0.3750</td>" in page
    assert "<td>verdict</td><td>passed</td>" in page
    assert re.search(r'<td class="number">0.3750</td></tr>', page.split("<h2>Runs</h2>")[1])
    assert "Warning: look &lt;here&gt;" in page
    assert "7 earlier runs are not shown." in page


def test_recall_is_shown_by_the_parameters_of_indexes_where_runs_measured_it(folder: Path, tmp_path: Path) -> None:
    nothing = Report(run_id="old", command="sync", name="n")
    write_report_page(tmp_path / "p.html", nothing, [nothing])
    assert "Recall@10 by index" not in texts((tmp_path / "p.html").read_text())

    measured = read_report(load_config(folder / "vecbeam.yaml"), _first_run(folder)).measured_indexes
    assert [(one.type, one.parameters, one.search) for one in measured] == [
        ("HNSW", {"M": 8, "efConstruction": 64}, {"ef": 64})
    ]
    assert (measured[0].of, measured[0].rows, measured[0].recall_at_10) == ("collection", 40, 1.0)
    report = Report(run_id="new", command="reindex", name="n", measured_indexes=measured)
    report.quality = Quality(queries=50, ndcg_at_10=0.375, verdict="passed")
    for ef, recall in ((10, 0.81), (16, 0.9012)):
        one = MeasuredIndex(
            type="HNSW", parameters={"M": 8}, search={"ef": ef}, recall_at_10=recall, rows=30, of="sample"
        )
        report.measured_indexes.append(one)
    nothing.measured_indexes = [MeasuredIndex(type="FLAT", recall_at_10=1, rows=20), report.measured_indexes[-1]]
    write_report_page(tmp_path / "p.html", report, [report, nothing])
    whole = (tmp_path / "p.html").read_text()
    section = texts(whole).split("<h2>Recall@10 by index</h2>")[1].split("<h2>")[0]
    rows = [re.findall("<td.*?>(.*?)</td>", row) for row in section.split("<tr>")[2:]]
    assert rows == [
        ["new", "collection, 40 rows", "HNSW M 8 efConstruction 64", "ef 64", "1.0000", "0.3750"],
        ["new", "sample, 30 rows", "HNSW M 8", "ef 10", "0.8100", ""],
        ["new", "sample, 30 rows", "HNSW M 8", "ef 16", "0.9012", ""],
        ["old", "collection, 20 rows", "FLAT", "", "1.0000", ""],
    ]
    drawn = re.findall(r'"name":"(HNSW[^"]*)"', whole)
    assert drawn == ["HNSW M 8 efConstruction 64, collection", "HNSW M 8, sample"]


def _first_run(folder: Path) -> str:
    return min(one.name for one in (folder / "checkpoint" / "tested" / "runs").iterdir() if one.is_dir())


def test_the_demo_writes_the_page_and_names_it(folder: Path) -> None:
    words = _page(load_config(folder / "vecbeam.yaml"), folder / "demo.html")
    assert str(folder / "demo.html") in words.splitlines()[-1]
    assert "<h2>Items</h2>" in (folder / "demo.html").read_text()
