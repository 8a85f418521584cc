"""Files on a local disk that match a glob, against all paths of a small tree compared with the glob one by one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.glob import Glob
from transforms.support.storage.walk import Seen, walk

PROPERTY = settings(derandomize=True, database=None, deadline=None, max_examples=100)

names = st.sampled_from(["a", "b", ".h", "a.b", "[a]", "*"])
trees = st.sets(st.lists(names, min_size=1, max_size=3).map("/".join), max_size=8)
globs = st.lists(
    st.sampled_from(["a", "b", ".h", "*", "**", "a*", "*.b", "[[]a]", "[ab]", "?", ".*", "**.b"]),
    min_size=1,
    max_size=3,
).map("/".join)


def plant(root: Path, tree: set[str]) -> set[str]:
    """Makes files, except for those that are a folder of another; returns the existing ones."""
    files = {path for path in tree if not any(other.startswith(path + "/") for other in tree)}
    for path in files:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    return files


@PROPERTY
@given(tree=trees, glob=globs)
@example({".h/a", "a/.h/b", "a/b/.h"}, "**")
@example({".h/a", "a/.h/b"}, "**/.h/*")
@example({"a/b", "b"}, "a/**")
def test_a_walk_finds_what_matches(tree: set[str], glob: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = plant(Path(folder), tree)
        pattern = Glob(f"{folder}/{glob}")
        seen = Seen()
        found = list(walk(pattern, seen))
        expected = sorted(f"{folder}/{path}" for path in files if pattern.matches(f"{folder}/{path}"))
        assert sorted(file.uri for file in found) == expected
        assert all(file.size == Path(file.uri).stat().st_size for file in found)
        # A matching path that is a folder is recognized as one, and no matching file is called hidden.
        folders = {parent for path in files for parent in map(str, Path(path).parents) if parent != "."}
        assert set(seen.folders) <= {f"{folder}/{path}" for path in folders if pattern.matches(f"{folder}/{path}")}
        assert set(seen.hidden.first).isdisjoint(expected)


@PROPERTY
@given(tree=trees)
def test_a_walk_from_the_folder_at_hand_gives_relative_paths(tree: set[str]) -> None:
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        try:
            os.chdir(folder)
            files = plant(Path(), tree)
            for pattern in ("*", "**/*", "*/*"):
                expected = sorted(path for path in files if Glob(pattern).matches(path))
                assert sorted(file.uri for file in walk(Glob(pattern), Seen())) == expected
        finally:
            os.chdir(here)
