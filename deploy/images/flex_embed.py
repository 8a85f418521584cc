"""The program of the Flex Template: one Beam job, which embeds a corpus and writes the parts of its checkpoint.

Google's launcher takes the job from this program's call of `run()` and expects the program to exit then. So the
commands of vecbeam, which build, verify and publish a collection after their jobs, can't be a template.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import yaml
from apache_beam.io.filesystems import FileSystems

import vecbeam


def read_configuration(path: str) -> vecbeam.Config:
    """The configuration in a file on object storage or on this machine."""
    with FileSystems.open(path) as file:
        values = yaml.safe_load(file.read())
    return vecbeam.parse_config(values, folder=Path("/") if "://" in path else Path(path).parent)


def start(arguments: Sequence[str]) -> Any:
    """Builds the pipeline and gives it to the runner; returns Beam's result without waiting for it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--configuration", required=True, help="A configuration of vecbeam, for example gs://B/docs.yaml"
    )
    own, beam_options = parser.parse_known_args(list(arguments))
    config = read_configuration(own.configuration)
    pipeline = beam.Pipeline(argv=beam_options)
    items = pipeline | "Read" >> vecbeam.ReadItems(config)
    chunks = items.batches | "Chunk" >> vecbeam.Chunk(config)
    rows = chunks.batches | "Embed" >> vecbeam.Embed(config)
    _ = rows.batches | "Write" >> vecbeam.WriteParts(config)
    for step, outputs in (("read", items), ("chunk", chunks), ("embed", rows)):
        _ = outputs.rejects | f"Rejects of {step}" >> vecbeam.WriteRejects(config, step)
    return pipeline.run()


if __name__ == "__main__":
    start(sys.argv[1:])
