"""Files that are one item each: text, Markdown, HTML, PDF, captions.

The item's id is the file's path under its glob's root."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from schemas.config import Corpus
from transforms.read import decompression, stream
from transforms.read.batch import Batch, BatchBuilder
from transforms.read.formats import charset, media
from transforms.read.formats.documents import captions, front_matter, html, pdf
from transforms.read.item import ItemChecker
from transforms.read.listing.files import SourceFile
from transforms.read.open_file import OpenFile
from transforms.read.rejected_item import RejectedItemError, check_text


def read(opened: OpenFile, sink: BatchBuilder) -> Iterator[Batch]:
    """Reads a file as one item, or one reject.

    Raises:
        streams.FileRejectedError: `DamagedFile` or `TooLarge`.
        schemas.errors.ConfigurationError: a library of the extra `documents` is not installed.
    """
    file, corpus = opened.file, sink.corpus
    if file.format == "pdf" and corpus.pages is not None:
        yield from media.read(opened, sink)
        return
    item_id = file.name
    try:
        text = captions.text_of_film(opened.raw) if captions.is_film(opened) else _text(_whole(opened), file, corpus)
        fields: dict[str, Any] = {}
        if file.format == "markdown":
            fields, text = front_matter.split(text)
        if not text or text.isspace():
            raise RejectedItemError("EmptyText", "The file holds no text")
        check_text(text, "The text", item_id)
        metadata = ItemChecker(corpus, file.shown).metadata(fields, item_id)
    except RejectedItemError as error:
        full = sink.reject(item_id, "", error.error, error.reason)
    else:
        full = sink.add(item_id, "", text, metadata)
    if full:
        yield sink.take()


def _whole(opened: OpenFile) -> bytes:
    most = pdf.MAX_PDF_BYTES if opened.file.format == "pdf" else stream.MAX_RECORD_BYTES
    return decompression.whole(opened.raw, opened.file, most)


def _text(data: bytes, file: SourceFile, corpus: Corpus) -> str:
    if file.format == "pdf":
        return pdf.pdf_text(data)
    if file.format == "html":
        return html.html_text(data, corpus.encoding)
    text = plain_text(data, corpus.encoding)
    return captions.captions_text(text) if file.format == "captions" else text


def plain_text(data: bytes, configured: str | None = None) -> str:
    """The text of a file, without a byte order mark: in the encoding of the mark, the configured one, or UTF-8.

    Raises:
        RejectedItemError: `InvalidUtf8` or `InvalidEncoding`.
    """
    encoding = charset.of_file(data[: charset.MARK_BYTES], configured)
    length = charset.marked(data)[1]
    utf8 = charset.to_utf8(data[length:], encoding)
    try:
        return utf8.decode()
    except UnicodeDecodeError as error:
        raise charset.bad_text("The file", utf8, error, encoding, length) from error
