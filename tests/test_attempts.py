"""Batches that kill the worker: processes die, the same command runs again, and the culprit is a reject."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

import vecbeam
from pipelines.backfill import backfill
from pipelines.steps.snapshot import embedding
from schemas.config import Config
from schemas.config.loader import load_config
from schemas.errors import InterruptedRunError, JobEndedError
from transforms.embed.attempts import DEATHS, Attempts, History, _Turns
from transforms.encoders import resolve
from transforms.support.storage import filesystem

ITEMS = 40
ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("items", [1, 2, 3, 7, 64, 2048])
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_three_deaths_find_one_item_in_a_batch_of_any_size(items: int, place: float) -> None:
    culprit = round(place * (items - 1))
    history, deaths = History(), 0
    while True:
        spans = list(history.spans(items))
        covered = [item for first, end in spans for item in range(first, end) if item not in history.accused]
        assert sorted({*covered, *history.accused}) == list(range(items))
        assert len(covered) == len(set(covered))
        died = next((span for span in spans if span[0] <= culprit < span[1] and culprit in covered), None)
        if died is None:
            break
        deaths += 1
        history = History.from_json(History(**{**vars(history), "at": died}).as_json()).after_death()
    assert (deaths, history.accused) == (DEATHS, (culprit,))
    assert len(spans) <= 2 * items**0.5 + 2


def test_workers_that_die_elsewhere_in_a_batch_accuse_nobody() -> None:
    # Three workers of which a machine was taken away, each time at another place.
    history = History(at=(0, 100)).after_death()
    history = History(**{**vars(history), "at": (10, 20)}).after_death()
    history = History(**{**vars(history), "at": (40, 50)}).after_death()
    assert (history.accused, history.suspects, history.deaths) == ((), (40, 50), 2)


def test_a_suspect_runs_alone_in_its_process() -> None:
    turns, running, seen = _Turns(), set[int](), list[set[int]]()

    def work(number: int) -> None:
        with turns.alone() if number % 4 == 0 else turns.together():
            running.add(number)
            seen.append(set(running))
            running.discard(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(seen) == 40
    assert all(len(together) == 1 for together in seen if any(number % 4 == 0 for number in together))


def test_a_second_culprit_in_a_batch_needs_two_more_deaths() -> None:
    culprits, history, deaths = {3, 90}, History(), 0
    while died := next(
        (span for span in history.spans(100) if culprits & ({*range(*span)} - {*history.accused})), None
    ):
        deaths += 1
        history = History(**{**vars(history), "at": died}).after_death()
    assert (deaths, {*history.accused}) == (5, culprits)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    texts = [{"id": f"{at}", "text": f"item {at}" + " poison" * (at == 33)} for at in range(ITEMS)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, texts)))
    values = {
        "name": "docs",
        "corpus": {"paths": ["*.jsonl"]},
        "encoder": {"model": "fake", "accelerator": "type:t4;count:1"},
        "batch_rows": 20,
        "checkpoint": "./checkpoint",
        "collection": {"uri": "./milvus.db"},
        "verify": {"max_rejected": 0.1},
    }
    (tmp_path / "vecbeam.yaml").write_text(yaml.safe_dump(values))
    return tmp_path


def run(corpus: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "tests.dying_encoder", str(corpus / "vecbeam.yaml"), *options],
        env={**os.environ, "PYTHONPATH": str(ROOT), "ENCODED": str(corpus / "encoded")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("error", [InterruptedRunError, JobEndedError, RuntimeError])
def test_a_job_that_was_ended_on_purpose_leaves_no_suspicion(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    real, planted = embedding.beam_job.run, list[Path]()

    def ended(config: Config, *given: Any, reads: int | None = None, **more: Any) -> Any:
        if reads is not None:  # the comparison of items
            return real(config, *given, reads=reads, **more)
        attempts = Path(config.checkpoint) / config.name / resolve(config.encoder).space.id / "attempts"
        attempts.mkdir(parents=True)
        planted.append(attempts / "part.json")
        planted[0].write_bytes(History(at=(0, 20)).as_json())
        raise error("ended")

    monkeypatch.setattr(embedding.beam_job, "run", ended)
    with pytest.raises(error):
        backfill(load_config(corpus / "vecbeam.yaml"))
    assert planted[0].exists() == (error is RuntimeError)


def rows_below(folder: Path, name: str) -> list[dict[str, Any]]:
    return [row for file in sorted(folder.glob(f"{name}/*.parquet")) for row in pq.read_table(file).to_pylist()]


def test_an_item_that_kills_the_worker_becomes_a_reject_and_the_run_goes_on(corpus: Path) -> None:
    ended = [run(corpus)]
    while ended[-1].returncode == -signal.SIGKILL and len(ended) < 6:
        ended.append(run(corpus))
    assert [one.returncode for one in ended] == [-signal.SIGKILL] * DEATHS + [0], ended[-1].stderr[-2000:]
    report: dict[str, Any] = json.loads(ended[-1].stdout)
    assert report["rejects"] == {"WorkerDied": 1}
    assert (report["items"]["read"], report["items"]["rejected"], report["chunks"]["loaded"]) == (ITEMS, 1, ITEMS - 1)
    assert "a worker died while it embedded a-0000-" in ended[1].stderr
    assert "leaving out 1 items" in ended[3].stderr
    encoded = [json.loads(line) for line in (corpus / "encoded").read_text().splitlines()]
    dead = [len(texts) for texts in encoded if any("poison" in text for text in texts)]
    assert dead == [20, 5, 1]

    root = corpus / "checkpoint" / "docs" / report["space"]
    [reject] = rows_below(root, "rejects")
    assert (reject["id"], reject["step"]) == ("33", "embed")
    assert reject["reason"].startswith("3 workers died, the last one on ")
    assert not list(root.rglob("attempts/*"))

    # The parts are those of a run on which nothing died, without the item.
    update = {"checkpoint": str(corpus / "sound"), "name": "sound"}
    vecbeam.backfill(vecbeam.load_config(str(corpus / "vecbeam.yaml")).model_copy(update=update))
    sound = corpus / "sound" / "sound" / report["space"]
    whole = rows_below(sound, "parts")
    assert len(whole) == ITEMS
    assert rows_below(root, "parts") == [row for row in whole if row["id"] != "33#0"]
    assert {file.name for file in root.glob("parts/*")} == {file.name for file in sound.glob("parts/*")}


def test_an_encoder_that_dies_on_everything_blames_no_item(corpus: Path) -> None:
    assert run(corpus, "--always").returncode == -signal.SIGKILL
    [marker] = (corpus / "checkpoint" / "docs").rglob("attempts/*.json")
    assert History.from_json(marker.read_bytes()).at == (0, 20)
    assert run(corpus, "--always").returncode == -signal.SIGKILL
    # It died on the probe of the model: nothing says that it was an item.
    history = History.from_json(marker.read_bytes())
    assert (history.deaths, history.at, history.accused) == (1, None, ())
    encoded = [json.loads(line) for line in (corpus / "encoded").read_text().splitlines()]
    assert [len(texts) for texts in encoded] == [20, 1]


def stopped(attempts: Attempts, marker: Path, history: History) -> None:
    with attempts._at(str(marker), history, (0, 4)):
        assert History.from_json(marker.read_bytes()).at == (0, 4)
        raise KeyboardInterrupt


def test_an_error_is_not_a_death(tmp_path: Path) -> None:

    attempts = Attempts(lambda name: str(tmp_path / name))
    history = History(deaths=1, suspects=(0, 4), workers=("host",))
    for given in (History(), history):
        with pytest.raises(KeyboardInterrupt):
            stopped(attempts, tmp_path / "a", given)
        left = filesystem.exists(str(tmp_path / "a"))
        assert left == (given is history)
    assert History.from_json((tmp_path / "a").read_bytes()) == history
    (tmp_path / "a").write_text("not a marker")
    assert attempts._found(str(tmp_path / "a"), "a") == History()
