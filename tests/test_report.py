"""Reports: their contents and their page, which run is the last, and runs and rejects as lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from corpora import configure, text, write_jsonl
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.run.report_store import latest, read_report, reports
from pipelines.run.report_text import NAMED
from pipelines.run.report_text import text as page
from pipelines.sync import sync
from pipelines.verify import verify
from schemas.errors import ConfigurationError, EncoderError, GateError, RejectsError
from schemas.run_report import FORMAT_VERSION, Report
from transforms.encoders import fake

pytestmark = pytest.mark.usefixtures("lite_released")


@pytest.fixture
def items(tmp_path: Path) -> list[dict[str, Any]]:
    found = [{"id": f"item-{number}", "text": text(number)} for number in range(40)]
    write_jsonl(tmp_path / "corpus" / "a.jsonl", found)
    return found


def command(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def test_a_refused_run_says_what_is_served_and_what_it_left_alone(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path)
    first = backfill(config)
    assert first.served is not None
    assert (first.served.collection, first.served.moved, first.error) == (first.collection, True, None)
    write_jsonl(tmp_path / "corpus" / "a.jsonl", items[:10])
    with pytest.raises(GateError) as refused:
        sync(config)
    shown = page(refused.value.report)
    assert f"serving   tested -> {first.collection}, as before; its rows were not changed" in shown
    assert "exit code 3" in shown.splitlines()[0]
    for absent in ("items  ", "chunks  ", "verify  ", "not published", " 0 "):
        assert absent not in shown
    # The same from the checkpoint, with what to do about it.
    path = str(tmp_path / "vecbeam.yaml")
    done = command("report", path)
    assert "error     GateError: 30 of 40 items are no longer in the corpus" in done.stdout
    assert "remedy    " in done.stdout
    found = json.loads(command("report", path, "--json").stdout)
    assert (found["format_version"], found["exit_code"]) == (FORMAT_VERSION, 3)
    assert set(found["error"]) == {"class", "message", "remedy"}
    assert (found["error"]["class"], found["served"]["collection"]) == ("GateError", first.collection)


def test_what_a_refused_run_found_is_named_and_not_said_to_be_done(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path)
    backfill(config)
    lines = [json.dumps(item) for item in items[:10]] + ["{broken"]
    (tmp_path / "corpus" / "a.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(GateError) as refused:
        sync(config)
    assert "line 11: InvalidJson: " in page(refused.value.report)
    assert "names" not in command("report", str(tmp_path / "vecbeam.yaml"), "--rejects").stdout
    with pytest.raises(RejectsError) as over:
        sync(config, allow_deletes=True)
    shown = page(over.value.report)
    assert "; 30 to delete, none deleted" in shown
    assert "as before; its rows were not changed" in shown


def test_a_run_that_failed_with_nothing_served_says_so(
    tmp_path: Path, items: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the device is out of order")

    monkeypatch.setattr(fake.FakeEncoder, "encode", broken)
    config = configure(tmp_path)
    with pytest.raises(EncoderError) as failed:
        backfill(config)
    shown = page(failed.value.report)
    assert "serving   nothing under tested, as before" in shown
    assert "EncoderError" in shown
    assert "items  " not in shown


def test_an_error_that_is_not_ours_leaves_a_report_too(
    tmp_path: Path, items: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("pipelines.backfill.publish", broken)
    config = configure(tmp_path)
    with pytest.raises(ZeroDivisionError):
        backfill(config)
    report = read_report(config)
    assert report.error is not None
    assert (report.exit_code, report.error.kind, report.error.message) == (1, "ZeroDivisionError", "division by zero")


def test_a_run_that_finds_nothing_to_do_claims_nothing(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path)
    first = backfill(config)
    shown = page(backfill(config))
    assert "chunks    40 reused\n" in shown
    assert f"serving   tested -> {first.collection}" in shown
    assert "tokens  " not in shown


def test_rejects_are_named(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    lines = [json.dumps(item) for item in items] + ['{"id": "empty", "text": " "}'] + ["{broken"] * 200
    (tmp_path / "corpus" / "a.jsonl").write_text("\n".join(lines) + "\n")
    config = configure(tmp_path)
    with pytest.raises(RejectsError) as over:
        backfill(config)
    file = tmp_path / "corpus" / "a.jsonl"
    shown = page(over.value.report)
    assert f"          {file}, line 42: InvalidJson: " in shown
    assert shown.count(str(file)) == NAMED
    assert "and 196 more: vecbeam report --rejects" in shown
    path = str(tmp_path / "vecbeam.yaml")
    listed = command("report", path, "--rejects").stdout.splitlines()
    assert listed[0].startswith("201 rejects in ")
    assert f"{file}, line 41 (empty): EmptyText: " in "\n".join(listed)
    assert listed[-1].startswith("and 101 more")
    found = json.loads(command("report", path, "--rejects", "--json").stdout)
    assert (len(found["rejected"]), found["more"]) == (100, 101)
    assert {"file", "place", "id", "error", "reason"} == set(found["rejected"][0])
    # A run that comes upon them again names them again; one without any says that.
    again = read_report(config, over.value.report.run_id)
    assert again.rejected == over.value.report.rejected
    write_jsonl(file, items)
    backfill(config)
    assert command("report", path, "--rejects").stdout.startswith("no rejects in ")


def test_where_nothing_could_be_embedded_the_first_reason_is_in_the_message(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.jsonl").write_text("{broken\n")
    with pytest.raises(RejectsError) as refused:
        backfill(configure(tmp_path))
    assert f"the first: {tmp_path / 'corpus' / 'a.jsonl'}, line 1: InvalidJson: " in refused.value.message


def test_the_last_run_is_one_that_could_change_data(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path)
    first = backfill(config)
    verify(config)
    assert read_report(config).run_id == first.run_id
    repaired = verify(config, repair=True)
    assert read_report(config).run_id == repaired.run_id
    path = str(tmp_path / "vecbeam.yaml")
    lines = command("report", path, "--list").stdout.splitlines()
    assert [line.split()[1] for line in lines] == ["command", "verify", "verify", "backfill"]
    assert "verify --repair  done" in lines[1]
    assert lines[3].endswith("40 (40 new)")
    runs = json.loads(command("report", path, "--list", "--json").stdout)["runs"]
    assert [run["could_change"] for run in runs] == [True, False, True]
    with pytest.raises(ConfigurationError, match="no report of run nonsense"):
        read_report(config, "nonsense")


def test_runs_of_one_second_are_in_order(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path)
    names = ["20261125T173114Z-sync-9", "20261125T173114Z-backfill-10", "20261125T173114.250000Z-sync-2"]
    names += ["20261125T173114.750000Z-backfill-1", "20261125T173115Z-gc-1"]
    import os

    for at, name in enumerate(names):
        file = tmp_path / "checkpoint" / "tested" / "runs" / name / "report.json"
        file.parent.mkdir(parents=True)
        command_name = name.split("-")[1]
        # As version 1 wrote them: no version, the error as text.
        file.write_text(json.dumps({"run_id": name, "command": command_name, "name": "tested", "error": "gone. retry"}))
        os.utime(file, (1000 + at / 100, 1000 + at / 100))
    found = list(reports(config))
    assert [report.run_id for report in found] == names[::-1]
    assert found[0].error is not None
    assert (found[0].format_version, str(found[0].error)) == (1, "gone. retry")
    some, more = latest(config, 2)
    assert ([report.run_id for report in some], more) == (names[:-3:-1], 3)
    assert read_report(config).run_id == names[-1]


def test_a_report_of_version_1_without_an_error_loads() -> None:
    old = {"run_id": "r", "command": "sync", "name": "n", "alias": "n", "collection": "n_1", "space": "s", "error": ""}
    report = Report.model_validate({**old, "verify": {"expected": 3, "found": 3, "published": True}})
    assert report.error is None
    assert report.changing
    assert "serving   n -> n_1, space s" in page(report)
