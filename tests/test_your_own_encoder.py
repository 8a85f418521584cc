"""The examples of docs/guides/your-own-encoder.md, installed as packages and run."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from corpora import configure, text, write_jsonl
from drawings import write_drawings
from PIL import Image

from pipelines.backfill import backfill
from pipelines.search import search
from pipelines.steps.search.queries.query import MediaQuery

GUIDE = Path(__file__).parents[1] / "docs" / "guides" / "your-own-encoder.md"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("site")
    guide = GUIDE.read_text(encoding="utf-8")
    names = re.findall(r"^`(\w+)\.py`:", guide, re.MULTILINE)
    examples = re.findall(r"^```python\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    [points] = re.findall(r"^```toml\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    for name, example in zip(names, examples, strict=True):
        (folder / f"{name}.py").write_text(example)
    information = folder / "own-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
    lines = [line.replace('"', "") for line in points.splitlines() if "=" in line]
    (information / "entry_points.txt").write_text("\n".join(["[vecbeam.encoders]", *lines]))
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))


@pytest.mark.usefixtures("installed")
def test_images_get_their_mean_colour(tmp_path: Path) -> None:
    paths = write_drawings(tmp_path / "images", 12)
    (tmp_path / "images" / "text.png").write_text("not an image")
    config = configure(
        tmp_path,
        corpus={"paths": ["images/*.png"]},
        encoder={"model": "colour", "metric": "L2"},
        verify={"max_rejected": 0.1},
    )
    report = backfill(config)
    assert (report.verify.found, [reject.error for reject in report.rejected]) == (12, ["NotAnImage"])
    [part] = Path(config.checkpoint).rglob("parts/*.parquet")
    rows = {row["item_id"]: row["vector"] for row in pq.read_table(part).to_pylist()}
    pixels = np.asarray(Image.open(paths[3]).convert("RGB").resize((8, 8)), np.float32) / 255
    assert np.allclose(rows[paths[3].name], pixels.mean(axis=(0, 1)), atol=1e-6)
    assert search(config, MediaQuery(str(paths[3])), k=1)[0]["item_id"] == paths[3].name


@pytest.mark.usefixtures("installed")
def test_texts_get_their_trigrams(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": str(number), "text": text(number)} for number in range(30)])
    config = configure(tmp_path, encoder={"model": "trigrams"})
    report = backfill(config)
    assert (report.verify.found, report.verify.recall_at_10, report.tokens.embedded) == (30, 1.0, 30 * 6)
    assert search(config, text(17), k=1)[0]["item_id"] == "17"
