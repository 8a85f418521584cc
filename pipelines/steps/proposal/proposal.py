"""A configuration that is proposed, and what was seen on the way to it, for people and as JSON."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.steps.proposal.columns import shown_kinds
from schemas.formats import WEBDATASET

NAMED = 5
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]+")


@dataclass
class Proposal:
    """A configuration, and what was seen on the way to it.

    Attributes:
        values: of the configuration.
        seen: files of each kind.
        taken: files that the configuration reads, of each kind.
        taken_bytes: their size.
        left_out: what is not read, and why: reason -> paths.
        fields_left_out: field -> why.
        samples: id and beginning of some texts; of media id and file.
        shown_as: what `samples` show: text or file.
        notes: what a user should know before a run.
        path: of the configuration; "" where none is written.
    """

    values: dict[str, Any]
    seen: Counter[str] = field(default_factory=Counter)
    taken: Counter[str] = field(default_factory=Counter)
    taken_bytes: int = 0
    left_out: dict[str, list[str]] = field(default_factory=dict)
    fields_left_out: dict[str, str] = field(default_factory=dict)
    samples: list[tuple[str, str]] = field(default_factory=list)
    shown_as: str = "text"
    notes: list[str] = field(default_factory=list)
    path: str = ""

    @property
    def corpus(self) -> dict[str, Any]:
        corpus: dict[str, Any] = self.values["corpus"]
        return corpus

    def lines(self) -> list[str]:
        """Returns the findings, one line each."""
        corpus = self.corpus
        lines = [
            f"found {_files(self.seen)}",
            f"reads {_files(self.taken)}, {_size(self.taken_bytes)}",
        ]
        for why, paths in self.left_out.items():
            lines.append(f"leaves out {_some(paths)}: {why}")
        if "content" in corpus or ("media" in corpus and corpus.get("format") != WEBDATASET):
            identity = corpus["id"] if isinstance(corpus["id"], str) else f"hash of {', '.join(corpus['id']['hash'])}"
            embedded = (
                f"content: {', '.join(corpus['content'])}" if "content" in corpus else f"media: {corpus['media']}"
            )
            lines.append(f"id: {identity}; {embedded}")
        elif corpus.get("format") == WEBDATASET:
            lines.append("each sample of a tar is an item; the name of its members up to the first dot is the id")
        else:
            lines.append("each file is an item; its path is the id")
        if metadata := corpus.get("metadata"):
            lines.append(f"metadata: {', '.join(shown_kinds(metadata))}")
        reasons: dict[str, list[str]] = {}
        for name, why in self.fields_left_out.items():
            reasons.setdefault(why, []).append(name)
        lines += [f"no column for {_some(names)}: {why}" for why, names in reasons.items()]
        lines += [f"{self.shown_as} of {printable(item_id)}: {text}" for item_id, text in self.samples]
        return lines + [f"note: {note}" for note in self.notes]

    def __str__(self) -> str:
        command = shlex.join(["vecbeam", "backfill", self.path])
        return "\n".join([*self.lines(), f"wrote {self.path} (alias {self.values['name']})", f"next: {command}"])

    def as_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "name": self.values["name"],
            "files": {
                "seen": dict(self.seen),
                "taken": dict(self.taken),
                "taken_bytes": self.taken_bytes,
                "left_out": [{"why": why, "paths": paths} for why, paths in self.left_out.items()],
            },
            "corpus": self.corpus,
            "fields_left_out": self.fields_left_out,
            "samples": [{"id": item_id, "text": text} for item_id, text in self.samples],
            "notes": self.notes,
        }


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(map(printable, names[:NAMED])) + more


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 100_000 else f"{count:,} bytes"


def _files(counts: Counter[str]) -> str:
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in counts.most_common())
    return f"{counts.total():,} {plural('file', counts.total())}: {kinds}"


def plural(word: str, count: int) -> str:
    """A word with an s, unless there is one of it."""
    return word if count == 1 else f"{word}s"


def printable(text: str) -> str:
    """Text without control characters, and with bytes that are not UTF-8 as escapes."""
    return CONTROL.sub(" ", text.encode("utf-8", "backslashreplace").decode())
