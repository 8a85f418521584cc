"""Globs: which letters of a path are wildcards, what they match, and how a name is written as a glob.

`*`, `?` and `[...]` stay within a name and match no leading dot, as in a shell; `**` crosses folders, and `**/` also
matches none at all. `[*]`, `[?]` and `[[]` are the letters themselves, as `glob.escape` of Python writes them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

_INSIDE = r"(?:\][^\]/]*|[^\]/!][^\]/]*)"  # a bracket that closes at once is one of the letters
_TOKEN = re.compile(rf"\*\*/|\*\*|\*|\?|\[!?{_INSIDE}\]")
_LETTER = re.compile(r"[*?\[]")
_ESCAPED = ("[*]", "[?]", "[[]")


def escape(name: str) -> str:
    """A glob that matches this path alone.

    >>> escape("data [v1]/what?.txt")
    'data [[]v1]/what[?].txt'
    """
    return _LETTER.sub(r"[\g<0>]", name)


@dataclass(frozen=True)
class Glob:
    """A glob, taken apart.

    Attributes:
        pattern: as it was written.
    """

    pattern: str

    @cached_property
    def prefix(self) -> str:
        """The letters before the first wildcard: what each match begins with.

        >>> Glob("gs://bucket/docs[[]1]/20*/*.jsonl").prefix
        'gs://bucket/docs[1]/20'
        """
        return _unescaped(self.pattern[: self._first_wildcard])

    @property
    def root(self) -> str:
        """The folder before the first wildcard, without a slash at its end.

        >>> Glob("gs://bucket/docs/20*/*.jsonl").root
        'gs://bucket/docs'
        """
        return self.prefix.rpartition("/")[0]

    @property
    def names(self) -> list[str]:
        """The globs of the names below the root.

        >>> Glob("/corpus/20*/*.jsonl").names
        ['20*', '*.jsonl']
        """
        start = self.pattern.rfind("/", 0, self._first_wildcard) + 1
        return self.pattern[start:].split("/")

    @property
    def spelled(self) -> str:
        """The path that it is if every character that is not an escape is a letter."""
        return _unescaped(self.pattern)

    @property
    def has_wildcard(self) -> bool:
        """Whether it may match anything but the path that it spells."""
        return self._first_wildcard < len(self.pattern)

    @cached_property
    def _first_wildcard(self) -> int:
        position = 0
        while found := _LETTER.search(self.pattern, position):
            token = _TOKEN.match(self.pattern, found.start())
            if token is None or token.group() not in _ESCAPED:
                return found.start()
            position = token.end()
        return len(self.pattern)

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """Matches whole paths."""
        return re.compile(_regex(self.pattern, hidden=False))

    @cached_property
    def regex_with_hidden(self) -> re.Pattern[str]:
        """Matches what the glob would match if a leading dot were a letter as any other."""
        return re.compile(_regex(self.pattern, hidden=True))

    def matches(self, path: str) -> bool:
        """Whether it matches a whole path."""
        return self.regex.fullmatch(path) is not None


def _unescaped(pattern: str) -> str:
    return _TOKEN.sub(lambda token: token.group()[1] if token.group() in _ESCAPED else token.group(), pattern)


def _regex(pattern: str, *, hidden: bool) -> str:
    parts: list[str] = []
    position = 0
    for token in _TOKEN.finditer(pattern):
        parts.append(re.escape(pattern[position : token.start()]))
        at_name_start = token.start() == 0 or pattern[token.start() - 1] == "/"
        position = token.end()
        parts.append(_token_regex(token.group(), at_name_start, "" if hidden else r"(?!\.)"))
    return "(?s:" + "".join(parts) + re.escape(pattern[position:]) + ")"


def _token_regex(token: str, at_name_start: bool, no_dot: str) -> str:
    visible = no_dot if at_name_start else ""
    if token == "**/" and at_name_start:
        return rf"(?:{no_dot}[^/]+/)*"
    if token.startswith("**"):
        rest = "/" if token.endswith("/") else ""
        return rf"{visible}[^/]*(?:/{no_dot}[^/]*)*{rest}"
    if token == "*":
        return rf"{visible}[^/]{'+' if at_name_start else '*'}"
    if token == "?":
        return rf"{visible}[^/]"
    return visible + _class_regex(token[1:-1])


def _class_regex(inside: str) -> str:
    """The regular expression of the text between brackets; an empty range such as z-a matches nothing."""
    negated = inside.startswith("!")
    letters = inside[negated:]
    parts: list[str] = []
    position = 0
    while position < len(letters):
        if letters[position + 1 : position + 2] == "-" and position + 2 < len(letters):
            low, high = letters[position], letters[position + 2]
            if low <= high:
                parts.append(f"{re.escape(low)}-{re.escape(high)}")
            position += 3
        else:
            parts.append(re.escape(letters[position]))
            position += 1
    if not parts:
        return "[^/]" if negated else "(?!)"
    return f"(?!/)[{'^' if negated else ''}{''.join(parts)}]"
