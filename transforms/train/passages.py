"""Texts that share a passage: the same words in the same order, as a chunk shares them with its document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from transforms.train.training_pairs import same

WORDS = 4
"""Of a run that is compared."""


class Passages:
    """Finds which of some texts share a passage with another text.

    Two texts do if half of the runs of words of the shorter one are in the other one too. A text of fewer words than a
    run shares one only with the same text. Case and white space do not count.

    >>> known = Passages(["the cat sat on the mat", "a dog"])
    >>> known.shared("Yesterday the cat sat on the mat."), known.shared("A  dog"), known.shared("a dog sat on the cat")
    ({0}, {1}, set())
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._with_run: dict[int, list[int]] = {}
        self._sizes: list[int] = []
        for number, text in enumerate(texts):
            runs = set(_runs(text))
            self._sizes.append(len(runs))
            for run in runs:
                self._with_run.setdefault(run, []).append(number)

    def shared(self, text: str) -> set[int]:
        """Positions of the texts that share a passage with a text."""
        runs = set(_runs(text))
        counts: dict[int, int] = {}
        for run in runs:
            for number in self._with_run.get(run, ()):
                counts[number] = counts.get(number, 0) + 1
        return {number for number, count in counts.items() if 2 * count >= min(len(runs), self._sizes[number])}


def _runs(text: str) -> Iterator[int]:
    words = same(text).split()
    for start in range(max(1, len(words) - WORDS + 1)):
        yield hash(tuple(words[start : start + WORDS]))
