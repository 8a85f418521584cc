"""Draws the figures of `make bench` for the documentation: python benchmarks/pictures.py FIGURES docs/pictures"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "vecbeam"
import matplotlib.pyplot as plt  # noqa: E402 (after the backend is chosen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    engine = read(given.figures / "engine.json")
    labels = [f"{row['engine']} {row['precision']}" for row in engine]
    bars(
        given.folder / "engine.svg",
        labels,
        [row["documents/s"] for row in engine],
        "documents per second, engine alone",
    )
    whole = read(given.figures / "whole.json")
    names = [row["what"] for row in whole]
    bars(given.folder / "whole.svg", names, [row["rows/s"] for row in whole], "rows per second")
    growth = read(given.figures / "growth.json")
    items = [row["items"] for row in growth]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3))
    left.plot(items, [row["ms/item"] for row in growth], marker="o")
    left.set(title="milliseconds per item", xlabel="items", ylim=(0, None))
    right.plot(items, [row["peak MB"] for row in growth], marker="o")
    right.set(title="peak memory, MB", xlabel="items", ylim=(0, None))
    save(figure, given.folder / "growth.svg")


def read(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text())
    return rows


def bars(path: Path, labels: list[str], values: list[float], title: str) -> None:
    figure, axes = plt.subplots(figsize=(8, 0.4 * len(labels) + 1))
    axes.bar_label(axes.barh(labels, values), fmt="%.0f", padding=3)
    axes.invert_yaxis()
    axes.set_title(title)
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
