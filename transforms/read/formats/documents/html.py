"""The text of HTML pages: the whole main part."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from html import escape
from typing import Any

from transforms.read import stream
from transforms.read.formats.documents.html_encoding import decoded
from transforms.read.formats.documents.visible_text import flat_text, is_inside, visible_text
from transforms.read.rejected_item import RejectedItemError

_XML_DECLARATION = re.compile(r"^\s*<\?xml\b.*?\?>", re.IGNORECASE | re.DOTALL)
_XHTML = re.compile(r"^\s*<\?xml\b|\bxmlns\s*=\s*[\"']http://www\.w3\.org/1999/xhtml", re.IGNORECASE)
_CDATA = re.compile(r"<!\[CDATA\[(.*?)\]\]>", re.DOTALL)
_WORD = re.compile(r"\w+")
_INVISIBLE = dict.fromkeys((0xAD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF))


def html_text(data: bytes, configured: str | None = None) -> str:
    """The main text of a page without navigation; all of its text if no main part is found (small pages).

    Args:
        data: the page, or a fragment of one.
        configured: encoding in the configuration, which takes precedence over the page's declaration.

    Raises:
        RejectedItemError: `EmptyText`, `NulByte` or `InvalidHtml`.
    """
    if not data.strip():
        raise RejectedItemError("EmptyText", "The file is empty")
    page = decoded(data, configured)
    if "\x00" in page:
        hint = "; is it UTF-16? set corpus.encoding" if page.count("\x00") * 4 > len(page) else ""
        raise RejectedItemError("NulByte", f"The file has a NUL character at offset {page.index(chr(0))}{hint}")
    if _XHTML.search(page):
        page = _CDATA.sub(lambda section: escape(section.group(1), quote=False), page)
    page = _XML_DECLARATION.sub("", page, count=1).lstrip()
    trafilatura = stream.import_for_documents("trafilatura")
    try:
        tree = _parsed(page)
        if tree is None:
            text = flat_text(page)
        else:
            text = _whole(str(trafilatura.extract(page, include_comments=False) or ""), tree)
    except Exception as error:  # any error of the parsers on a broken page costs only that page
        raise RejectedItemError("InvalidHtml", f"The page can't be parsed: {error}") from error
    if not text or text.isspace():
        raise RejectedItemError("EmptyText", "The page holds no text")
    return text


def _parsed(page: str) -> Any:
    """The tree of a page; None if it is nested so deeply that the parser gives up, or has no element."""
    lxml_html = stream.import_for_documents("lxml.html")
    parser = lxml_html.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, huge_tree=True)
    try:
        tree = lxml_html.document_fromstring(page.encode("utf-8", "replace"), parser=parser)
    except lxml_html.etree.ParserError:  # nothing but comments
        return None
    return None if any("depth" in error.message for error in parser.error_log) else tree


def _whole(extracted: str, tree: Any) -> str:
    """The extracted text, unless it misses words of the page's main part: then all text except navigation."""
    parts = [part for part in tree.iter("main", "article") if not is_inside(part, ("main", "article"))]
    wanted = Counter(word for part in parts or [tree] for word in _words(visible_text(part, certain=True)))
    if extracted and not wanted - Counter(_words(extracted)):
        return extracted
    return visible_text(tree) or visible_text(tree, asides=True) or extracted


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFC", text.translate(_INVISIBLE)))
