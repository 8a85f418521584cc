"""How much arithmetic a model is, for the benchmark of engines, and how well a run used its encoder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from corpora import configure, text, write_jsonl
from models import KINDS, save_model

from pipelines.backfill import backfill
from pipelines.run.report_text import text as page
from schemas.config import EncoderConfig
from transforms.encoders import resolve
from transforms.encoders.engines.torch.modules import load_modules

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import matrix_rate as rates
from operations import Operations


@pytest.mark.parametrize("kind", KINDS)
def test_operations_are_those_that_torch_counts(kind: str, tmp_path: Path) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model: Any = resolve(EncoderConfig(model=str(save_model(tmp_path, kind))))
    modules = load_modules(model.files.folder, "cpu")
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
    assert Operations.of(Path(model.files.transformer_folder)).total(lengths) == pytest.approx(counted, rel=0.02)


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
    report = backfill(configure(tmp_path, encoder={"model": "all-MiniLM-L6-v2"}))
    parts = tmp_path.glob("checkpoint/tested/*/parts/*.parquet")
    lengths = np.concatenate([pq.read_table(part).column("tokens").to_numpy() for part in parts])
    assert report.rates.tokens_per_second * report.seconds.embed == pytest.approx(lengths.sum(), rel=0.05)
    assert 0 < report.rates.encoder_busy_share <= 1
    assert report.rates.padding_share == pytest.approx(
        report.tokens.padded / (report.tokens.padded + report.tokens.embedded), abs=1e-4
    )
    assert f"{report.rates.padding_share:.1%} padding" in page(report)
