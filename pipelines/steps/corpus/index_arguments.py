"""Checks the arguments of an `Index`: places, texts, ids and paths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipelines.steps.corpus.given_media import is_one
from schemas.errors import ConfigurationError


def checked_place(where: Any) -> Path:
    """Where an index is, as a path; an empty name would be the working directory."""
    remedy = "name a folder for the index, or a configuration file that ends in .yaml or .yml"
    text = str(where)
    if not isinstance(where, (str, Path)) or not text.strip() or "\x00" in text:
        raise ConfigurationError(f"{where!r} is not a path", remedy)
    path = Path(where)
    if path.suffix not in (".yaml", ".yml") and path.is_file():
        raise ConfigurationError(f"{text} is a file, and an index is a folder", remedy)
    return path


def as_lists(texts: Any, ids: Any) -> tuple[list[Any], list[Any] | None]:
    """The arguments of `add` as lists: one text, record or media file is a list of one, and so is anything odd."""
    given = [texts] if is_one(texts) else list(texts)
    if ids is None:
        return given, None
    names = [ids] if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable) else list(ids)
    if len(names) != len(given):
        raise ConfigurationError(f"there are {len(given)} texts and {len(names)} ids", "give each text an id, or none")
    return given, names


def checked_ids(ids: Any) -> set[str]:
    """The argument of `delete`, as ids."""
    several = isinstance(ids, Iterable) and not isinstance(ids, (str, bytes, bytearray, Mapping))
    given = list(ids) if several else [ids]
    for name in given:
        if not isinstance(name, (str, int)) or isinstance(name, bool):
            raise ConfigurationError(f"{name!r} is not an id", "name the ids of texts: strings or whole numbers")
    return {str(name) for name in given}


def checked_path(source: str | Path) -> str:
    """The argument of `index`, as an absolute path or glob, or as a URI."""
    text = str(source)
    if not isinstance(source, (str, Path)) or not text.strip() or "\x00" in text:
        raise ConfigurationError(f"{source!r} is not a path", "name a file, a folder or a glob; add() takes texts")
    if "://" in text:
        return text
    path = Path(text).expanduser().absolute()
    if not _exists(path) and not any(mark in text for mark in "*?["):
        raise ConfigurationError(
            f"there is no file or folder {text!r}", "correct the path; to add it as a text: add(text)"
        )
    return str(path)


def refuse_itself(mine: Path, pattern: str) -> None:
    """Refuses an index's own folder and a glob that takes it in: its checkpoint would join the corpus."""
    from schemas.glob import Glob

    if "://" in pattern:
        return
    root = Path(Glob(str(mine / pattern)).root) if "**" in pattern else Path(pattern)
    if mine == root or ("**" in pattern and mine.is_relative_to(root)):
        raise ConfigurationError(
            f"{root} holds this index itself ({mine}), whose own files would join its corpus",
            "move the index out of that folder, or index the other folders one by one",
        )


def is_text(source: str) -> bool:
    """Whether a string can't be meant as a path.

    It has a space or a line break, no slash, no suffix of a known format, and is not the name of a file.

    >>> is_text("a sentence of some words"), is_text("notes"), is_text("docs/my notes"), is_text("my notes.txt")
    (True, False, False, False)
    """
    from schemas.formats import COMPRESSED, format_of_suffix

    stripped = source.strip()
    if "\n" in stripped:
        return True
    if " " not in stripped or "/" in stripped or "\\" in stripped:
        return False
    suffixes = (*format_of_suffix(), *(suffix + end for suffix in format_of_suffix() for end in COMPRESSED))
    return not stripped.lower().endswith(suffixes) and not _exists(Path(source))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long, a folder that can't be read
        return False
