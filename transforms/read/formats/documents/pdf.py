"""The text of PDF files: all text of the pages, with values of forms and notes on the page."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from typing import Any

from transforms.read import stream
from transforms.read.rejected_item import RejectedItemError
from transforms.support.pdf_pages import PDFIUM, UNKNOWN_SECURITY, WRONG_PASSWORD

MAX_PDF_BYTES = 512 << 20
"""A PDF has pictures, which never become text; text files are bounded by streams.MAX_RECORD_BYTES."""


def pdf_text(data: bytes) -> str:
    """The text of all pages, joined by blank lines.

    Raises:
        RejectedItemError: `InvalidPdf`, `EncryptedPdf`, or `EmptyText` where there is no text layer (scans).
    """
    if not data:
        raise RejectedItemError("EmptyText", "The file is empty")
    pdfium = stream.import_for_documents("pypdfium2")
    with PDFIUM:
        pages = _page_texts(pdfium, data)
    text = "\n\n".join(page for page in pages if page)
    if not text:
        raise RejectedItemError("EmptyText", f"The PDF has no text layer on its {len(pages)} pages; is it a scan?")
    return text


def _page_texts(pdfium: Any, data: bytes) -> list[str]:
    texts: list[str] = []
    try:
        document = pdfium.PdfDocument(data)
        try:
            document.init_forms()  # before any page is loaded; it also draws values without an appearance
            for number in range(len(document)):
                texts.append(_page_text(pdfium, document, number))
        finally:
            document.close()
    except pdfium.PdfiumError as error:
        if getattr(error, "err_code", None) in (WRONG_PASSWORD, UNKNOWN_SECURITY):
            raise RejectedItemError("EncryptedPdf", f"The PDF needs a password: {error}") from error
        where = f"page {len(texts) + 1} of the PDF" if texts else "The file"
        raise RejectedItemError("InvalidPdf", f"{where} can't be read: {error}") from error
    return texts


def _page_text(pdfium: Any, document: Any, number: int) -> str:
    page = document[number]
    written: list[str] = []
    if pdfium.raw.FPDFPage_GetAnnotCount(page) > 0:
        written = _annotations(pdfium.raw, document.formenv, page)
        # Draws forms and notes into the page, as a reader shows them; if that fails, the page stays unchanged.
        pdfium.raw.FPDFPage_Flatten(page, pdfium.raw.FLAT_NORMALDISPLAY)
        page.close()
        page = document[number]
    text_page = page.get_textpage()
    text = _cleaned(text_page.get_text_range())
    text_page.close()
    page.close()
    # A value with letters that the form's font does not have, or a note without an appearance, is not in the page's
    # text.
    shown = "".join(text.split())
    missing = [value for value in written if "".join(value.split()) not in shown]
    return "\n".join([text, *missing]) if text else "\n".join(missing)


def _annotations(raw: Any, form: Any, page: Any) -> list[str]:
    """Values of text fields and texts of free notes, except for hidden ones and passwords."""
    found = []
    for number in range(raw.FPDFPage_GetAnnotCount(page)):
        annotation = raw.FPDFPage_GetAnnot(page, number)
        if not annotation:
            continue
        try:
            if raw.FPDFAnnot_GetFlags(annotation) & (raw.FPDF_ANNOT_FLAG_HIDDEN | raw.FPDF_ANNOT_FLAG_NOVIEW):
                continue
            kind = raw.FPDFAnnot_GetSubtype(annotation)
            if kind == raw.FPDF_ANNOT_FREETEXT:
                found.append(_string(raw.FPDFAnnot_GetStringValue, annotation, b"Contents"))
            elif (
                kind == raw.FPDF_ANNOT_WIDGET
                and form
                and raw.FPDFAnnot_GetFormFieldType(form, annotation) == raw.FPDF_FORMFIELD_TEXTFIELD
                and not raw.FPDFAnnot_GetFormFieldFlags(form, annotation) & raw.FPDF_FORMFLAG_TEXT_PASSWORD
            ):
                found.append(_string(raw.FPDFAnnot_GetFormFieldValue, form, annotation))
        finally:
            raw.FPDFPage_CloseAnnot(annotation)
    return [value for value in found if value]


def _string(get: Callable[..., int], *arguments: Any) -> str:
    """A string that PDFium gives as UTF-16 with a NUL at its end."""
    size = get(*arguments, None, 0)
    if size <= 2:
        return ""
    buffer = (ctypes.c_ushort * (size // 2))()
    get(*arguments, buffer, size)
    return _cleaned(bytes(buffer)[: size - 2].decode("utf-16-le", "replace"))


def _cleaned(text: str) -> str:
    # PDFium marks a hyphen at a line's end with U+FFFE or U+0002, and glyphs without a character with U+0000.
    text = re.sub("[\ufffe\x02]\r?\n?", "", text).replace("\x00", "").replace("\r\n", "\n").replace("\r", "\n")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()
