"""`corpus.csv`: how CSV and TSV files are written."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from schemas.config.base import Encoding, Section, Text


class Csv(Section):
    """How CSV and TSV files are written, if they are not as their suffix says."""

    delimiter: Text | None = Field(
        None,
        description='One character between fields, e.g. ; or |; "\\t" or the word tab for a tab. By default a tab in '
        "files that end in .tsv, a comma in others",
    )
    quoting: Literal["auto", "quoted", "none"] = Field(
        "auto",
        description="quoted: a field in double quotes may hold delimiters, doubled quotes and line ends (RFC 4180); "
        "none: a quote is an ordinary character, and each line is a record. auto: quoted, except that a file with tabs "
        "between its fields is read as none if that breaks fewer of its records",
    )
    escape: Text | None = Field(
        None,
        description="One character that makes the next one an ordinary character, e.g. a backslash; by default none",
    )
    encoding: Encoding | None = Field(None, description="Overrides corpus.encoding for CSV and TSV files")

    @field_validator("delimiter", mode="before")
    @classmethod
    def _named_tab(cls, value: Any) -> Any:
        return "\t" if value in ("tab", "\\t") else value

    @field_validator("delimiter", "escape")
    @classmethod
    def _one_character(cls, value: str | None) -> str | None:
        if value is not None and (len(value) != 1 or value in '"\r\n\0'):
            raise ValueError(f"{value!r} is not one character other than a double quote, a line end or NUL")
        return value

    @model_validator(mode="after")
    def _different(self) -> Csv:
        if self.escape is not None and self.escape == self.delimiter:
            raise ValueError(f"escape and delimiter are both {self.escape!r}; they must differ")
        return self
