"""Files that are one item each: text, Markdown, HTML, PDF. The item's id is the file's path under its glob's root."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any

from schemas.config import Corpus
from transforms.read import streams
from transforms.read.batches import Batch, BatchBuilder
from transforms.read.formats import front_matter
from transforms.read.items import ItemChecker, RejectedItemError, check_text
from transforms.read.listing import SourceFile

MAX_PDF_BYTES = 512 << 20
"""A PDF has pictures, which never become text; text files are bounded by streams.MAX_RECORD_BYTES."""
_PDFIUM = threading.Lock()  # PDFium is not thread-safe
_WRONG_PASSWORD = 4  # FPDF_ERR_PASSWORD
_UNKNOWN_SECURITY = 5  # FPDF_ERR_SECURITY


def read(
    raw: streams.RawStream,
    file: SourceFile,
    start: int,  # noqa: ARG001  documents are never split
    end: int,  # noqa: ARG001
    corpus: Corpus,
    builder: BatchBuilder,
) -> Iterator[Batch]:
    """Reads a file as one item, or one reject.

    Raises:
        streams.FileRejectedError: `DamagedFile` or `TooLarge`.
        schemas.errors.ConfigurationError: a library of the extra `documents` is not installed.
    """
    data = streams.whole(raw, file, MAX_PDF_BYTES if file.format == "pdf" else streams.MAX_RECORD_BYTES)
    item_id = file.name
    try:
        text = {"html": html_text, "pdf": pdf_text}.get(file.format, plain_text)(data)
        fields: dict[str, Any] = {}
        if file.format == "markdown":
            fields, text = front_matter.split(text)
        if not text or text.isspace():
            raise RejectedItemError("EmptyText", "The file holds no text")
        check_text(text, "The text", item_id)
        metadata = ItemChecker(corpus, file.shown).metadata(fields, item_id)
    except RejectedItemError as error:
        full = builder.reject(item_id, "", error.error, error.reason)
    else:
        full = builder.add(item_id, "", text, metadata)
    if full:
        yield builder.take()


def plain_text(data: bytes) -> str:
    """The text of a UTF-8 file, without a byte order mark.

    Raises:
        RejectedItemError: `InvalidUtf8`.
    """
    try:
        return data.removeprefix(streams.BYTE_ORDER_MARK).decode()
    except UnicodeDecodeError as error:
        hint = "; it begins like UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        position = error.start + (len(data) - len(data.removeprefix(streams.BYTE_ORDER_MARK)))
        raise RejectedItemError(
            "InvalidUtf8", f"The file is no UTF-8 at byte {position}: 0x{data[position]:02x}{hint}"
        ) from error


def html_text(data: bytes) -> str:
    """The main text of a page without navigation; all of its text where a main part can't be told (small pages).

    Raises:
        RejectedItemError: `EmptyText`, `NulByte` or `InvalidHtml`.
    """
    if not data.strip():
        raise RejectedItemError("EmptyText", "The file is empty")
    if b"\x00" in data and data[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        raise RejectedItemError("NulByte", f"The file has a NUL byte at byte {data.index(0)}")
    trafilatura = streams.import_for_documents("trafilatura")
    try:
        text = trafilatura.extract(data, include_comments=False) or trafilatura.html2txt(data)
    except Exception as error:  # whatever a broken page sets off in the parsers costs that page only
        raise RejectedItemError("InvalidHtml", f"The page can't be parsed: {error}") from error
    if not text or text.isspace():
        raise RejectedItemError("EmptyText", "The page holds no text")
    return str(text)


def pdf_text(data: bytes) -> str:
    """The text of all pages, joined by blank lines.

    Raises:
        RejectedItemError: `InvalidPdf`, `EncryptedPdf`, or `EmptyText` where there is no text layer (scans).
    """
    if not data:
        raise RejectedItemError("EmptyText", "The file is empty")
    pdfium = streams.import_for_documents("pypdfium2")
    with _PDFIUM:
        pages = _page_texts(pdfium, data)
    text = "\n\n".join(page for page in pages if page)
    if not text:
        raise RejectedItemError("EmptyText", f"The PDF has no text layer on its {len(pages)} pages; is it a scan?")
    return text


def _page_texts(pdfium: Any, data: bytes) -> list[str]:
    texts = []
    try:
        document = pdfium.PdfDocument(data)
        try:
            for number in range(len(document)):
                page = document[number]
                text_page = page.get_textpage()
                texts.append(_cleaned(text_page.get_text_range()))
                text_page.close()
                page.close()
        finally:
            document.close()
    except pdfium.PdfiumError as error:
        if getattr(error, "err_code", None) in (_WRONG_PASSWORD, _UNKNOWN_SECURITY):
            raise RejectedItemError("EncryptedPdf", f"The PDF asks for a password: {error}") from error
        where = f"page {len(texts) + 1} of the PDF" if texts else "The file"
        raise RejectedItemError("InvalidPdf", f"{where} can't be read: {error}") from error
    return texts


def _cleaned(text: str) -> str:
    # PDFium marks a hyphen at a line's end with U+FFFE or U+0002, and glyphs without a character with U+0000.
    text = re.sub("[\ufffe\x02]\r?\n?", "", text).replace("\x00", "").replace("\r\n", "\n").replace("\r", "\n")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()
