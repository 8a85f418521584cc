"""What benchmarks share: a command in a process of its own, a table, and figures as JSON."""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import yaml


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes: the corpus and where the figures go."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    return parser


def records(corpus: Path, rows: int | None = None) -> list[dict[str, Any]]:
    """The first records of a JSONL file."""
    with gzip.open(corpus, "rt") if corpus.suffix == ".gz" else corpus.open() as lines:
        return [json.loads(line) for line in islice(lines, rows)]


def configure(work: Path, corpus: Path, **changes: Any) -> Path:
    """Writes a configuration for a corpus of Debian descriptions; `changes` replace its keys."""
    values: dict[str, Any] = {
        "name": "bench",
        "corpus": {"paths": [str(corpus.resolve())], "content": ["text"]},
        "encoder": {"model": "all-MiniLM-L6-v2"},
        "checkpoint": "checkpoint",
        "collection": {"uri": "./milvus.db", "index": {"type": "AUTOINDEX"}},
    }
    path = work / "vecbeam.yaml"
    path.write_text(yaml.safe_dump(values | changes))
    return path


def vecbeam(command: str, configuration: Path, *more: str) -> tuple[float, dict[str, Any]]:
    """Runs a command as a user would; returns its wall seconds, start and exit included, and its report."""
    start = time.perf_counter()
    line = [sys.executable, "-m", "pipelines.entry", command, str(configuration), "--json", "--quiet", *more]
    done = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    return time.perf_counter() - start, json.loads(done.stdout)


def show(rows: Sequence[dict[str, Any]], path: Path | None = None) -> None:
    """Prints rows with the same keys as a table, and writes them as JSON."""
    texts = [[_text(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(rows[0], *texts, strict=True)]
    for line in (list(rows[0]), *texts):
        print("  ".join(value.rjust(width) for value, width in zip(line, widths, strict=True)))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(list(rows), indent=1) + "\n")


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.5g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
