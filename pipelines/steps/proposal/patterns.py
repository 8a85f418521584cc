"""Globs for the files that are taken, as they are written in a configuration."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from schemas.formats import suffixes
from schemas.glob import Glob, escape
from transforms.read.listing.inventory import Entry
from transforms.support.storage.filesystem import is_local

MOST_PATHS = 50
_NOT_UTF8 = re.compile("[\udc80-\udcff]")


def find_patterns(
    entries: Sequence[Entry], arguments: Sequence[str], given: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Globs for the files that are taken, and files that they match and that are left out."""
    patterns: list[str] = []
    also: list[str] = []
    for position, argument in enumerate(arguments):
        mine = [entry for entry in entries if entry.argument == position]
        written = str(Path(given[position]).expanduser()) if is_local(given[position]) else given[position]
        taken = [entry.path for entry in mine if not entry.why]
        if not taken:
            continue
        out = [entry.path for entry in mine if entry.why]
        if [entry.path for entry in mine] == [argument]:
            patterns.append(escape(written))
            continue
        if _is_glob(argument, mine):
            if not out:
                patterns.append(written)
                continue
            argument = Glob(argument).root
            written = Glob(written).root
        exact = [escape(written.rstrip("/")) + escape(path[len(argument.rstrip("/")) :]) for path in taken]
        wide = _wide(written.rstrip("/"), argument.rstrip("/"), taken, [])
        narrow = _wide(written.rstrip("/"), argument.rstrip("/"), taken, out)
        best = narrow if len(narrow) <= MOST_PATHS else exact if len(exact) <= MOST_PATHS else wide
        if best is wide and wide != narrow:
            also += [path for path in out if _ending(path).lower() in {_ending(one).lower() for one in taken}]
        patterns += best
    # YAML holds no bytes that are not UTF-8: a ? matches any one of them.
    return list(dict.fromkeys(_NOT_UTF8.sub("?", pattern) for pattern in patterns)), also


def _is_glob(argument: str, entries: Sequence[Entry]) -> bool:
    """Whether a path is a pattern, and no folder whose name has brackets."""
    below = f"{argument.rstrip('/')}/"
    return Glob(argument).has_wildcard and not all(entry.path.startswith(below) for entry in entries)


def _wide(written: str, folder: str, taken: Sequence[str], out: Sequence[str]) -> list[str]:
    """Globs below a folder that match what is taken and nothing of what is out."""
    endings = {path: _ending(path) for path in (*taken, *out) if not path.endswith("/")}
    hidden = [path for path in out if path.endswith("/") and not posixpath.basename(path[:-1]).startswith(".")]
    patterns = []
    for ending in sorted({endings[path] for path in taken}):
        mine = [path for path in taken if endings[path] == ending]
        spoilt = [path for path in out if endings.get(path) == ending and not posixpath.basename(path).startswith(".")]
        nested = any(posixpath.dirname(path) != folder for path in mine)
        inside = nested and any(_holds(path, ending) for path in hidden)
        if not spoilt and not inside:
            patterns.append(f"{escape(written)}/{'**/' if nested else ''}*{escape(ending)}")
            continue
        for parent in sorted({posixpath.dirname(path) for path in mine}):
            there = escape(written + parent[len(folder) :])
            if any(posixpath.dirname(path) == parent for path in spoilt):
                names = [posixpath.basename(path) for path in mine if posixpath.dirname(path) == parent]
                patterns += [f"{there}/{escape(name)}" for name in names]
            else:
                patterns.append(f"{there}/*{escape(ending)}")
    return patterns


def _ending(path: str) -> str:
    """The suffixes as they are written: ".JSONL.gz"."""
    ending = "".join(suffixes(path))
    if not path.lower().endswith(ending):  # .tgz, which stands for .tar.gz
        ending = posixpath.splitext(path)[1]
    return path[len(path) - len(ending) :] if ending else posixpath.basename(path)


def _holds(folder: str, ending: str) -> bool:
    return is_local(folder) and any(path.name.endswith(ending) for path in islice(Path(folder).rglob("*"), 10_000))


def relative(pattern: str, output: Path) -> str:
    """A local pattern below the folder of the configuration, as it is written there."""
    if not is_local(pattern) or Path(pattern).is_absolute():
        return pattern
    here = output.resolve().parent
    # A link is followed for the folder of the configuration alone, as the loader does.
    absolute = Path(pattern).absolute()
    below = escape(str(here))
    plain = str(absolute)
    if plain.startswith(f"{below}/"):
        return plain[len(below) + 1 :]
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else plain


def find_home(patterns: Sequence[str], output: Path) -> str:
    """Folder of checkpoint and Milvus Lite: hidden if the corpus' own globs would match their Parquet files."""
    here = str(output.absolute().parent)
    for pattern in patterns:
        root = str(Path(Glob(pattern).root).absolute())
        if "**" in pattern and pattern.endswith((".parquet", ".pq")) and f"{here}/".startswith(f"{root.rstrip('/')}/"):
            return ".vecbeam/"
    return ""
