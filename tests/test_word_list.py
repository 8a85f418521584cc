"""The check of the prose: which words it finds where, and which text it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import word_list

PYTHON = '''
"""A docstring that lacks a word."""

beside = 1  # stands
# a comment that goes
# on in its second line
text = f"{beside} of the alias leads to {beside}"
'''


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Each run makes it anew.", [(0, "anew")]),
        ("reindex `--anew` and reindex --anew", []),
        ("one row\na part", [(0, "row a part")]),
        ("There is no part. It is no longer there is no name.", []),
        ("x is no name\nthe name is not at hand", [(0, "is no name"), (1, "at hand")]),
        ("K stands for thousand, stand-ins for S3.", []),
        ("It takes up to a minute, the next run takes it up.", [(0, "takes it up")]),
    ],
)
def test_words_are_found_in_text(text: str, found: list[tuple[int, str]]) -> None:
    assert [(line, word) for line, word, _ in word_list.findings(text)] == found


def test_in_python_only_prose_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_list, "ROOT", tmp_path)
    (tmp_path / "module.py").write_text(PYTHON)
    assert word_list.check([tmp_path / "module.py"]) == [
        "module.py:2: lacks, use instead: does not have, missing",
        "module.py:4: stands, use instead: is",
        "module.py:5: goes on, use instead: resume, continue",
        "module.py:7: leads to, use instead: points to",
    ]
