"""Variables of other programs' libraries that would change what a command does, or stop it before it begins.

This is for the process of the command line alone; a Python program that imports vecbeam keeps its environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from transforms.support import process

# pymilvus reads these when it is imported, and fails there on a value that it can't parse. What the configuration says
# is passed to it explicitly.
_OF_PYMILVUS = ("MILVUS_URI", "MILVUS_DEFAULT_CONNECTION", "MILVUS_CONN_ALIAS", "MILVUS_CONN_TIMEOUT")
# Counts of threads and bytes: libraries warn about a value that is not a number, or crash.
_COUNTS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMEXPR_MAX_THREADS",
    "RAYON_NUM_THREADS",
    "TOKENIZERS_RAYON_NUM_THREADS",
    "MILVUS_LITE_MEMTABLE_MEMORY_LIMIT_BYTES",
    "MILVUS_LITE_WAL_SIZE_LIMIT_BYTES",
)
_SWITCHES = ("TOKENIZERS_PARALLELISM",)
_SWITCHED = ("", "0", "1", "true", "false", "on", "off", "yes", "no")

_given: Mapping[str, str] = os.environ


def prepare() -> None:
    """Sets this process's variables right; `given` still has what it was started with."""
    global _given
    _given = dict(os.environ)
    for name in _OF_PYMILVUS:
        os.environ.pop(name, None)
    # pymilvus looks for a .env file in the folders above its own, which may be the project's, for another program.
    os.environ["PYTHON_DOTENV_DISABLED"] = "1"
    for name in _COUNTS:
        value = os.environ.get(name)
        if value is not None and not _is_count(value, lists=name == "OMP_NUM_THREADS"):
            del os.environ[name]
    for name in _SWITCHES:
        if name in os.environ and os.environ[name].lower() not in _SWITCHED:
            del os.environ[name]
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # pydantic would read the entry points of each installed package, to find plugins that watch its validation.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
    # Beam starts workers with `python -m`, which would look for `schemas` and the like in the current folder first.
    os.environ["PYTHONSAFEPATH"] = "1"
    # Worker processes are forked after the launcher has tokenized; tokenizers would continue with one thread, and warn.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    process.take()


def given() -> Mapping[str, str]:
    """The variables that the process was started with: what ${NAME} in a configuration means."""
    return _given


def silence() -> None:
    """Turns down what libraries print where they have a variable for it; without `--debug`."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def _is_count(value: str, *, lists: bool) -> bool:
    parts = value.split(",") if lists else [value]
    return all(part.strip().isascii() and part.strip().isdigit() and int(part) > 0 for part in parts)
