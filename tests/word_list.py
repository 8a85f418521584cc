"""Checks the prose of this repository against a list of words: `make lint` runs it.

    python tests/word_list.py [FILE]...

Prose is the text of documents, and comments, docstrings and strings of Python files, without names in backticks. A
finding is printed as `file:line: word, use instead`.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = {".md", ".yaml", ".yml", ".sh", ".h", ".cpp", ".toml"}
NAMES_WITHOUT_SUFFIX = {"Makefile", "Dockerfile"}
SKIPPED = {"tests/word_list.py", "tests/test_word_list.py"}
"""Files that name the words."""
SKIPPED_FOLDERS = ("tests/data/",)

PER = (
    "chunk|collection|command|core|file|id|item|job|machine|module|part|process|row|run|second|shard|space|token|worker"
)
COUNTED = (
    "batch|batches|bytes|column|columns|dict|documents|entry|figure|file|files|images|kB|line|lock|lookup|MB|milliseconds"
    "|model|ms|object|record|report|row|rows|second|seconds|sentence|table|test|times|token|tokens|vector|vectors"
)
WORDS: tuple[tuple[str, str], ...] = (
    (r"mend(?:s|ed|ing)?", "fix"),
    (r"anew", "again, or from scratch"),
    (r"(?:stands?|there) twice", "is a duplicate"),
    (r"t(?:ake|akes|aken|aking|ook) (?:it |them )?up(?! to)", "resume"),
    (r"let(?:s|ting)? go", "release"),
    (r"lack(?:s|ed|ing)?", "does not have, missing"),
    (r"besides?", "next to, with, in addition to"),
    (r"asked", "target, requested"),
    (r"by hand", "manually"),
    (r"the way on GPUs?", "GPU support"),
    (
        r"(?<!there\s)(?:is|are|was|were) no (?!longer\b|more\b|less\b|larger\b|newer\b|faster\b)\w+",
        "is not a",
    ),
    (r"in step", "in sync"),
    (r"go(?:es|ing)? on", "resume, continue"),
    (r"told", "reported, shown"),
    (r"at hand", "available, current"),
    (r"rooms?", "package, space"),
    (r"wants", "needs, expects"),
    (r"know[ns]? of", "detects, known"),
    (r"foresee[ns]?", "predict, expect"),
    (r"lies|lay|lying", "is, is stored"),
    (r"in passing", "temporarily"),
    (r"but for", "except for"),
    (r"(?:leads?|led) (?:to|nowhere)", "points to"),
    (r"alike", "the same"),
    (r"otherwise than", "differently from"),
    (r"of ours|of our own", "of vecbeam"),
    (r"shall", "must, should"),
    (r"stood", "was"),
    (r"stands?(?!-| for\b)", "is"),
    (r"without a word", "silently"),
    (r"(?:is|are|was|were) there(?! (?:an?|any|no|the)\b)(?!\?)", "exists"),
    (r"in there", "in it"),
    (r"of before", "earlier, previous"),
    (r"not one (?:row|item|record|word)", "no"),
    (r"for good", "permanently"),
    (r"made out", "determined"),
    (r"hand(?:s|ed)? (?:back|on|over)", "returns, passes"),
    (r"hangs? on", "depends on"),
    (r"heeds?", "obeys"),
    (rf"(?:{COUNTED}) an? (?:{PER})(?! time)", "per"),
)
PATTERN = re.compile(
    rf"\b(?:{'|'.join(f'(?P<word_{at}>{word})' for at, (word, _) in enumerate(WORDS))})\b".replace(" ", " +"),
    re.IGNORECASE,
)
_NO_PROSE = re.compile(r"`[^`\n]*`|(?<=\n)[ \t]*(?:#+|//+) |--[\w-]+")
"""Names in backticks, options, and what begins a line of a comment."""
_EXPRESSION = re.compile(r"\{[^{}]*\}")


def findings(text: str) -> Iterator[tuple[int, str, str]]:
    """Yields the line in a text (from 0), the word, and what to use instead. A phrase may cross the end of a line."""
    blank = _NO_PROSE.sub(lambda found: " " * len(found[0]), text).replace("\n", " ")
    for found in PATTERN.finditer(blank):
        yield text.count("\n", 0, found.start()), " ".join(found[0].split()), WORDS[int(str(found.lastgroup)[5:])][1]


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the first line (from 1) and the text of each piece of prose in a file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield 1, text
        return
    if next(findings(text), None) is None:  # tokenizing takes most of the time
        return
    first, comment = 0, [""]
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.STRING:
            start = token.string.lower().partition(token.string[-1])[0]
            blank = _EXPRESSION.sub(lambda found: " " * len(found[0]), token.string) if "f" in start else token.string
            yield token.start[0], blank
        if token.type == tokenize.COMMENT:
            if token.start[0] != first + len(comment):
                yield first, "\n".join(comment)
                first, comment = token.start[0], []
            comment.append(token.string)
    yield first, "\n".join(comment)


def files() -> list[Path]:
    """Returns the files with prose that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return [
        ROOT / name
        for name in listed
        if name not in SKIPPED
        and not name.startswith(SKIPPED_FOLDERS)
        and (Path(name).suffix in DOCUMENTS | {".py"} or Path(name).name in NAMES_WITHOUT_SUFFIX)
        and (ROOT / name).exists()
    ]


def check(paths: list[Path]) -> list[str]:
    """Returns a line for each word of the list that is in some files."""
    found = [
        (path, first + line, word, instead)
        for path in paths
        for first, text in prose(path)
        for line, word, instead in findings(text)
    ]
    return [
        f"{path.relative_to(ROOT)}:{line}: {word}, use instead: {instead}"
        for path, line, word, instead in sorted(found)
    ]


if __name__ == "__main__":
    found = check([Path(name).resolve() for name in sys.argv[1:]] or files())
    print("\n".join(found))
    sys.exit(1 if found else 0)
