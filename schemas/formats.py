"""Formats of files as plain data: configuration, listing, splitting, reading and `vecbeam init` derive from this table.

Other packages bring formats as entry points of the group `vecbeam.formats`, each a `Format`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from schemas.errors import ConfigurationError
from schemas.modality import Modality

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "vecbeam.formats"
WEBDATASET = "webdataset"


@dataclass(frozen=True)
class Format:
    """One format of files.

    Attributes:
        name: value of `corpus.format`.
        suffixes: that tell the format, lower case, before one of compression.
        reader: module and function that reads a file, "module:function"; see `transforms.read.open_file.Read`.
        holds_records: whether a file holds many items, with fields; in other formats a file is an item.
        has_fields: whether items have fields: records do, and Markdown has its front matter.
        splittable: whether ranges of a file can be read alone.
        modality: of the items; `Corpus.modality_of` where the configuration says it.
    """

    name: str
    suffixes: tuple[str, ...]
    reader: str
    holds_records: bool = False
    has_fields: bool = False
    splittable: bool = False
    modality: Modality = Modality.TEXT


_ROOM = "transforms.read.formats"
_DOCUMENT = f"{_ROOM}.documents.document:read"
_MEDIA = f"{_ROOM}.media:read"
OWN = (
    Format("jsonl", (".jsonl", ".ndjson"), f"{_ROOM}.jsonl:read", True, True, True),
    Format("csv", (".csv", ".tsv"), f"{_ROOM}.delimited:read", True, True, True),
    Format("parquet", (".parquet", ".pq"), f"{_ROOM}.parquet:read", True, True, True),
    Format("text", (".txt", ".text", ".rst"), _DOCUMENT),
    Format("markdown", (".md", ".markdown"), _DOCUMENT, has_fields=True),
    Format("html", (".html", ".htm"), _DOCUMENT),
    Format("pdf", (".pdf",), _DOCUMENT),
    Format("captions", (".srt", ".vtt"), _DOCUMENT),
    Format(
        "image",
        (".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".avif", ".heic", ".heif"),
        _MEDIA,
        modality=Modality.IMAGE,
    ),
    Format(WEBDATASET, (".tar",), f"{_ROOM}.webdataset:read", True, True, modality=Modality.IMAGE),
    Format("audio", (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac"), _MEDIA, modality=Modality.AUDIO),
    Format("video", (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi"), _MEDIA, modality=Modality.VIDEO),
)


_OWN = {one.name: one for one in OWN}
COMPRESSION_OF_SUFFIX = {".gz": "gzip", ".zst": "zstd", ".bz2": "bzip2", ".xz": "xz"}
COMPRESSED = frozenset(COMPRESSION_OF_SUFFIX)
"""Suffixes of compressed files, of whatever format."""
_SHORT = {
    short: (".tar", long)
    for short, long in ((".tgz", ".gz"), (".tzst", ".zst"), (".tbz2", ".bz2"), (".tbz", ".bz2"), (".txz", ".xz"))
}


def suffixes(path: str) -> tuple[str, str]:
    """Suffix of the format and of the compression, lower case.

    >>> suffixes("docs.jsonl.gz"), suffixes("00000.TGZ"), suffixes("a.txt")
    (('.jsonl', '.gz'), ('.tar', '.gz'), ('.txt', ''))
    """
    stem, suffix = posixpath.splitext(posixpath.basename(path.lower()))
    if suffix in COMPRESSION_OF_SUFFIX:
        return posixpath.splitext(stem)[1], suffix
    return _SHORT.get(suffix, (suffix, ""))


def suffix_of(path: str) -> str:
    """The suffix of a path or glob, lower case; "" without one. Of a compressed tar it is .tar, else the last one.

    >>> suffix_of("photos/*.TGZ"), suffix_of("docs.jsonl.gz"), suffix_of("a.d/*")
    ('.tar', '.gz', '')
    """
    if suffixes(path)[0] == ".tar":
        return ".tar"
    name = path.rpartition("/")[2].lower()
    return f".{name.rpartition('.')[2]}" if "." in name else ""


def compression_of(path: str) -> str:
    """What a file is compressed with, by its suffix: gzip, zstd, bzip2 or xz; "" for one that is not."""
    return COMPRESSION_OF_SUFFIX.get(suffixes(path)[1], "")


class Installed(NamedTuple):
    """The formats of this process.

    Attributes:
        formats: by name: vecbeam's own, and those of other packages.
        of_suffix: the name of the format that each suffix tells.
    """

    formats: Mapping[str, Format]
    of_suffix: Mapping[str, str]


@lru_cache(maxsize=1)
def installed() -> Installed:
    """Looks through the packages that are installed, once per process.

    Raises:
        ConfigurationError: if another package's format can't be imported, or has the name or a suffix of another.
    """
    from importlib.metadata import entry_points

    found = dict(_OWN)
    owners = dict.fromkeys((suffix for one in OWN for suffix in one.suffixes), "vecbeam")
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        brought = _brought(point)
        if brought.name in found:
            raise ConfigurationError(
                f"the format {brought.name!r} of {_package(point)} already exists", f"uninstall {_package(point)}"
            )
        for suffix in brought.suffixes:
            if suffix in owners:
                raise ConfigurationError(
                    f"the format {brought.name!r} of {_package(point)} claims files that end in {suffix}, and so does "
                    f"one of {owners[suffix]}",
                    f"uninstall {_package(point)}",
                )
            owners[suffix] = _package(point)
        found[brought.name] = brought
    return Installed(found, {suffix: one.name for one in found.values() for suffix in one.suffixes})


def formats() -> Mapping[str, Format]:
    """All formats by name; raises what `installed` raises."""
    return installed().formats


def format_of_suffix(modality: Modality | None = None) -> Mapping[str, str]:
    """The format that each suffix tells; raises what `installed` raises.

    Args:
        modality: of the formats; None for all.
    """
    found = installed()
    if modality is None:
        return found.of_suffix
    return {suffix: name for suffix, name in found.of_suffix.items() if found.formats[name].modality is modality}


def modality_of_suffix(suffix: str) -> Modality:
    """The modality of the format that a suffix tells; text for one that tells none.

    Searches other packages only for suffixes that no format in `OWN` has: that takes a part of a search's start.
    """
    if not suffix or suffix in COMPRESSED:
        return Modality.TEXT
    own = next((one for one in OWN if suffix in one.suffixes), None)
    return own.modality if own is not None else modality_of(format_of_suffix().get(suffix, "text"))


def modality_of(name: str) -> Modality:
    """The modality of a format's items."""
    one = format_named(name)
    return one.modality if one is not None else Modality.TEXT


def _brought(point: EntryPoint) -> Format:
    try:
        found = point.load()
    except Exception as error:  # of another package's code
        raise ConfigurationError(
            f"the format {point.name!r} of {_package(point)} can't be imported: {type(error).__name__}: {error}",
            "install that package with all it needs, or uninstall it",
        ) from error
    if not isinstance(found, Format) or found.name != point.name:
        raise ConfigurationError(
            f"the entry point {point.name!r} of {_package(point)} is not a schemas.formats.Format of that name",
            f"uninstall {_package(point)}, or correct it",
        )
    return found


def _package(point: EntryPoint) -> str:
    return f"the package {point.dist.name} {point.dist.version}" if point.dist is not None else point.value


def format_named(name: str) -> Format | None:
    """A format, or None if none of that name is installed. Searches other packages only for names not in `OWN`."""
    return _OWN.get(name) or formats().get(name)


def holds_records(name: str) -> bool:
    """Whether a file of a format holds many items, with fields."""
    one = format_named(name)
    return one is not None and one.holds_records


def has_fields(name: str) -> bool:
    """Whether items of a format have fields."""
    one = format_named(name)
    return one is not None and (one.holds_records or one.has_fields)
