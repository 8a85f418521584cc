"""A PTransform or DoFn run over a list on Beam's own runner for Python: what goes through is encoded on its way.

given = eager.tables(vecbeam.ItemsFromRecords(config), [{"id": "a", "text": "A text."}], folder) chunked =
eager.tables(vecbeam.Chunk(config), given.batches.items(), folder) assert chunked.rejects == []
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa
from apache_beam.pvalue import DoOutputsTuple
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from schemas.records import Key


class _Keep(beam.DoFn):  # type: ignore[misc]
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def process(self, output: tuple[str, Iterable[Any]]) -> None:
        (self._folder / f"eager-{output[0]}").write_bytes(pickle.dumps(list(output[1])))


class Tables(NamedTuple):
    """What a public transform gives.

    Attributes:
        batches: table of each key, keys in order.
        rejects: rows of `schemas.records.REJECT_SCHEMA` of all keys, in the order of the keys.
    """

    batches: dict[Key, pa.Table]
    rejects: list[dict[str, Any]]


def tables(step: beam.PTransform, inputs: Iterable[Any] | None, folder: Path) -> Tables:
    """The tables and rejects that a public transform makes of batches `(Key, table)`, or of records.

    Args:
        inputs: None for a transform that begins a pipeline.
        folder: for what `run` keeps; one may serve several calls.
    """
    found = run(step, inputs, folder)
    batches, rejects = found["batches" if "batches" in found else "main"], found.get("rejects", [])
    by_key = dict(sorted(batches, key=lambda batch: batch[0]))
    assert len(by_key) == len(batches), "a key came out twice"
    return Tables(by_key, [row for _, table in sorted(rejects, key=lambda one: one[0]) for row in table.to_pylist()])


def run(
    step: beam.PTransform | beam.DoFn, inputs: Iterable[Any] | None, folder: Path, *tags: str
) -> dict[str, list[Any]]:
    """What comes out, in no order: by tag or by name of a public transform's output, "main" without one.

    Args:
        inputs: None for a transform that begins a pipeline.
        folder: where outputs are kept until they are given back; one may serve several calls.
        tags: of the outputs in addition to the main one, if `step` is a DoFn with several.
    """
    if isinstance(step, beam.DoFn):
        step = beam.ParDo(step).with_outputs(*tags, main="main") if tags else beam.ParDo(step)
    with beam.Pipeline(FnApiRunner()) as pipeline:
        begin = pipeline if inputs is None else pipeline | beam.Create(list(inputs), reshuffle=False)
        found = begin | "Step" >> step
        if isinstance(found, DoOutputsTuple):
            found = {tag: found[tag] for tag in ("main", *tags)}
        outputs = found if isinstance(found, dict) else {"main": found}
        for tag, output in outputs.items():
            keyed = output | f"Key {tag}" >> beam.Map(lambda value, tag=tag: (tag, value))
            keyed | f"Group {tag}" >> beam.GroupByKey() | f"Keep {tag}" >> beam.ParDo(_Keep(folder))
    return {tag: _taken(folder / f"eager-{tag}") for tag in outputs}


def _taken(path: Path) -> list[Any]:
    """What a step kept in a file, which goes with it: the next run may use the folder again."""
    if not path.exists():
        return []
    kept: list[Any] = pickle.loads(path.read_bytes())
    path.unlink()
    return kept
