"""What the command line leaves out while it imports Beam, and that code which needs it can import it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.run.terminal import light_beam

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = [
    "apache_beam.io.gcp.bigquery",
    "apache_beam.io.gcp.gcsfilesystem",
    "apache_beam.io.aws.s3filesystem",
    "apitools",
    "google.cloud.bigquery",
    "google.cloud.dataflow",
    "google.cloud.storage",
    "boto3",
    "pandas",
    "pymongo",
]
PROGRAM = """
import json, sys
from transforms.support import process
process.take()
from pipelines.run.terminal.command import _import_quickly
from schemas.config.loader import parse_config
values = json.loads(sys.argv[1])
_import_quickly(parse_config(values))
from apache_beam.io.filesystems import FileSystems
imported = [name for name in json.loads(sys.argv[2]) if name in sys.modules]
from transforms.support.storage.remote.beam_file import beam
found = type(beam().get_filesystem("gs://bucket/name")).__name__
import pandas, pymongo
print(json.dumps([imported, found, pandas.DataFrame({"a": [1]}).size]))
"""


@pytest.mark.parametrize("name", ["local", "portable"])
def test_a_local_run_imports_beam_without_clients_that_it_does_not_use(name: str) -> None:
    pytest.importorskip("google.cloud.bigquery", reason="pip install 'vecbeam[gcp]'")
    pytest.importorskip("boto3", reason="pip install 'vecbeam[s3]'")
    values: dict[str, Any] = {
        "name": "light",
        "corpus": {"paths": ["gs://bucket/*.txt"]},
        "encoder": {"model": "fake"},
        "checkpoint": "gs://bucket/checkpoint",
        "collection": {"uri": "http://127.0.0.1:9"},
        "runner": {"name": name},
    }
    line = [sys.executable, "-c", PROGRAM, json.dumps(values), json.dumps(LEFT_OUT)]
    done = subprocess.run(line, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    imported, found, size = json.loads(done.stdout)
    # A runner elsewhere stages files through them.
    assert imported == ([] if name == "local" else LEFT_OUT)
    assert (found, size) == ("GCSFileSystem", 1)


def test_another_program_imports_beam_as_it_is() -> None:
    before = list(sys.meta_path)
    light_beam.prepare()
    assert sys.meta_path == before


def test_what_beam_found_out_about_a_class_does_not_hide_the_state_of_another_function() -> None:
    """conftest.py makes Beam remember in every test."""
    import apache_beam as beam
    from apache_beam.coders import VarIntCoder
    from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, is_stateful_dofn

    seen_so_far = beam.DoFn.StateParam(ReadModifyWriteStateSpec("seen", VarIntCoder()))

    class Functions:
        def plain(self, element: int) -> list[int]:
            return [element]

        def stateful(self, element: int, seen: Any = seen_so_far) -> list[int]:  # noqa: ARG002
            return [element]

    class Stateful(Functions, beam.DoFn):  # type: ignore[misc]
        process = Functions.stateful

    functions = Functions()
    for _ in range(2):
        assert not is_stateful_dofn(beam.FlatMap(functions.plain).fn)
        assert is_stateful_dofn(beam.FlatMap(functions.stateful).fn)
        assert not is_stateful_dofn(beam.FlatMap(lambda element: [element]).fn)
        assert is_stateful_dofn(Stateful())
