"""Runs the command line in a process of its own in which some packages can't be imported, as if not installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

TORCH = ("torch", "sentence_transformers", "transformers")
_CODE = """
import importlib.abc, json, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

BLOCKED = set(json.loads(sys.argv.pop(1)))
sys.meta_path.insert(0, Blocker())
"""
_COMMAND = "from pipelines.entry import main\nmain()"


def run_without(
    packages: tuple[str, ...], *words: str, folder: Path, code: str = _COMMAND, **environment: str
) -> subprocess.CompletedProcess[str]:
    """What `vecbeam WORDS` does where packages are missing; or what code does, with the words as sys.argv."""
    return subprocess.run(
        [sys.executable, "-c", _CODE + code, json.dumps(packages), *words],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
