"""What a glob matches, against a matcher that tries every way a letter at a time."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from schemas.glob import Glob, escape

PROPERTY = settings(derandomize=True, database=None, deadline=None, max_examples=150)

patterns = st.lists(
    st.sampled_from(
        [*"ab.-/*?[]!^", "**", "**/", "/**", "[ab]", "[!a]", "[]a]", "[!]]", "[a-b.]", "[b-a]", "[*]", "[[]"]
    ),
    max_size=6,
).map("".join)
paths = st.text("ab.-/*[]!^\n", max_size=6)


def tokens(pattern: str) -> list[tuple[str, bool]]:
    """Letters and wildcards, each with whether it is at the beginning of a name."""
    found: list[tuple[str, bool]] = []
    at = 0
    while at < len(pattern):
        length = 1
        if pattern.startswith("**", at):
            length = 3 if pattern.startswith("**/", at) else 2
        elif pattern[at] == "[":
            first = at + 1 + pattern.startswith("!", at + 1)
            end = pattern.find("]", first + 1)
            if end > 0 and "/" not in pattern[at:end]:
                length = end + 1 - at
        found.append((pattern[at : at + length], at == 0 or pattern[at - 1] == "/"))
        at += length
    return found


def in_class(inside: str, letter: str) -> bool:
    if inside.startswith("!"):
        return not in_class(inside[1:], letter)
    while inside:
        if len(inside) > 2 and inside[1] == "-":
            if inside[0] <= letter <= inside[2]:
                return True
            inside = inside[3:]
        elif inside[0] == letter:
            return True
        else:
            inside = inside[1:]
    return False


def naive_match(pattern: str, path: str) -> bool:
    parsed = tokens(pattern)

    def hidden(at: int) -> bool:
        return path[at : at + 1] == "." and (at == 0 or path[at - 1] == "/")

    @cache
    def match(token: int, at: int) -> bool:
        if token == len(parsed):
            return at == len(path)
        glob, begins = parsed[token]
        letter = path[at : at + 1]
        if glob[0] not in "*?[" or glob == "[":
            return letter == glob and match(token + 1, at + 1)
        if begins and letter == ".":
            return glob == "**/" and match(token + 1, at)
        if glob == "?":
            return letter not in ("", "/") and match(token + 1, at + 1)
        if glob[0] == "[":
            return letter not in ("", "/") and in_class(glob[1:-1], letter) and match(token + 1, at + 1)
        if glob == "*":  # at the beginning of a name at least a letter of it
            ends = at
            while ends < len(path) and path[ends] != "/":
                ends += 1
            return any(match(token + 1, end) for end in range(at + begins, ends + 1))
        # Two stars take any names whole or in part, but no hidden one; with a slash whole names, or none.
        for end in range(at, len(path) + 1):
            if glob == "**/" and begins:
                whole = end == at or (path[end - 1] == "/" and "" not in path[at:end].split("/")[:-1])
                if whole and match(token + 1, end):
                    return True
            if hidden(end):
                return False
            if glob == "**/" and not begins:
                if path[end : end + 1] == "/" and match(token + 1, end + 1):
                    return True
            elif glob == "**" and match(token + 1, end):
                return True
        return False

    return match(0, 0)


@PROPERTY
@given(pattern=patterns, path=paths)
@example("**/*", "a/b/a")
@example("**/*", "a/.b/a")
@example("**", "a/.b")
@example("a**/b", "a/a/b")
@example("a/**", "a/")
@example("[!a]", ".")
@example("[!]]", "]")
@example("*", "a\nb")
@example("***", "a/.b")
def test_a_glob_matches_what_trying_every_way_matches(pattern: str, path: str) -> None:
    assert Glob(pattern).matches(path) == naive_match(pattern, path)


@PROPERTY
@given(pattern=patterns, data=st.data())
def test_what_a_glob_is_taken_apart_into(pattern: str, data: st.DataObject) -> None:
    glob = Glob(pattern)
    path = data.draw(st.from_regex(glob.regex, fullmatch=True)) if glob.has_wildcard else glob.prefix
    assume(glob.matches(path))
    assert path.startswith(glob.prefix)
    assert glob.regex_with_hidden.fullmatch(path)
    assert glob.has_wildcard or glob.prefix == glob.spelled == path
    below = path[len(glob.root) + bool(glob.root or pattern.startswith("/")) :]
    assert Glob("/".join(glob.names)).matches(below)


@PROPERTY
@given(name=paths, other=paths)
def test_an_escaped_name_matches_itself_alone(name: str, other: str) -> None:
    glob = Glob(escape(name))
    assert glob.matches(name)
    assert glob.matches(other) == (name == other)
    assert not glob.has_wildcard
    assert glob.prefix == glob.spelled == name


@pytest.mark.parametrize(
    ("pattern", "matched", "not_matched"),
    [
        ("docs/*.txt", ["docs/a.txt"], ["docs/.txt", "docs/b/a.txt", "docs/.a.txt"]),
        ("docs/**/*.txt", ["docs/a.txt", "docs/b/a.txt"], ["docs/.git/a.txt", "docs/a.txt/"]),
        ("docs/**", ["docs/a", "docs/a/b"], ["docs", "docs/.a", "docs/a/.b"]),
        ("docs/.*", ["docs/.a"], ["docs/a"]),
        ("*", ["a"], ["", ".a", "a/b"]),
    ],
)
def test_what_people_write(pattern: str, matched: list[str], not_matched: list[str]) -> None:
    glob = Glob(pattern)
    assert [path for path in matched if not glob.matches(path)] == []
    assert [path for path in not_matched if glob.matches(path)] == []
