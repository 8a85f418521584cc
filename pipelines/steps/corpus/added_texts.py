"""The texts that were added to an index, in one JSON Lines file of its corpus: checked before they are written."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from schemas.config import Config, Corpus
from schemas.errors import ConfigurationError, CorpusError, GateError, RejectsError
from schemas.identity import content_hash
from transforms.chunk.base import Chunker
from transforms.embed.work import with_facts
from transforms.encoders.models import Models
from transforms.read.batch import BatchBuilder
from transforms.read.formats import jsonl
from transforms.read.item import MISSING, ItemChecker, lookup
from transforms.read.rejected_item import RejectedItemError

REFUSALS = (ConfigurationError, CorpusError, GateError, RejectsError)
"""Errors of a run that does not take what it was given; others (Milvus is away, Ctrl-C) pass, and a run continues."""
NAMED = 5
"""Refused texts that an error names; its `refused` has them all."""
_CHECKED_AT_ONCE = 2048
_PLACEHOLDER = "text"


@dataclass(frozen=True)
class Refused:
    """A text that was not added.

    Attributes:
        position: in what was given to `add`, from 0.
        id: of the text; None if it has none.
        error: a word to count by, as in the rejects of a run: EmptyText, NulByte, InvalidUtf8, WrongType, ...
        reason: a sentence.
    """

    position: int
    id: str | None
    error: str
    reason: str

    def __str__(self) -> str:
        return f"{self.position}: {self.error}: {self.reason}"


class RefusedTextsError(RejectsError):
    """Some texts were not added.

    Attributes:
        refused: each of them, with position and reason.
        report: of the run that added the others; None if there were none.
    """

    refused: tuple[Refused, ...] = ()

    @classmethod
    def of(cls, refused: Sequence[Refused], given: int, noun: str = "texts") -> RefusedTextsError:
        named = "; ".join(map(str, refused[:NAMED]))
        more = f"; and {len(refused) - NAMED} more" if len(refused) > NAMED else ""
        others = given - len(refused)
        added = f"the other {others} were added" if others else "nothing was written"
        refusal = cls(
            f"{len(refused)} of {given} {noun} were refused, and {added}. By position: {named}{more}",
            "correct these and add them again",
        )
        refusal.refused = tuple(refused)
        return refusal


@dataclass
class Checked:
    """Texts that were looked at, none of them written yet.

    Attributes:
        lines: by item id, in the order in which they came; each ends in a line feed.
        refused: by position.
        unknown: fields of records that the configuration does not name.
    """

    lines: dict[str, bytes] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)


def check(texts: Sequence[tuple[int, Any]], ids: Sequence[Any] | None, config: Config, models: Models) -> Checked:
    """Looks at each text as a run will: what is not refused here is not rejected there.

    Args:
        texts: positions in what was given to `add`, and strings or records with the fields that the configuration
            names.
        ids: of everything that was given to `add`, over the ids of records; without one a text gets an id from its
            hash.
    """
    checked = Checked()
    chunker = models.chunker(config) if texts else None
    for start in range(0, len(texts), _CHECKED_AT_ONCE):
        assert chunker is not None
        _check_some(texts[start : start + _CHECKED_AT_ONCE], ids, config, chunker, checked)
    checked.refused.sort(key=lambda refused: refused.position)
    return checked


def _check_some(
    texts: Sequence[tuple[int, Any]], ids: Sequence[Any] | None, config: Config, chunker: Chunker, checked: Checked
) -> None:
    corpus = config.corpus
    sources = filter(None, map(corpus.source_of, corpus.metadata))
    known = {name.split(".")[0] for name in (*corpus.id_fields, *corpus.content, *sources)}
    builder = BatchBuilder("texts", corpus, len(texts) + 1, 1 << 40)
    checker = ItemChecker(corpus)
    lines: dict[int, tuple[str, bytes]] = {}
    for position, given in texts:
        try:
            record = _record(given, None if ids is None else ids[position], config)
            item_id, line, content, metadata = _item(record, checker, config)
        except RejectedItemError as error:
            checked.refused.append(Refused(position, error.item_id, error.error, error.reason))
            continue
        checked.unknown.update(record.keys() - known)
        lines[position] = item_id, line
        builder.add(item_id, str(position), content, metadata)
    batch = builder.take()
    _, rejects = chunker.chunk(with_facts(batch.items, b""))
    for place, kind, reason in zip(*(rejects.column(n).to_pylist() for n in ("place", "error", "reason")), strict=True):
        item_id, _ = lines.pop(int(place))
        checked.refused.append(Refused(int(place), item_id, kind, reason))
    for position, (item_id, line) in lines.items():
        if checked.lines.setdefault(item_id, line) != line:
            reason = f"The id {item_id!r} is that of another text of the same call"
            checked.refused.append(Refused(position, item_id, "DuplicateId", reason))


def _record(given: Any, item_id: Any, config: Config) -> dict[str, Any]:
    """The given text as a record with its id first; without an id if one must be made."""
    content = config.corpus.content
    if isinstance(given, str):
        text_field = "text" if "text" in content else content[-1]
        fields = {name: given if name == text_field else None for name in content}
    elif isinstance(given, Mapping):
        if odd := [name for name in given if not isinstance(name, str)]:
            raise RejectedItemError("WrongType", f"A field's name is {odd[0]!r}, not a string")
        fields = dict(given)
    else:
        raise RejectedItemError("WrongType", f"It is of type {type(given).__name__}, neither a text nor a record")
    id_field = config.corpus.id
    if not isinstance(id_field, str):
        return fields
    own = fields.pop(id_field, None)
    if own is None and lookup(fields, id_field) not in (MISSING, None):
        own = lookup(fields, id_field)  # of an object inside
    chosen = own if item_id is None else item_id
    return fields if chosen is None else {id_field: chosen, **fields}


def _item(record: dict[str, Any], checker: ItemChecker, config: Config) -> tuple[str, bytes, str, tuple[Any, ...]]:
    """A record's id, its line, its content and its metadata, by the reader's own checks."""
    id_field = config.corpus.id
    if isinstance(id_field, str) and id_field not in record:
        _, content, _ = checker({**_parsed(_line(record), checker), id_field: _PLACEHOLDER})
        record = {id_field: f"text-{content_hash(content)}", **record}
    # Where the corpus has an encoding of its own, this file is in it as well: ASCII is the same in nearly all.
    line = _line(record, ascii_only=config.corpus.encoding is not None)
    item_id, content, metadata = checker(_parsed(line, checker))
    return item_id, line, content, metadata


def _parsed(line: bytes, checker: ItemChecker) -> dict[str, Any]:
    return jsonl.parse(line.rstrip(b"\n"), checker.known_id)


def _line(record: dict[str, Any], *, ascii_only: bool = False) -> bytes:
    try:
        text = json.dumps(record, ensure_ascii=ascii_only, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise RejectedItemError("WrongType", f"It can't be written as JSON: {error}") from error
    # A lone surrogate goes through as an escape, so that the reader says what is wrong with it.
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text).encode() + b"\n"


class Texts:
    """The file of an index's texts. Lines stay in their order; changes stream through and replace it in one step."""

    def __init__(self, path: Path, corpus: Corpus) -> None:
        self.path = path
        self._checker = ItemChecker(corpus)
        # What `check` writes begins with the id; lines of others are parsed.
        name = json.dumps(corpus.id).encode() if isinstance(corpus.id, str) else b""
        self._id = re.compile(rb'\{%s: "([^"\\]+)"' % re.escape(name)) if name else None

    def among(self, ids: set[str]) -> set[str]:
        """Those of some ids that a text here has."""
        return {item_id for item_id, _ in self._lines() if item_id in ids}

    def replace(self, lines: Mapping[str, bytes]) -> None:
        """Puts texts in the place of those of the same id, and the others at the end."""
        self._rewrite(dict(lines), frozenset())

    def remove(self, ids: set[str]) -> None:
        """Removes texts; ignores an id that no text has."""
        self._rewrite({}, ids)

    def _rewrite(self, new: dict[str, bytes], gone: Iterable[str]) -> None:
        """Changes nothing, not even the file's time, if the file already has each line."""
        left = dict(new)
        temporary = self.path.with_name(f".{self.path.name}.new")
        changed = False
        try:
            with open(temporary, "wb") as stream:
                for item_id, line in self._lines():
                    wanted = b"" if item_id in gone else left.pop(item_id, b"" if item_id in new else line)
                    changed = changed or wanted != line
                    stream.write(wanted)
                changed = changed or bool(left)
                stream.writelines(left.values())
                stream.flush()
                os.fsync(stream.fileno())
            if changed:
                os.replace(temporary, self.path)
        except OSError as error:
            raise CorpusError(
                f"can't write {self.path}: {error.strerror or error}", "make its folder writable"
            ) from error
        finally:
            temporary.unlink(missing_ok=True)

    def _lines(self) -> Iterator[tuple[str, bytes]]:
        """(item id, line) of each line; "" where a line that someone wrote has none."""
        if not self.path.exists():
            return
        with open(self.path, "rb") as stream:
            for line in stream:
                found = self._id.match(line) if self._id is not None else None
                whole = line if line.endswith(b"\n") else line + b"\n"
                yield found[1].decode() if found else self._parsed_id(line), whole

    def _parsed_id(self, line: bytes) -> str:
        try:
            return self._checker.known_id(orjson.loads(line)) or ""
        except (ValueError, AttributeError, TypeError):
            return ""


@contextlib.contextmanager
def undone_if_refused(*paths: Path) -> Iterator[None]:
    """Puts files back as they were where the block ends in a refusal: what is not taken must not stay in the corpus."""
    kept = [(path, path.with_name(f".{path.name}.before")) for path in paths]
    for path, before in kept:
        before.unlink(missing_ok=True)
        if path.exists():
            os.link(path, before)  # the file is replaced, never written to
    try:
        yield
    except REFUSALS:
        for path, before in kept:
            if before.exists():
                os.replace(before, path)
            else:
                path.unlink(missing_ok=True)
        raise
    finally:
        for _, before in kept:
            before.unlink(missing_ok=True)
