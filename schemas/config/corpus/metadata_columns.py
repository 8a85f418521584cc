"""`corpus.metadata`: fields that become columns of the collection, and the names that a column may have."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from schemas import milvus
from schemas.config.base import Section, Text
from schemas.languages import language_code

SUBTITLES = "__subtitles__"
"""The source of a metadata column that has the subtitles of a film's segments."""
MetadataType = Literal["string", "int", "float", "bool"]
RESERVED_COLUMNS = (
    "id",
    "item_id",
    "chunk",
    "text",
    "uri",
    "start",
    "end",
    "content_hash",
    "vector",
    "tokens",
    "tokens_dropped",
    "seconds_dropped",
)
COLUMN_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,254}$")


class MetadataField(Section):
    """One typed, filterable column. `author: string` is short for `author: {type: string}`.

    `source` is the key `from`, which Python keeps for itself.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_by_name=True, serialize_by_alias=True)

    type: MetadataType = Field(description="string, int (64 bit), float (64 bit) or bool")
    source: Text | None = Field(
        None,
        alias="from",
        description="Field of the record with the values; by default the field with the column's name. "
        "`a.b` is the field `b` of the object `a`; `__subtitles__` is the subtitles of a film's segment",
    )
    partition: Text | None = Field(
        None,
        description="Takes the value from the file's path instead of the record: `year` is 2024 for a file below a "
        "folder `year=2024`, and null if there is no such folder",
    )
    language: Text | None = Field(
        None,
        description="Of `from: __subtitles__`: the language of the track, by its code of ISO 639, such as de, deu or "
        "ger; by default the track that players show, whatever its language is",
    )
    default: str | int | float | bool | None = Field(
        None,
        description="Value in the collection for an item without the field; by default null",
    )
    max_bytes: int = Field(
        4096, ge=1, le=65535, description="Longest string in UTF-8 bytes; vecbeam rejects an item with a longer one"
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_source(self) -> MetadataField:
        if self.source is not None and self.partition is not None:
            raise ValueError(
                f"from {self.source!r} names a field of the record and partition {self.partition!r} a folder of the "
                "path; a column has one source, remove one of them"
            )
        return self

    @field_validator("language")
    @classmethod
    def _is_a_code(cls, value: str | None) -> str | None:
        if value is not None and not language_code(value):
            raise ValueError(
                f"language {value!r} is not a code of ISO 639; write two or three letters, such as de or deu"
            )
        return value

    @model_validator(mode="after")
    def _language_is_of_subtitles(self) -> MetadataField:
        if self.language is not None and self.source != SUBTITLES:
            raise ValueError(f"language {self.language!r} is of subtitles: set from: {SUBTITLES}, or remove language")
        return self

    @model_validator(mode="after")
    def _default_fits(self) -> MetadataField:
        wanted: dict[str, tuple[type, ...]] = {"string": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}
        if self.default is not None and (
            not isinstance(self.default, wanted[self.type]) or (isinstance(self.default, bool) and self.type != "bool")
        ):
            raise ValueError(f"default {self.default!r} is not of type {self.type}")
        return self


def check_column_names(names: Iterable[str]) -> None:
    """Raises ValueError for a name that a metadata column can't have."""
    for name in names:
        if name in RESERVED_COLUMNS:
            raise ValueError(
                f"{name!r} is a column that every row has; {rename_hint(name)} "
                f"(reserved: {', '.join(RESERVED_COLUMNS)})"
            )
        if name in milvus.RESULT_NAMES:
            raise ValueError(f"{name!r} can't be a column: {milvus.refusal(name, milvus.SERVER)}; {rename_hint(name)}")
        if not COLUMN_NAME.match(name):
            raise ValueError(
                f"{name!r} is not a valid Milvus field name, which has letters, digits and underscores; "
                f"{rename_hint(name)}"
            )


def rename_hint(name: str) -> str:
    """How to give a column another name than its field."""
    column = suggested_column(name)
    return f"rename it, for example {column}: {{from: {_quoted(name)}, type: string}}, or leave it out"


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", name) and name.lower() not in _YAML_WORDS else repr(name)


_YAML_WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")


def suggested_column(name: str) -> str:
    """A column name for a field whose own name can't be one.

    >>> suggested_column("score"), suggested_column("doc.lang"), suggested_column("2nd author")
    ('score_', 'doc_lang', '_2nd_author')
    """
    column = re.sub(r"[^A-Za-z0-9_]+", "_", name)[:200] or "field"
    column = f"_{column}" if column[0].isdigit() else column
    return column if column != name or COLUMN_NAME.match(name) is None else f"{column}_"
