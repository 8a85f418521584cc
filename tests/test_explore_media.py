"""`vecbeam explore clusters` over pictures: the real command, on pictures of two colours in folders and in one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import configure
from drawings import encoded, save_timm_model
from PIL import Image
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from transforms import milvus

pytest.importorskip("faiss", reason="the extra explore is not installed")
COLOURS = {"birds": (200, 30, 30), "boats": (30, 40, 210)}
EACH = 6


def write_pictures(corpus: Path, *, in_folders: bool) -> None:
    """Pictures of two colours with some noise; one of the first is in the folder of the second."""
    random = np.random.default_rng(5)
    for folder, colour in COLOURS.items():
        for number in range(EACH):
            pixels = np.clip(np.asarray(colour) + random.normal(0, 12, (64, 64, 3)), 0, 255).astype(np.uint8)
            of = "boats" if folder == "birds" and number == 5 else folder
            place = corpus / of / f"{folder}{number}.png" if in_folders else corpus / f"{folder}{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(encoded(Image.fromarray(pixels)))


def clusters(folder: Path, *, in_folders: bool) -> Any:
    write_pictures(folder / "corpus", in_folders=in_folders)
    encoder = {"model": str(save_timm_model(folder / "model")), "family": "timm"}
    config = configure(folder, corpus={"paths": ["corpus/**/*.png"]}, encoder=encoder)
    backfill(config)
    milvus.release(config.collection)
    words = ["explore", "clusters", str(folder / "vecbeam.yaml"), "-n", "2", "--json"]
    result = CliRunner().invoke(app, [*words, "--html", str(folder / "page.html")])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert "Sizes" in (folder / "page.html").read_text()
    return found


def test_clusters_of_pictures_are_named_by_their_folders(tmp_path: Path) -> None:
    found = clusters(tmp_path, in_folders=True)
    names = {name.partition(" ")[2]: size for name, size in found["sizes"].items()}
    assert names == {"birds (83%)": EACH, "boats (100%)": EACH}
    [strange] = [row for row in found["rows"] if row["item_id"] == "boats/birds5.png"]
    assert strange["name"] == "birds (83%)"


def test_clusters_of_pictures_in_one_folder_are_named_by_the_picture_in_the_middle(tmp_path: Path) -> None:
    found = clusters(tmp_path, in_folders=False)
    nearest = {}
    for row in found["rows"]:  # the nearest to the centre first
        nearest.setdefault(row["cluster"], row)
    assert {row["name"] for row in nearest.values()} == {f"like {row['item_id']}" for row in nearest.values()}
    assert {row["item_id"].rstrip("0123456789.png") for row in nearest.values()} == {"birds", "boats"}
