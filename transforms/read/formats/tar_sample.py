"""A sample of a tar: the members whose names are equal up to the first dot."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import orjson

from transforms.read.formats.tar_members import TarMember, TarStream
from transforms.read.rejected_item import RejectedItemError

KEY = "__key__"
"""The field of a record with the sample's key."""
MAX_FIELD_BYTES = 16 << 20
"""The longest member with a field."""
FIELDS = ("json", "txt", "text", "cls")
_KEY = re.compile(r"((?:.*/)?[^/.][^/.]*)\.([^/]+)", re.DOTALL)


def key_of(name: str) -> tuple[str, str]:
    """The key of a member's sample, and what follows the dot, in lower case; "" of one that is part of no sample.

    >>> key_of("a/0001.input.JPG"), key_of("README")
    (('a/0001', 'input.jpg'), ('README', ''))
    """
    found = _KEY.fullmatch(name)
    return (found[1], found[2].lower()) if found else (name, "")


@dataclass
class TarSample:
    """The members of one key so far.

    Attributes:
        key: the path up to the first dot of the name.
        parts: the members by what follows the dot, in lower case.
        fields: of the record.
        media: those of the corpus's modality.
        error: the first reason why it is not an item.
    """

    key: str
    parts: set[str] = field(default_factory=set)
    fields: dict[str, Any] = field(default_factory=dict)
    media: list[TarMember] = field(default_factory=list)
    error: RejectedItemError | None = None

    def add(self, raw: TarStream, part: str, member: TarMember, is_media: bool) -> None:
        """Adds a member, and reads its field if it has one."""
        self.parts.add(part)
        if self.error is not None:
            return
        try:
            if member.error:
                raise RejectedItemError(member.error, member.reason)
            if is_media:
                self.media.append(member)
            elif part.rpartition(".")[2] in FIELDS:
                self.fields[part] = _field(raw, part, member)
        except RejectedItemError as error:
            self.error = error

    def record(self, tar: str) -> dict[str, Any]:
        """Its fields by name, and what it is in which tar."""
        return {KEY: self.key, "__tar__": tar, **self.fields}


def _field(raw: TarStream, part: str, member: TarMember) -> Any:
    if member.length > MAX_FIELD_BYTES:
        raise RejectedItemError(
            "RecordTooLarge", f"The member {member.name!r} has more than {MAX_FIELD_BYTES >> 20} MiB"
        )
    raw.seek(member.offset)
    data = raw.read(member.length)
    if part.rpartition(".")[2] != "json":
        try:
            return data.decode("utf-8-sig").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise RejectedItemError(
                "InvalidUtf8", f"The member {member.name!r} is not valid UTF-8 at byte {error.start}"
            ) from error
    try:
        found = orjson.loads(data.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        raise RejectedItemError("InvalidJson", f"The member {member.name!r} is not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise RejectedItemError("WrongType", f"The member {member.name!r} is not a JSON object")
    return found
