"""The sections `corpus` and `chunk`: which files, which fields of them, and what becomes a row."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, PrivateAttr, Tag, field_validator, model_validator

from schemas import milvus
from schemas.allowed_uris import NotAllowedError, is_local, normal_prefix
from schemas.config.base import Section, Text
from schemas.formats import OWN, format_named, formats, holds_records, modality_of, modality_of_suffix, suffixes
from schemas.item_inputs import Input
from schemas.languages import language_code
from schemas.modality import ROW_MODALITY, Modality

WEBDATASET = "webdataset"
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


class HashedId(Section):
    """An id made from the item's content: the same fields with the same values have the same id."""

    hash: list[Text] = Field(
        min_length=1,
        description="Fields whose values the id is made from. Two records in which all of them are equal are one item",
    )

    @field_validator("hash", mode="before")
    @classmethod
    def _one_field(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("hash")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        if twice := [name for name in value if value.count(name) > 1]:
            raise ValueError(f"names {twice[0]!r} more than once; name each field once")
        return value


def _kind_of_id(value: Any) -> str:
    return "HashedId" if isinstance(value, (dict, HashedId)) else "FieldId"


Id = Annotated[Annotated[Text, Tag("FieldId")] | Annotated[HashedId, Tag("HashedId")], Discriminator(_kind_of_id)]


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
    encoding: Text | None = Field(None, description="Overrides corpus.encoding for CSV and TSV files")

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

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str | None) -> str | None:
        return _known_encoding(value)

    @model_validator(mode="after")
    def _different(self) -> Csv:
        if self.escape is not None and self.escape == self.delimiter:
            raise ValueError(f"escape and delimiter are both {self.escape!r}; they must differ")
        return self


def _known_encoding(value: str | None) -> str | None:
    if value is not None:
        try:
            "".encode(value)
            if not isinstance(b"".decode(value), str):
                raise LookupError
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(
                f"{value!r} is not a text encoding that Python knows; write e.g. utf-8, windows-1252, utf-16, shift_jis"
            ) from error
    return value


class Pages(Section):
    """Pages of PDF files as images."""

    dpi: int = Field(150, ge=18, le=1200, description="Pixels per inch of a page as an image; part of the space")


class Corpus(Section):
    paths: list[Text] = Field(
        min_length=1,
        description="Globs on any filesystem that Beam knows; local paths are relative to the configuration file",
    )
    format: Text | None = Field(
        None,
        description="jsonl, csv, parquet, text, markdown, html, pdf, captions, image, audio, video, webdataset, or a "
        "format of another package; optional if the suffix tells it. The suffix always tells the compression (.gz, "
        ".zst, .bz2, .xz)",
    )
    id: Id = Field(
        "id",
        description="Field with the item's id, or `{hash: [question, answer]}` for an id made from those fields' "
        "values. If a file is an item, its path under the glob's root is the id; in tars it is `__key__` by default, "
        "the name of a sample's members up to the first dot",
    )
    content: list[Text] = Field(
        ["text"], min_length=1, description="Fields to embed, joined by a blank line; vecbeam leaves out empty ones"
    )
    media: Text | None = Field(
        None,
        description="Field of the records with the path or URI of an image or recording, in Parquet also its bytes, or "
        "structs of bytes and path; a path is relative to the folder of its record's file. It is embedded instead of "
        "`content`, or in addition to it where each of `encoders` has its `input`. In tars (webdataset): the ending of "
        "the member that is the item, e.g. `input.jpg`, needed only where a sample has several",
    )
    media_modality: Literal["image", "audio", "video"] | None = Field(
        None,
        description="What the media of records and tars are: image (the default), audio or video; the format tells it "
        "of files that are an item each",
    )
    pages: Pages | None = Field(
        None,
        description="`{dpi: 150}` makes each page of a PDF file an image for an encoder of images, instead of its text",
    )
    allow_uris: list[Text] = Field(
        default_factory=list,
        description="Prefixes that URIs in records may have: `s3://bucket/photos/`, `https://host/photos/`, or a local "
        "folder, relative to the configuration file. Without them only files in the folder of their record's file and "
        "below it are opened",
    )
    metadata: dict[str, MetadataField] = Field(
        default_factory=dict, description="Fields that become typed, filterable columns in Milvus"
    )
    on_duplicate: Literal["error", "first", "last"] = Field(
        "error",
        description="If two items have one id: stop and report where, or keep the first or last in corpus order",
    )
    max_deleted: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Most items that a run may delete, as a share of the items before it; more needs --allow-deletes",
    )
    shard_bytes: int = Field(
        64 << 20,
        ge=1024,
        description="vecbeam splits larger files among workers, and groups smaller ones up to this size",
    )
    encoding: Text | None = Field(
        None,
        description="Encoding of text files, e.g. windows-1252 or shift_jis. By default UTF-8, and for HTML what the "
        "page declares. A byte order mark of UTF-8, UTF-16 or UTF-32 takes precedence",
    )
    csv: Csv = Field(default_factory=lambda: Csv(), description="How CSV and TSV files are written")
    _inputs: dict[str, Input] = PrivateAttr(default_factory=dict)

    @property
    def inputs(self) -> Mapping[str, Input]:
        """What each vector describes of an item, by the vector's name; {} where all describe the same.

        The whole configuration gives them: its encoders name them.
        """
        return self._inputs

    @model_validator(mode="before")
    @classmethod
    def _ids_of_samples(cls, value: Any) -> Any:
        if isinstance(value, dict) and "id" not in value and _has_tars_alone(value.get("format"), value.get("paths")):
            return {**value, "id": "__key__"}
        return value

    @model_validator(mode="after")
    def _media_are_referred_to(self) -> Corpus:
        if self.media_modality is not None and not self.is_of_tars and self.media is None:
            raise ValueError(
                "media_modality is for tars, and for records whose media field is named; set media, or remove "
                "media_modality"
            )
        if self.allow_uris and not self.refers_elsewhere:
            raise ValueError("allow_uris is for records that name media; set media, or remove allow_uris")
        if self.media is None or self.is_of_tars:
            return self
        if self.format is not None and not holds_records(self.format):
            raise ValueError(
                f"media names a field of records, and in the format {self.format} a file is an item; remove media"
            )
        texts = {
            suffix for one in OWN if one.modality is Modality.TEXT and not one.holds_records for suffix in one.suffixes
        }
        for path in self.paths if self.format is None else ():
            if suffix_of(path) in texts:
                raise ValueError(f"media names a field of records, and each file of {path!r} is a text; remove media")
        return self

    @model_validator(mode="after")
    def _pages_are_of_pdfs(self) -> Corpus:
        if self.pages is None:
            return self
        if self.format is None and any(suffix_of(path) != ".pdf" for path in self.paths):
            raise ValueError("pages is for PDF files; let all paths end in .pdf, or set format: pdf")
        if self.format not in (None, "pdf"):
            raise ValueError(f"pages is for PDF files, and format is {self.format}; remove pages, or set format: pdf")
        if "content" in self.model_fields_set:
            raise ValueError("content and pages are both set, and a page is embedded as it looks; remove content")
        return self

    @field_validator("allow_uris", mode="before")
    @classmethod
    def _one_prefix(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("allow_uris")
    @classmethod
    def _prefixes(cls, value: list[str]) -> list[str]:
        for prefix in value:
            try:
                normal_prefix(f"/{prefix}" if is_local(prefix) and not prefix.startswith("/") else prefix)
            except NotAllowedError as error:
                raise ValueError(f"{prefix!r} can't be a prefix: {error}") from error
        return value

    @field_validator("format")
    @classmethod
    def _known_format(cls, value: str | None) -> str | None:
        if value is not None and format_named(value) is None:
            raise ValueError(f"{value!r} is not an installed format; use one of: {', '.join(formats())}")
        return value

    @field_validator("encoding")
    @classmethod
    def _text_encoding(cls, value: str | None) -> str | None:
        return _known_encoding(value)

    @field_validator("content", mode="before")
    @classmethod
    def _one_field(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("paths", mode="before")
    @classmethod
    def _one_path(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("metadata")
    @classmethod
    def _column_names(cls, value: dict[str, MetadataField]) -> dict[str, MetadataField]:
        for name in value:
            if name in RESERVED_COLUMNS:
                raise ValueError(
                    f"{name!r} is a column that every row has; {rename_hint(name)} "
                    f"(reserved: {', '.join(RESERVED_COLUMNS)})"
                )
            if name in milvus.RESULT_NAMES:
                raise ValueError(
                    f"{name!r} can't be a column: {milvus.refusal(name, milvus.SERVER)}; {rename_hint(name)}"
                )
            if not COLUMN_NAME.match(name):
                raise ValueError(
                    f"{name!r} is not a valid Milvus field name, which has letters, digits and underscores; "
                    f"{rename_hint(name)}"
                )
        return value

    @property
    def modality(self) -> Modality:
        """The modality of the items, RECORD where each has texts and media, or MIXED where each has one of several."""
        found = self.modalities
        if len(found) == 1:
            return next(iter(found))
        return Modality.RECORD if self.inputs else Modality.MIXED

    @property
    def modalities(self) -> frozenset[Modality]:
        """The modalities of the items: that of the format, or those of the suffixes that the paths end with.

        A path without a suffix is one of texts. Where items have several inputs: the modalities of these.
        """
        if self.inputs:
            return frozenset(one.modality for one in self.inputs.values())
        if self.is_of_tars or self.media is not None:
            return frozenset({Modality(self.media_modality or Modality.IMAGE)})
        if self.format is not None:
            return frozenset({self.modality_of(self.format)})
        return frozenset(
            Modality.IMAGE
            if self.pages is not None and suffix_of(path) == ".pdf"
            else modality_of_suffix(suffix_of(path))
            for path in self.paths
        )

    @model_validator(mode="after")
    def _subtitles_are_of_films(self) -> Corpus:
        for name in self.subtitle_columns:
            if self.metadata[name].type != "string":
                raise ValueError(f"metadata.{name}: {SUBTITLES} are texts; set type: string")
            if Modality.VIDEO not in self.modalities:
                raise ValueError(
                    f"metadata.{name}: {SUBTITLES} are of films, and the corpus has none; remove it, or set format: "
                    "video (media_modality: video for records and tars)"
                )
        return self

    @model_validator(mode="after")
    def _own_modality(self) -> Corpus:
        if self.modality is Modality.MIXED and ROW_MODALITY in self.metadata:
            raise ValueError(
                f"metadata: {ROW_MODALITY!r} is a column that each row of a corpus of several modalities has; "
                f"{rename_hint(ROW_MODALITY)}"
            )
        return self

    def modality_of(self, format: str) -> Modality:
        """The modality of the items in files of a format."""
        if format == WEBDATASET or (self.media is not None and holds_records(format)):
            return Modality(self.media_modality or Modality.IMAGE)
        return Modality.IMAGE if format == "pdf" and self.pages is not None else modality_of(format)

    @property
    def is_of_tars(self) -> bool:
        """Whether the files are tars of samples."""
        return _is_of_tars(self.format, self.paths)

    @property
    def refers_elsewhere(self) -> bool:
        """Whether items are in other files than the records that name them."""
        return self.media is not None and not self.is_of_tars

    @property
    def embedded_fields(self) -> list[str]:
        """The fields of a record that are read to be embedded."""
        texts = list(self.content) if self.media is None or Modality.TEXT in self.modalities else []
        return texts if self.media is None else [*texts, self.media]

    @property
    def id_fields(self) -> list[str]:
        """The fields that the id is, or is made from."""
        return [self.id] if isinstance(self.id, str) else list(self.id.hash)

    @property
    def subtitle_columns(self) -> dict[str, MetadataField]:
        """The columns that have the subtitles of films."""
        return {name: field for name, field in self.metadata.items() if self.source_of(name) == SUBTITLES}

    @property
    def column_types(self) -> dict[str, str]:
        """The type of each metadata column."""
        return {name: field.type for name, field in self.metadata.items()}

    def source_of(self, column: str) -> str | None:
        """The field of the record that a metadata column comes from; None if it comes from the path."""
        field = self.metadata[column]
        return None if field.partition is not None else field.source or column


def _is_of_tars(format: Any, paths: Any) -> bool:
    """Whether values of `format` and `paths`, which need not be valid, name tars of samples."""
    if format is not None:
        return bool(format == WEBDATASET)
    named = [paths] if isinstance(paths, str) else paths if isinstance(paths, list) else []
    return bool(named) and all(isinstance(path, str) and suffix_of(path) == ".tar" for path in named)


def _has_tars_alone(format: Any, paths: Any) -> bool:
    """Whether tars are the only files among those that values name which have records."""
    if format is not None or isinstance(paths, str) or not isinstance(paths, list):
        return _is_of_tars(format, paths)
    named = {suffix_of(path) for path in paths if isinstance(path, str)}
    records = {suffix for one in OWN if one.holds_records for suffix in one.suffixes}
    return ".tar" in named and named & records == {".tar"}


def suffix_of(path: str) -> str:
    """The suffix of a path or glob, lower case; "" without one. Of a compressed tar it is .tar, else the last one."""
    if suffixes(path)[0] == ".tar":
        return ".tar"
    name = path.rpartition("/")[2].lower()
    return f".{name.rpartition('.')[2]}" if "." in name else ""


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


class ChunkConfig(Section):
    max_tokens: int = Field(
        256, ge=8, description="Most tokens per chunk, special tokens included; the model's own limit also applies"
    )
    overlap_tokens: int = Field(32, ge=0, description="Most tokens that a chunk shares with the previous one")
    seconds: float | None = Field(
        None,
        ge=0.1,
        le=86400,
        description="Of recordings and films: seconds per window. If not set, the most that the model takes of a "
        "recording, and 10 of a film",
    )
    overlap_seconds: float | None = Field(
        None, ge=0, description="Seconds that a window shares with the previous one; 0 where `seconds` is set alone"
    )

    scenes: bool = Field(
        False,
        description="Of films: segments begin where scenes do, and `seconds` cuts longer ones. vecbeam decodes the "
        "whole film to find them",
    )

    @model_validator(mode="after")
    def _one_kind(self) -> ChunkConfig:
        if (tokens := self.of_tokens) and self.of_seconds:
            raise ValueError(
                f"{tokens[0]} and {self.of_seconds[0]} are both set; tokens are for texts, and seconds for "
                "recordings and films: remove one"
            )
        if self.overlap_seconds is not None and self.seconds is None:
            raise ValueError("overlap_seconds is set without seconds; set seconds, or remove it")
        return self

    @property
    def of_tokens(self) -> list[str]:
        """The keys of texts that are set."""
        return [key for key in ("max_tokens", "overlap_tokens") if key in self.model_fields_set]

    @property
    def of_seconds(self) -> list[str]:
        """The keys of recordings and films that are set."""
        return [key for key in ("seconds", "overlap_seconds", "scenes") if getattr(self, key) not in (None, False)]

    @model_validator(mode="after")
    def _overlap_fits(self) -> ChunkConfig:
        for over, whole in (("overlap_tokens", "max_tokens"), ("overlap_seconds", "seconds")):
            most, length = getattr(self, over), getattr(self, whole)
            if most is not None and length is not None and most * 2 > length:
                raise ValueError(f"{over} {most:g} is more than half of {whole} {length:g}; lower it")
        return self
