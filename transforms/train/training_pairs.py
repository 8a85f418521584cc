"""Pairs of texts that belong together, and the part of them that is held out by query."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isqrt
from typing import Any, NamedTuple

import numpy as np
import orjson

from schemas.errors import ConfigurationError
from transforms.quality.paired_test import FEWEST
from transforms.support.storage.named_file import lines_of, read_named

KEY = "PAIRS"
SHAPES = '{"query": "...", "positive": "..."}, with "negative" if there is one, or {"anchor": "...", "label": "..."}'
_FEWEST_TRAINED = 2
MOST_HELD_OUT = 500_000
"""Pairs of held-out labels that are ranked: each text of a label is a query, and all others answer it."""
_FEWEST_OF_LABEL = 20


class Pair(NamedTuple):
    """A query with a text that answers it, and "" or one that does not."""

    query: str
    positive: str
    negative: str = ""

    @property
    def texts(self) -> set[str]:
        """Its texts without differences of case and white space: what may not be in both parts."""
        return {same(text) for text in self if text}


@dataclass(frozen=True)
class PairFile:
    """The pairs of a file.

    Attributes:
        digest: SHA-256 of the file, hex.
        labels: the label of each text, if lines are anchors with labels.
        notes: what was left out, a sentence each.
    """

    path: str
    digest: str
    pairs: Sequence[Pair]
    labels: dict[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @cached_property
    def answers(self) -> dict[str, set[str]]:
        """The texts that answer each query, by `same` of the query: with labels all others of its label."""
        found: dict[str, set[str]] = {}
        for pair in self.pairs:
            found.setdefault(same(pair.query), set()).add(pair.positive)
        of_label: dict[str, set[str]] = {}
        for text, label in self.labels.items():
            of_label.setdefault(label, set()).add(text)
        for text, label in self.labels.items():
            found[same(text)] = of_label[label]
        return found


class Split(NamedTuple):
    """Two parts of the pairs that share no text.

    Attributes:
        left_out: pairs that are in neither, because a text of theirs is held out.
        unranked: texts of held-out labels that are neither trained on nor ranked, because their labels have so many.
    """

    trained: list[Pair]
    held_out: list[Pair]
    left_out: int
    unranked: Sequence[str] = ()


def same(text: str) -> str:
    """A text without differences of case and white space.

    >>> same(" Two  Words")
    'two words'
    """
    return " ".join(text.casefold().split())


def read_pairs(path: str, seed: int = 0) -> PairFile:
    """Reads JSON lines of pairs, or of anchors with labels.

    Anchors become a pair each, with another text of the same label, drawn by the seed. Pairs of a text with itself are
    left out.

    Raises:
        ConfigurationError: with the line, for what is not such a file, a blank text, or a negative that is the
            positive; if there are fewer than two different pairs, or all queries or all positives are the same.
    """
    data = read_named(path, KEY)
    pairs: dict[Pair, None] = {}
    labelled: dict[str, str] = {}
    lines = 0
    for number, line in lines_of(data):
        place = f"{KEY}: {path}, line {number}"
        record = _record(line, place)
        lines += 1
        if "label" in record or "anchor" in record:
            anchor, label = _text(record, "anchor", place), str(_label(record, place))
            if labelled.setdefault(anchor, label) != label:
                raise ConfigurationError(
                    f"{place}: the anchor {anchor[:60]!r} has the label {label!r}, and {labelled[anchor]!r} above",
                    "keep one of the two lines",
                )
        else:
            pairs[_pair(record, place)] = None
        if pairs and labelled:
            raise ConfigurationError(f"{place} mixes pairs and labels", "put them into two files")
    found = list(pairs) or _of_labels(labelled, path, seed)
    copies = lines - len(pairs or labelled)
    notes = [f"{copies:,} lines of {path} are copies of earlier ones: left out"] if copies else []
    different = [pair for pair in found if same(pair.query) != same(pair.positive)]
    if alone := len(found) - len(different):
        notes.append(f"{alone:,} pairs of {path} are of a text with itself and teach nothing: left out")
    _check(different, path)
    return PairFile(path, hashlib.sha256(data).hexdigest(), different, labelled, notes)


def split(pairs: Sequence[Pair], share: float, seed: int = 0, labels: dict[str, str] | None = None) -> Split:
    """Holds out a share of the queries, with all of their pairs; of labelled texts, whole labels, of which the seed
    draws some texts if their pairs are more than `MOST_HELD_OUT`.

    A pair that shares a text with the held-out part is left out of the training: neither the same query nor the same
    positive text is ever in both.

    Raises:
        ConfigurationError: if the share is not between 0 and 1, or one of the parts is too small.
    """
    if not 0 < share < 1:
        raise ConfigurationError(f"--held-out: {share} is not between 0 and 1", "for example --held-out 0.2")
    labels = labels or {}
    groups = [f"label {labels[pair.query]}" if labels else same(pair.query) for pair in pairs]
    names = sorted(set(groups))
    count = max(1, round(share * len(names)))
    chosen = {names[at] for at in np.random.default_rng(seed).permutation(len(names))[:count]}
    held_out = [pair for pair, group in zip(pairs, groups, strict=True) if group in chosen]
    hidden = {same(text) for pair in held_out for text in pair[:2]}
    unranked: list[str] = []
    if labels:
        held_out, unranked = _all_of_labels(chosen, labels, seed)
    rest = [pair for pair, group in zip(pairs, groups, strict=True) if group not in chosen]
    trained = [pair for pair in rest if not pair.texts & hidden]
    queries, taught = ({same(pair.query) for pair in part} for part in (held_out, trained))
    if len(queries) < FEWEST:
        raise ConfigurationError(
            f"{KEY}: {len(queries)} of {len(names):,} queries would be held out, and fewer than {FEWEST} say nothing",
            "give more queries, or raise --held-out",
        )
    if len({labels[pair.query] for pair in trained} if labels else taught) < _FEWEST_TRAINED:
        if labels:
            raise ConfigurationError(
                f"{KEY}: {len(names) - count} of {len(names)} labels remain to train on, and texts of one label teach "
                "no difference",
                "give texts of more labels: whole labels are held out",
            )
        raise ConfigurationError(
            f"{KEY}: {len(taught)} queries remain to train on: {len(rest) - len(trained):,} pairs share a text "
            "with the held-out part and would leak it",
            "give more pairs with different texts, or lower --held-out",
        )
    return Split(trained, held_out, len(rest) - len(trained), unranked)


def _record(line: bytes, place: str) -> dict[str, Any]:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ConfigurationError(f"{place} is not valid JSON: {error}", f"write {SHAPES}") from None
    if not isinstance(record, dict):
        raise ConfigurationError(f"{place} is not a JSON object", f"write {SHAPES}")
    return record


def _pair(record: dict[str, Any], place: str) -> Pair:
    query, positive = _text(record, "query", place), _text(record, "positive", place)
    negative = _text(record, "negative", place) if record.get("negative") is not None else ""
    if negative and same(negative) == same(positive):
        raise ConfigurationError(f"{place}: negative and positive are the same text", "correct or remove the negative")
    return Pair(query, positive, negative)


def _text(record: dict[str, Any], name: str, place: str) -> str:
    value = record.get(name)
    if not isinstance(value, str) or not value.strip():
        has = "has no" if value is None else "has a blank" if isinstance(value, str) else "has no text in"
        raise ConfigurationError(f"{place} {has} {name}", f"write {SHAPES}")
    return value


def _label(record: dict[str, Any], place: str) -> str | int:
    label = record.get("label")
    if isinstance(label, bool) or not isinstance(label, (str, int)) or label == "":
        raise ConfigurationError(f"{place} has no label, a string or a whole number", f"write {SHAPES}")
    return label


def _of_labels(labelled: dict[str, str], path: str, seed: int) -> list[Pair]:
    members: dict[str, list[str]] = {}
    for anchor, label in labelled.items():
        members.setdefault(label, []).append(anchor)
    if len(members) == 1:
        raise ConfigurationError(
            f"{KEY}: all texts of {path} have the label {next(iter(members))!r}", "give texts of at least two labels"
        )
    if labelled and len(members) == len(labelled):
        raise ConfigurationError(
            f"{KEY}: each text of {path} has a label of its own", "give labels that several texts have"
        )
    random = np.random.default_rng(seed)
    found = []
    for texts in members.values():
        order = [texts[at] for at in random.permutation(len(texts))]
        found += [Pair(text, order[at - 1]) for at, text in enumerate(order) if len(order) > 1]
    return found


def _all_of_labels(chosen: set[str], labels: dict[str, str], seed: int) -> tuple[list[Pair], list[str]]:
    """Each text of the chosen labels with each other one of its label, as all of them answer it; and those left out."""
    members: dict[str, list[str]] = {name: [] for name in sorted(chosen)}
    for text, label in labels.items():
        if (name := f"label {label}") in members:
            members[name].append(text)
    most = max(_FEWEST_OF_LABEL, isqrt(MOST_HELD_OUT // len(members)))
    random = np.random.default_rng(seed)
    pairs: list[Pair] = []
    left: list[str] = []
    for texts in members.values():
        drawn = set(random.permutation(len(texts))[:most].tolist())
        ranked = [text for at, text in enumerate(texts) if at in drawn]
        left += [text for at, text in enumerate(texts) if at not in drawn]
        names = [same(text) for text in ranked]
        pairs += [
            Pair(a, b)
            for a, one in zip(ranked, names, strict=True)
            for b, other in zip(ranked, names, strict=True)
            if one != other
        ]
    return pairs, left


def _check(pairs: Sequence[Pair], path: str) -> None:
    if len(pairs) < _FEWEST_TRAINED:
        raise ConfigurationError(
            f"{KEY}: {path} has {len(pairs)} different pairs",
            "give at least some hundred: some are held out to measure the model, and the others are trained on",
        )
    for name, texts in (("queries", {same(p.query) for p in pairs}), ("positives", {same(p.positive) for p in pairs})):
        if len(texts) == 1:
            raise ConfigurationError(
                f"{KEY}: all {name} of {path} are the same text, {next(iter(texts))[:60]!r}",
                "give pairs of different texts: a model learns from their differences",
            )
