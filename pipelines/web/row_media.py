"""The file of a row: as it is, for players; and as a small picture. Only files that the corpus names are opened."""

from __future__ import annotations

import io
import re
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath

from pipelines.web.row_thumbnail import thumbnail_of
from pipelines.web.site import Site
from schemas import locator
from schemas.errors import ConfigurationError, CorpusError
from schemas.formats import compression_of
from schemas.glob import Glob
from schemas.modality import Modality
from transforms.encoders.media.content import RefusedError, read
from transforms.encoders.media.image import decode
from transforms.read.formats.tar_members import DamagedTarError, find_member, tar_stream
from transforms.read.listing.files import SourceFile
from transforms.read.stream import FileRejectedError, RawStream
from transforms.support.pdf_pages import PdfError, page_image
from transforms.support.storage import filesystem

SIDE = 320
"""Pixels of the longer side of a small picture."""
MOST_BYTES = 64 << 20
"""Most bytes of a file that is not on this machine's disk, or is part of another."""
MOST_PIXELS = 50_000_000
DPI = 72
PICTURES = 512
"""Small pictures that are kept in memory."""
CONTENT_TYPES = {
    **{".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".gif": "image/gif", ".webp": "image/webp"},
    **{".avif": "image/avif", ".bmp": "image/bmp"},
    **{".wav": "audio/wav", ".flac": "audio/flac", ".mp3": "audio/mpeg", ".ogg": "audio/ogg", ".oga": "audio/ogg"},
    **{".opus": "audio/ogg", ".m4a": "audio/mp4", ".aac": "audio/aac"},
    **{".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm", ".mkv": "video/x-matroska"},
    **{".mov": "video/quicktime"},
}
"""What a media file is sent as, by its suffix: nothing that a browser would run."""


class NoMediaError(Exception):
    """A row has no file that can be shown; the reason is a sentence."""


@dataclass(frozen=True)
class Media:
    """A file to send.

    Attributes:
        path: of a file on this machine's disk; "" if `data` has the bytes.
    """

    content_type: str
    path: str = ""
    data: bytes = b""


def media_of(site: Site, row_id: str) -> Media:
    """The file of a row of the served collection.

    Raises:
        NoMediaError: if there is no such row, it has no file, or the corpus does not name that file.
    """
    uri = _uri_of(site, row_id)
    if _is_page(uri):
        return Media("image/jpeg", data=_picture(uri, _address(site, uri)))
    kind = CONTENT_TYPES.get(PurePosixPath(uri).suffix.lower())
    if kind is None:
        raise NoMediaError(f"{row_id} is of a file that browsers do not show")
    address = _address(site, uri)
    if address == uri and filesystem.is_local(uri):
        return Media(kind, path=uri)
    return Media(kind, data=_bytes(address))


def picture_of(site: Site, row_id: str) -> bytes:
    """A small picture of a row: that of the checkpoint, a WebP file, or one made of the image, a JPEG file.

    Raises:
        NoMediaError: as `media_of`; or if the file is not an image that can be decoded.
    """
    if (kept := thumbnail_of(site, row_id)) is not None:
        return kept
    uri = _uri_of(site, row_id)
    return _picture(uri, _address(site, uri))


@lru_cache(PICTURES)
def _picture(uri: str, address: str) -> bytes:
    try:
        if _is_page(uri):
            image = page_image(_bytes(address), int(uri.rpartition("=")[2]) - 1, DPI, MOST_PIXELS)
        else:
            image = decode(_bytes(address), scaled_side=SIDE)
    except (RefusedError, PdfError) as error:
        raise NoMediaError(error.reason) from error
    image.thumbnail((SIDE, SIDE))
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=82)
    return sink.getvalue()


def _uri_of(site: Site, row_id: str) -> str:
    rows = site.searcher.rows([row_id], ["uri"]) if site.config.corpus.modality is not Modality.TEXT else []
    if not rows or not rows[0].get("uri"):
        raise NoMediaError(f"the collection has no row {row_id!r} with a file")
    return str(rows[0]["uri"])


def _is_page(uri: str) -> bool:
    return re.search(r"\.pdf#page=\d+$", uri, re.IGNORECASE) is not None


def _address(site: Site, uri: str) -> str:
    """Where the bytes of a row's `uri` are; see `schemas.locator`.

    Whoever can write into the collection must not choose which files this server opens: only those of the corpus.

    Raises:
        NoMediaError: if the corpus does not name the file.
    """
    corpus = site.config.corpus
    globs = [Glob(pattern) for pattern in corpus.paths]
    file, mark, part = uri.partition("#")
    if any(one.matches(uri) for one in globs):
        return uri
    if mark and any(one.matches(file) for one in globs):
        return file if _is_page(uri) else _member(file, part)
    if corpus.media is not None:
        for below in [*corpus.allow_uris, *(f"{one.root}/" for one in globs)]:
            if uri.startswith(below):  # whoever opens it checks that again, with links and redirects
                return locator.address(uri, locator.as_text(locator.Target(uri, below)))
    raise NoMediaError(f"the configuration's corpus does not name {uri}")


def _member(file: str, name: str) -> str:
    try:
        source = SourceFile(file, file, 0, 0.0, "webdataset", compression_of(file))
        with closing(tar_stream(RawStream(source), source)) as tar:
            found = find_member(tar, name)
    except (DamagedTarError, FileRejectedError, CorpusError) as error:
        raise NoMediaError(f"{file} can't be read: {error}") from error
    if found is None:
        raise NoMediaError(
            f"{file} has no member {name}: this server shows files, members of tars and pages of PDF files"
        )
    return locator.address(file, locator.as_text(locator.Member(found.offset, found.length, name)))


def _bytes(address: str) -> bytes:
    try:
        return read(address, MOST_BYTES)
    except RefusedError as error:
        raise NoMediaError(error.reason) from error
    except (CorpusError, ConfigurationError) as error:
        raise NoMediaError(error.message) from error
