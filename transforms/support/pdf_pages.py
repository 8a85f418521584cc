"""Pages of PDF files: how many there are, and one as an image. PDFium is not thread-safe, so it does one at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from schemas.errors import ConfigurationError
from transforms.support.item_error import ItemError

if TYPE_CHECKING:
    from PIL.Image import Image

PDFIUM = threading.Lock()
WRONG_PASSWORD = 4  # FPDF_ERR_PASSWORD
UNKNOWN_SECURITY = 5  # FPDF_ERR_SECURITY
_POINTS_PER_INCH = 72


class PdfError(ItemError):
    """A PDF that can't be read, and its item becomes a reject."""


def page_count(data: bytes) -> int:
    """How many pages a PDF has.

    Raises:
        PdfError: `InvalidPdf` or `EncryptedPdf`.
        ConfigurationError: if pypdfium2 is not installed.
    """
    with _document(data) as document:
        pages = len(document)
    if not pages:
        raise PdfError("InvalidPdf", "The PDF has no page")
    return pages


def page_image(data: bytes, page: int, dpi: int, most_pixels: int) -> Image:
    """A page as an image in RGB, over white, with its notes and the values of its forms.

    Args:
        page: from 0 on.
        most_pixels: a larger image is refused before it is drawn.

    Raises:
        PdfError: `InvalidPdf`, `EncryptedPdf` or `TooManyPixels`.
        ConfigurationError: if pypdfium2 is not installed.
    """
    with _document(data) as document:
        document.init_forms()  # before any page is loaded
        if page >= len(document):
            raise PdfError("InvalidPdf", f"The PDF has {len(document)} pages now; page {page + 1} is gone")
        opened = document[page]
        scale = dpi / _POINTS_PER_INCH
        width, height = (size * scale for size in opened.get_size())
        if width * height > most_pixels:
            raise PdfError(
                "TooManyPixels",
                f"Page {page + 1} has {width:,.0f} x {height:,.0f} pixels at {dpi} dpi, more than {most_pixels:,}; "
                "lower corpus.pages.dpi",
            )
        image: Image = opened.render(scale=scale).to_pil().convert("RGB")
    return image


@contextmanager
def _document(data: bytes) -> Iterator[Any]:
    try:
        import pypdfium2 as pdfium
    except ImportError as error:
        raise ConfigurationError(
            f"corpus.pages: pypdfium2 is needed for pages of PDF files and can't be imported: {error}",
            "pip install 'vecbeam[documents]'",
        ) from error
    if not data:
        raise PdfError("EmptyFile", "The file has no bytes")
    with PDFIUM:
        try:
            document = pdfium.PdfDocument(data)
            try:
                yield document
            finally:
                document.close()
        except pdfium.PdfiumError as error:
            if getattr(error, "err_code", None) in (WRONG_PASSWORD, UNKNOWN_SECURITY):
                raise PdfError("EncryptedPdf", f"The PDF needs a password: {error}") from error
            raise PdfError("InvalidPdf", f"The PDF can't be read: {error}") from error
