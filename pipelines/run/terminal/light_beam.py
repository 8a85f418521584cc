"""Beam without the libraries of stores, databases and data frames that a local run does not use: half of its import.

Beam imports its clients of BigQuery, GCS, S3, Azure, MongoDB and Dataflow, and pandas, with itself, whatever a pipeline
does, and takes each for an option that may not be installed. While Beam is imported, this process does not have them;
afterwards it does. What needs one of Beam's filesystems imports it then: `transforms.support.beam_filesystems`.
"""

from __future__ import annotations

import sys

from transforms.support import process
from transforms.support.beam_filesystems import MODULES
from transforms.support.hidden_modules import HiddenModules

_BEAM = "apache_beam"
_HIDDEN = frozenset({*MODULES, "apache_beam.io.gcp.bigquery", "apitools", "google.cloud.dataflow", "pandas", "pymongo"})


def prepare() -> None:
    """For the command line's own process, whose pipelines run in it; has no effect if Beam is imported already."""
    if process.is_own() and _BEAM not in sys.modules:
        sys.meta_path.insert(0, HiddenModules(_HIDDEN, _BEAM))
