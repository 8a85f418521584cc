"""A PTransform or DoFn run over a list on Beam's own runner for Python: what goes through is encoded on its way."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import DoOutputsTuple
from apache_beam.runners.portability.fn_api_runner import FnApiRunner


class _Keep(beam.DoFn):  # type: ignore[misc]
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def process(self, output: tuple[str, Iterable[Any]]) -> None:
        (self._folder / f"eager-{output[0]}").write_bytes(pickle.dumps(list(output[1])))


def run(step: beam.PTransform | beam.DoFn, inputs: Iterable[Any], folder: Path, *tags: str) -> dict[str, list[Any]]:
    """What comes out, in no order: by tag, "main" without one.

    Args:
        folder: an empty one, where outputs are kept until they are given back.
        tags: of the outputs beside the main one, where `step` is a DoFn with several.
    """
    if isinstance(step, beam.DoFn):
        step = beam.ParDo(step).with_outputs(*tags, main="main") if tags else beam.ParDo(step)
    with beam.Pipeline(FnApiRunner()) as pipeline:
        found = pipeline | beam.Create(list(inputs), reshuffle=False) | "Step" >> step
        outputs = {tag: found[tag] for tag in ("main", *tags)} if isinstance(found, DoOutputsTuple) else {"main": found}
        for tag, output in outputs.items():
            keyed = output | f"Key {tag}" >> beam.Map(lambda value, tag=tag: (tag, value))
            keyed | f"Group {tag}" >> beam.GroupByKey() | f"Keep {tag}" >> beam.ParDo(_Keep(folder))
    kept = {tag: folder / f"eager-{tag}" for tag in outputs}
    return {tag: pickle.loads(path.read_bytes()) if path.exists() else [] for tag, path in kept.items()}
