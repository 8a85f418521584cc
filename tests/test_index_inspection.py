"""The commands that look, as methods of an `Index`."""

from __future__ import annotations

import os
import signal
import threading
import urllib.request
from pathlib import Path

import pytest
from corpora import configure, text, write_jsonl
from served_site import EXTRA

import vecbeam
from schemas.errors import InterruptedRunError
from transforms.support.extras import is_installed


@pytest.fixture
def index(tmp_path: Path) -> vecbeam.Index:
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": str(number), "text": text(number)} for number in range(8)])
    configure(tmp_path)
    index = vecbeam.Index(tmp_path / "vecbeam.yaml")
    index.index()
    return index


def test_an_index_has_the_words_of_the_command_line(index: vecbeam.Index, tmp_path: Path) -> None:
    with index:
        run = index.report()
        assert run.command == "sync"
        assert index.report(run.run_id).items.new == 8
        assert index.report(html=str(tmp_path / "report.html")).run_id == run.run_id
        assert run.run_id in (tmp_path / "report.html").read_text()
        assert index.doctor(offline=True).is_ready
        served = index.status().served
        assert served is not None
        assert served.rows == 8
        found = index.explore.map().written(out=str(tmp_path / "map.csv"), html=str(tmp_path / "map.html"))
        assert len((tmp_path / "map.csv").read_text().splitlines()) == found.table.num_rows + 1


@pytest.mark.skipif(not is_installed(*EXTRA), reason="needs the extra serve")
def test_an_index_is_served_until_ctrl_c(index: vecbeam.Index) -> None:
    answers = []

    def look(address: str) -> None:
        try:
            with urllib.request.urlopen(f"{address}healthz", timeout=60) as answer:
                answers.append(answer.status)
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    try:
        with index, pytest.raises(InterruptedRunError, match="the server was stopped"):
            index.serve(port=0, ready=lambda address: threading.Thread(target=look, args=(address,)).start())
    finally:
        signal.signal(signal.SIGINT, before)
    assert answers == [200]
