"""The section `corpus`: which files, and which fields of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator

from schemas.allowed_uris import NotAllowedError, is_local, normal_prefix
from schemas.config.base import Encoding, Section, Text, Texts
from schemas.config.corpus.csv_dialect import Csv
from schemas.config.corpus.item_id import Id
from schemas.config.corpus.metadata_columns import SUBTITLES, MetadataField, check_column_names, rename_hint
from schemas.formats import (
    OWN,
    WEBDATASET,
    format_named,
    formats,
    holds_records,
    modality_of,
    modality_of_suffix,
    suffix_of,
)
from schemas.item_inputs import Input
from schemas.modality import ROW_MODALITY, Modality


class Pages(Section):
    """Pages of PDF files as images."""

    dpi: int = Field(150, ge=18, le=1200, description="Pixels per inch of a page as an image; part of the space")


class Corpus(Section):
    paths: Texts = Field(
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
    content: Texts = Field(
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
    allow_uris: Texts = Field(
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
    encoding: Encoding | None = Field(
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

    @field_validator("metadata")
    @classmethod
    def _column_names(cls, value: dict[str, MetadataField]) -> dict[str, MetadataField]:
        check_column_names(value)
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
