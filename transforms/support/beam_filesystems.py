"""Beam's filesystems of object stores, where the command line's own process has imported Beam without them."""

from __future__ import annotations

import contextlib
import importlib

MODULES = (
    "apache_beam.io.aws.s3filesystem",
    "apache_beam.io.azure.blobstoragefilesystem",
    "apache_beam.io.gcp.gcsfilesystem",
    "apache_beam.io.hadoopfilesystem",
)


def register() -> None:
    """Imports them, as Beam does by itself elsewhere: Beam finds the classes by their base class.

    Those whose libraries are not installed are left out.
    """
    for name in MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
