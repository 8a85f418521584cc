"""Fields of records that are images, recordings or films: bytes, or paths and URIs of files."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipelines.steps.proposal.columns import metadata_columns
from pipelines.steps.proposal.item_fields import CONTENT_NAMES, content_fields, id_field, is_named
from pipelines.steps.proposal.sampled_field import MOSTLY, SampledField, sampled_fields
from schemas.allowed_uris import NotAllowedError, is_relative, normal, normal_prefix
from schemas.formats import modality_of_suffix
from schemas.locator import Cell
from schemas.modality import Modality
from transforms.read import SourceFile
from transforms.read.head import FileSample
from transforms.support.storage import filesystem
from transforms.support.storage.parquet_bytes import BYTES, CellReader, is_binary

LOOKED_AT = 5
"""Files that records name that are looked for."""
MOST_PREFIXES = 10
_IMAGES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_SOUNDS = (b"fLaC", b"OggS", b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2")


@dataclass
class MediaField:
    """A field of media.

    Attributes:
        name: of the field.
        modality: of what it has or names.
        prefixes: of the URIs and absolute paths in it.
        has_bytes: whether the records have the bytes.
    """

    name: str
    modality: Modality
    prefixes: list[str] = field(default_factory=list)
    has_bytes: bool = False


def find_media_field(samples: Sequence[FileSample]) -> MediaField | None:
    """The field of media of some files of records; None if there is none."""
    for one in samples:
        for name, kind in one.kinds.items():
            if is_binary(kind) and (modality := modality_of_bytes(_first_bytes(one.file, name))) is not None:
                return MediaField(name.removesuffix(f".{BYTES}"), modality, has_bytes=True)
    columns = sampled_fields(samples)
    found = [(column, modality) for column in columns.values() if (modality := _named_modality(column)) is not None]
    for column, modality in sorted(found, key=lambda pair: -len(set(pair[0].texts))):
        folders = [posixpath.dirname(one.file.uri) for one in samples]
        if (prefixes := _prefixes(column.texts)) is not None and _are_there(column.texts, folders):
            return MediaField(column.name, modality, prefixes)
    return None


def has_text(samples: Sequence[FileSample], media: MediaField) -> bool:
    """Whether records are texts first of all: one of their other fields has the name of one with text."""
    columns = {name: column for name, column in sampled_fields(samples).items() if name != media.name}
    content, _ = content_fields(columns, sum(len(one.records) for one in samples))
    return any(is_named(name, CONTENT_NAMES) for name in content)


def propose_media(
    samples: Sequence[FileSample], media: MediaField, notes: list[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Keys of `corpus` for records with media, and the fields without a column, each with the reason.

    Args:
        notes: receives what a user should know.
    """
    columns = sampled_fields(samples)
    total = sum(len(one.records) for one in samples)
    own = {media.name, f"{media.name}.{BYTES}"}
    identity, why = id_field(columns, total, [media.name])
    named = columns.get(media.name)
    if identity is None and named is not None and len(set(named.texts)) == len(named.values) == total:
        identity = media.name
    corpus: dict[str, Any] = {"id": identity, "media": media.name}
    if identity is None:
        corpus = {"id": {"hash": [media.name]}, "media": media.name, "on_duplicate": "first"}
        notes.append(f"{why}, so ids are made from {media.name} (corpus.id.hash); of equal ones the first counts")
    if media.modality is not Modality.IMAGE:
        corpus["media_modality"] = str(media.modality)
    if media.prefixes:
        corpus["allow_uris"] = media.prefixes
        notes.append(
            f"{media.name} has URIs below {', '.join(media.prefixes)}; vecbeam opens them, as corpus.allow_uris lists "
            "these: look whether you mean that"
        )
    kinds = {name: kind for one in samples for name, kind in one.kinds.items() if name not in own}
    others: Mapping[str, SampledField] = {name: column for name, column in columns.items() if name not in own}
    metadata, left_out = metadata_columns(others, kinds, samples, used={identity or media.name})
    if metadata:
        corpus["metadata"] = metadata
    return corpus, left_out


def modality_of_bytes(data: bytes) -> Modality | None:
    """The modality that the first bytes of a file tell, or None.

    >>> modality_of_bytes(b"\\xff\\xd8\\xff\\xe0"), modality_of_bytes(b"%PDF-1.7")
    (<Modality.IMAGE: 'image'>, None)
    """
    brand = data[8:12] if data[:4] == b"RIFF" or data[4:8] == b"ftyp" else b""
    if data.startswith(_IMAGES) or brand in (b"WEBP", b"avif", b"heic", b"mif1"):
        return Modality.IMAGE
    if data.startswith(_SOUNDS) or brand in (b"WAVE", b"M4A "):
        return Modality.AUDIO
    return Modality.VIDEO if data[4:8] == b"ftyp" or data.startswith(b"\x1aE\xdf\xa3") else None


def _first_bytes(file: SourceFile, column: str) -> bytes:
    try:
        with CellReader() as cells:
            found = (cells.read(file.uri, Cell(0, row, column, row + 1)) for row in range(LOOKED_AT))
            return next((data for data in found if data), b"")
    except (OSError, ValueError, KeyError, pa.ArrowException):
        return b""


def _named_modality(column: SampledField) -> Modality | None:
    """The modality of the files that the values name by their suffixes."""
    if not column.is_text:
        return None
    counts = Counter(modality_of_suffix(_suffix(value)) for value in column.texts)
    modality, count = counts.most_common(1)[0]
    return modality if modality.is_media and count >= MOSTLY * len(column.texts) else None


def _suffix(uri: str) -> str:
    name = uri.partition("?")[0].partition("#")[0] if "://" in uri else uri
    return posixpath.splitext(name.lower())[1]


def _prefixes(values: Sequence[str]) -> list[str] | None:
    """The prefixes that allow the URIs and absolute paths among some values; None if there are too many."""
    folders: dict[str, list[str]] = {}
    for value in values:
        if is_relative(value):
            continue
        try:
            scheme, between, rest = normal(value).rpartition("://")
        except NotAllowedError:
            continue
        host, _, path = rest.partition("/") if between else ("", "", rest.lstrip("/"))
        folders.setdefault(f"{scheme}{between}{host}/", []).append("/" + posixpath.dirname(path))
    if len(folders) > MOST_PREFIXES:
        return None
    found = [root.rstrip("/") + posixpath.commonpath(paths) for root, paths in folders.items()]
    try:
        return [normal_prefix(prefix) for prefix in found]
    except NotAllowedError:  # all of a disk
        return None


def _are_there(values: Sequence[str], folders: Sequence[str]) -> bool:
    """Whether some of the relative and local paths among some values exist; others are not looked for."""
    local = [value for value in values if is_relative(value) or value.startswith("/")]
    if not local:
        return True
    step = max(1, len(local) // LOOKED_AT)
    for value in local[::step][:LOOKED_AT]:
        for folder in dict.fromkeys(folders if is_relative(value) else [""]):
            if filesystem.exists(filesystem.join(folder, value) if folder else value):
                return True
    return False
