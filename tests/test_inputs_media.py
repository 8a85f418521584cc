"""Encoders of different inputs of one record: a title with a recording, and with both parts of a film."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from corpora import configure, write_jsonl
from drawings import save_timm_model
from recordings import encoded as sound_file
from recordings import save_whisper, tune
from run_results import least_cosine, rows_in_parts
from shop import FAKE

from pipelines.backfill import backfill
from pipelines.search import search
from pipelines.steps.search.queries.query import MediaQuery

pytest.importorskip("open_clip", reason="the extra image is not installed")


def test_a_title_and_a_recording(tmp_path: Path) -> None:
    whisper = save_whisper(tmp_path / "whisper")
    for number, seconds in enumerate((0.6, 3.5)):
        (tmp_path / f"{number}.wav").write_bytes(sound_file(tune(number, seconds)))
    (tmp_path / "2.wav").write_bytes(b"RIFF")
    write_jsonl(tmp_path / "a.jsonl", [{"id": f"s{n}", "title": f"song {n}", "file": f"{n}.wav"} for n in range(3)])
    encoders = {"title": {**FAKE, "input": ["title"]}, "sound": {"model": str(whisper), "input": "media"}}
    corpus = {"paths": ["a.jsonl"], "content": ["title"], "media": "file", "media_modality": "audio"}
    config = configure(
        tmp_path,
        corpus=corpus,
        chunk=False,
        encoders=encoders,
        verify={"max_rejected": 1.0, "max_dropped_tokens": 1.0},
    )
    report = backfill(config)
    assert (report.items.new, report.chunks.cut) == (2, 1)
    [reject] = report.rejected
    assert (reject.id, reject.reason.split(":")[0]) == ("s2", "file")
    rows = rows_in_parts(config, "item_id")
    assert (rows["s0"]["seconds_dropped"], rows["s1"]["seconds_dropped"], rows["s1"]["tokens"]) == (0.0, 1.5, 2)
    alone = tmp_path / "alone"
    alone.mkdir()
    (tmp_path / "2.wav").unlink()
    only = configure(
        alone, corpus={"paths": ["../*.wav"], "format": "audio"}, chunk=False, encoder={"model": str(whisper)},
        verify={"max_dropped_tokens": 1.0},
    )  # fmt: skip
    backfill(only)
    wanted = rows_in_parts(only, "item_id")
    for number in range(2):
        assert least_cosine([rows[f"s{number}"]["sound"]], np.array([wanted[f"{number}.wav"]["vector"]])) >= 0.99999
    assert search(config, MediaQuery(str(tmp_path / "1.wav")), k=1)[0]["item_id"] == "s1"


def test_a_title_and_both_parts_of_a_film(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="the extra video is not installed")
    from films import film

    whisper, images = save_whisper(tmp_path / "whisper"), save_timm_model(tmp_path / "timm")
    (tmp_path / "a.mp4").write_bytes(film((1, 2), 1.0, sound=440))
    (tmp_path / "b.mp4").write_bytes(film((3,), 1.0))
    write_jsonl(tmp_path / "a.jsonl", [{"id": name, "title": f"film {name}", "file": f"{name}.mp4"} for name in "ab"])
    parts = {"picture": {"model": str(images), "frames": 4}, "sound": {"model": str(whisper), "input": "sound"}}
    records = {"paths": ["a.jsonl"], "content": ["title"], "media": "file", "media_modality": "video"}
    config = configure(
        tmp_path,
        corpus=records,
        chunk=False,
        encoders={
            "title": {**FAKE, "input": ["title"]},
            **parts,
            "picture": {**parts["picture"], "input": "media"},
        },
        verify={"max_rejected": 1.0},
    )
    report = backfill(config)
    assert (report.items.new, [(one.id, one.error) for one in report.rejected]) == (1, [("b", "NoSound")])
    assert report.rejected[0].reason.startswith("file: ")
    (tmp_path / "alone").mkdir()
    alone = configure(tmp_path / "alone", corpus={"paths": ["../a.mp4"]}, chunk=False, encoders=parts)
    backfill(alone)
    found, wanted = rows_in_parts(config, "item_id")["a"], rows_in_parts(alone, "item_id")["a.mp4"]
    for name in parts:
        assert least_cosine([found[name]], np.array([wanted[name]])) >= 0.99999
