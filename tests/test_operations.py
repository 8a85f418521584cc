"""How much arithmetic a model is, and what share of the device's matrix rate an encoder reaches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from corpora import configure, text, write_jsonl
from models import KINDS, save_model

from pipelines.backfill import backfill
from pipelines.report import text as page
from schemas.config import Encoder
from transforms.encoders import resolve
from transforms.encoders.engines import matrix_rate as rates
from transforms.encoders.engines.operations import Operations
from transforms.encoders.engines.torch.modules import load_modules


@pytest.mark.parametrize("kind", KINDS)
def test_operations_are_those_that_torch_counts(kind: str, tmp_path: Path) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model: Any = resolve(Encoder(model=str(save_model(tmp_path, kind))))
    modules = load_modules(model.folder, "cpu")
    transformer = modules[0].auto_model
    transformer.set_attn_implementation("eager")  # whose products the counter sees
    lengths = np.array([5, 23], np.int64)
    counted = 0
    for length in lengths.tolist():
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            ids = torch.arange(length)[None] % 7 + 5
            transformer(input_ids=ids, attention_mask=torch.ones_like(ids))
        counted += counter.get_total_flops()
    if getattr(transformer, "pooler", None) is not None:
        counted -= len(lengths) * 2 * 32 * 32  # of which nobody makes use
    assert Operations.of(Path(model.transformer_folder)).total(lengths) == pytest.approx(counted, rel=0.02)


def test_the_matrix_rate_is_measured_once_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECBEAM_CACHE", str(tmp_path))
    monkeypatch.setitem(rates.SIDE, "cpu", 256)
    found = rates.matrix_rate("cpu", "float32")
    assert found > 1e8
    monkeypatch.setattr(rates, "measure", lambda *_: 1.0)
    assert rates.matrix_rate("cpu", "float32") == found
    assert rates.matrix_rate("cpu", "bfloat16") == 1.0
    [file] = [file for file in tmp_path.glob("*/rate.json") if json.loads(file.read_text())["flops_per_second"] > 1]
    file.write_text("{")
    assert rates.matrix_rate("cpu", "float32") == 1.0


def test_a_cache_that_can_t_be_written_costs_the_measurement_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VECBEAM_CACHE", str(tmp_path / "file" / "cache"))
    folder = save_model(tmp_path)
    encoded = resolve(Encoder(model=str(folder), engine="torch")).load().encode(["some words", "and more"])
    assert encoded.possible_operations > 0
    assert encoded.operations > 0


def test_a_device_without_room_for_the_matrices_is_measured_with_smaller_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    asked: list[int] = []
    real = torch.randn

    def full(rows: int, columns: int, **kind: Any) -> Any:
        asked.append(rows)
        if rows > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(rows, columns, **kind)

    monkeypatch.setattr(torch, "randn", full)
    room = 1024
    assert rates.measure("cpu", "float32") > 1e8
    assert asked == [2048, 1024, 1024]
    room = 0
    with pytest.raises(torch.OutOfMemoryError):
        rates.measure("cpu", "float32")


def test_a_report_says_how_well_the_encoder_was_used(tmp_path: Path) -> None:
    records = [{"id": f"{at}", "text": text(at) * (1 + at % 9)} for at in range(200)]
    write_jsonl(tmp_path / "corpus" / "a.jsonl", records)
    config = configure(tmp_path, encoder={"model": "all-MiniLM-L6-v2"})
    report = backfill(config)
    parts = tmp_path.glob("checkpoint/tested/*/parts/*.parquet")
    lengths = np.concatenate([pq.read_table(part).column("tokens").to_numpy() for part in parts])
    rates, seconds = report.rates, report.seconds.embed
    model: Any = resolve(config.encoder)
    operations = Operations.of(Path(model.transformer_folder)).total(lengths)
    assert rates.model_flops_per_second * seconds == pytest.approx(operations, rel=0.05)
    assert rates.tokens_per_second * seconds == pytest.approx(lengths.sum(), rel=0.05)
    assert 0 < rates.model_flop_utilisation < 20
    assert 0 < rates.encoder_busy_share <= 1
    assert rates.padding_share == pytest.approx(
        report.tokens.padded / (report.tokens.padded + report.tokens.embedded), abs=1e-4
    )
    assert f"{rates.model_flop_utilisation:.0%} of the matrix rate" in page(report)
