"""The text of HTML pages: decoded as browsers do it, the whole main part."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections import Counter
from html import escape
from html.parser import HTMLParser
from typing import Any

from transforms.read import stream
from transforms.read.formats import charset
from transforms.read.rejected_item import RejectedItemError

HTML_DEFAULT = "windows-1252"
"""The encoding of a page that declares none and is not valid UTF-8."""
_DECLARED_WITHIN = 64 << 10
"""Bytes before the body that are searched for a declaration; the standard has 1,024, browsers search more."""
_BODY = re.compile(rb"<body\b", re.IGNORECASE)
_COMMENT = re.compile(rb"<!--.*?-->", re.DOTALL)
_META = re.compile(rb"<meta\b[^>]*?\bcharset\s*=\s*[\"']?\s*([A-Za-z0-9_.:\-]+)", re.IGNORECASE)
_XML = re.compile(rb"^\s*<\?xml\b[^>]*?\bencoding\s*=\s*[\"']([A-Za-z0-9_.:\-]+)", re.IGNORECASE)
_XML_DECLARATION = re.compile(r"^\s*<\?xml\b.*?\?>", re.IGNORECASE | re.DOTALL)
_XHTML = re.compile(r"^\s*<\?xml\b|\bxmlns\s*=\s*[\"']http://www\.w3\.org/1999/xhtml", re.IGNORECASE)
_CDATA = re.compile(r"<!\[CDATA\[(.*?)\]\]>", re.DOTALL)
_STANDARD = {
    **dict.fromkeys(("ascii", "iso8859-1", "cp1252"), "cp1252"),
    **dict.fromkeys(("gb2312", "gbk", "gb18030"), "gb18030"),
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
    # A declaration that is readable as ASCII was not written in UTF-16.
    **dict.fromkeys(("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "utf-7"), "utf-8"),
}
"""The encoding that the standard uses for a declared one, by Python's names of codecs."""
_WHATWG = {"x-sjis": "cp932", "windows-31j": "cp932", "ks_c_5601-1987": "cp949", "x-gbk": "gb18030", "unicode": "utf-8"}
_UNSEEN = frozenset(
    [
        *("script", "style", "template", "noscript", "title", "iframe", "object", "embed", "canvas", "audio", "video"),
        *("datalist", "map", "area", "meta", "link", "param", "source", "track", "noframes", "noembed", "rp"),
    ]
)
"""Elements whose text a browser does not show."""
_ROLES = frozenset({"navigation", "contentinfo", "search", "dialog", "alertdialog"})
_NAVIGATION = re.compile(
    r"(?:^|[\s_-])(?:nav|navbar|navigation|menu|footer|sidebar|breadcrumbs?|banner|pagination|skip-link)(?:$|[\s_-])",
    re.IGNORECASE,
)
"""Names of elements that are navigation if they consist of links."""
_NOISE = re.compile(
    r"(?:^|[\s_-])(?:cookies?|consent|comments?|share|sharing|social|advert|ads|newsletter)(?:$|[\s_-])", re.IGNORECASE
)
_UNSEEN_PAIRS = frozenset({"script", "style", "template", "noscript", "title"})
"""Those of them that always have an end tag."""
_HIDDEN_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_INLINE = frozenset(
    [
        *("a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i"),
        *(
            "img",
            "input",
            "ins",
            "kbd",
            "label",
            "mark",
            "meter",
            "nobr",
            "output",
            "progress",
            "q",
            "ruby",
            "rb",
            "rt",
        ),
        *(
            "rtc",
            "s",
            "samp",
            "small",
            "span",
            "strike",
            "strong",
            "sub",
            "sup",
            "time",
            "tt",
            "u",
            "var",
            "wbr",
            "svg",
        ),
        *("text", "tspan", "math", "mi", "mo", "mn", "mrow", "msup", "msub", "mfrac"),
    ]
)
"""Elements within a line; the others begin and end one."""
_PREFORMATTED = frozenset({"pre", "textarea", "listing", "xmp"})
_SPACE = re.compile(r"[ \t\r\n\f]+")
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
            text = _flat_text(page)
        else:
            text = _whole(str(trafilatura.extract(page, include_comments=False) or ""), tree)
    except Exception as error:  # any error of the parsers on a broken page costs only that page
        raise RejectedItemError("InvalidHtml", f"The page can't be parsed: {error}") from error
    if not text or text.isspace():
        raise RejectedItemError("EmptyText", "The page holds no text")
    return text


def decoded(data: bytes, configured: str | None = None) -> str:
    """The text of a page: by its byte order mark, the configuration, its declaration, UTF-8 if it is that, or
    windows-1252.

    A declaration that can't be true does not count: a page that declares a single-byte encoding and is
    UTF-8 is read as UTF-8, and one that declares UTF-8 and has no character of it is read as windows-1252.
    """
    encoding, length = charset.marked(data)
    if encoding:
        return data[length:].decode(encoding, "replace")
    if configured:
        return data.decode(configured, "replace")
    declared = _declared(data)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = None
    if text is not None and (not declared or declared == "utf-8" or charset.is_splittable(declared)):
        return text
    if declared and declared != "utf-8":
        return _decoded_as(data, declared)
    if declared and _has_utf8(data):
        return data.decode("utf-8", "replace")  # broken in places, as a browser shows it
    return _decoded_as(data, HTML_DEFAULT)


def _declared(data: bytes) -> str:
    """Python's name of the encoding that a page declares, as the standard reads it; "" for none or an unknown one."""
    beginning = _BODY.split(_COMMENT.sub(b"", data[:_DECLARED_WITHIN]), maxsplit=1)[0]
    found = _META.search(beginning) or _XML.search(beginning)
    if not found:
        return ""
    label = found.group(1).decode("ascii").lower()
    try:
        name = codecs.lookup(_WHATWG.get(label, label)).name
        "".encode(name)
    except (LookupError, TypeError, ValueError):
        return ""
    return _STANDARD.get(name, name)


def _has_utf8(data: bytes) -> bool:
    return bool(re.search("[^\x00-\x7f\ufffd]", data.decode("utf-8", "replace")))


def _decoded_as(data: bytes, encoding: str) -> str:
    if codecs.lookup(encoding).name != "cp1252":
        return data.decode(encoding, "replace")
    # The five bytes that windows-1252 leaves open are control characters in browsers.
    text = data.decode("cp1252", "surrogateescape")
    return text.translate({0xDC00 + byte: byte for byte in (0x81, 0x8D, 0x8F, 0x90, 0x9D)})


def _parsed(page: str) -> Any:
    """The tree of a page; None if it is nested so deeply that the parser gives up, or has no element."""
    lxml_html = stream.import_for_documents("lxml.html")
    parser = lxml_html.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, huge_tree=True)
    try:
        tree = lxml_html.document_fromstring(page.encode("utf-8", "replace"), parser=parser)
    except lxml_html.etree.ParserError:  # nothing but comments
        return None
    return None if any("depth" in error.message for error in parser.error_log) else tree


class _FlatText(HTMLParser):
    """Gathers text without a tree, at any depth of nesting."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self._unseen += tag in _UNSEEN_PAIRS
        self.pieces.append("" if tag in _INLINE else "\n")

    def handle_endtag(self, tag: str) -> None:
        self._unseen = max(0, self._unseen - (tag in _UNSEEN_PAIRS))
        self.pieces.append("" if tag in _INLINE else "\n")

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.pieces.append(_collapsed(data, 0))


def _flat_text(page: str) -> str:
    parser = _FlatText()
    parser.feed(page)
    parser.close()
    lines = (line.strip() for line in "".join(parser.pieces).split("\n"))
    return "\n".join(line for line in lines if line)


def _whole(extracted: str, tree: Any) -> str:
    """The extracted text, unless it misses words of the page's main part: then all text except navigation."""
    parts = [part for part in tree.iter("main", "article") if not _is_inside(part, ("main", "article"))]
    wanted = Counter(word for part in parts or [tree] for word in _words(_shown(part, certain=True)))
    if extracted and not wanted - Counter(_words(extracted)):
        return extracted
    return _shown(tree) or _shown(tree, asides=True) or extracted


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFC", text.translate(_INVISIBLE)))


def _is_inside(element: Any, tags: tuple[str, ...]) -> bool:
    return next(element.iterancestors(*tags), None) is not None


def _is_hidden(element: Any) -> bool:
    if not isinstance(element.tag, str) or element.tag in _UNSEEN or element.get("hidden") is not None:
        return True
    if element.tag == "dialog" and element.get("open") is None:
        return True
    return bool(_HIDDEN_STYLE.search(element.get("style") or ""))


def _is_aside(element: Any) -> bool:
    """Whether an element is outside the main part, as far as names of elements and classes tell."""
    if element.tag in ("html", "body", "main", "article"):
        return False
    if element.tag == "nav" or element.get("role") in _ROLES:
        return True
    if element.tag in ("footer", "aside"):
        return not _is_inside(element, ("main", "article"))
    names = f"{element.get('class') or ''} {element.get('id') or ''}"
    if names == " ":
        return False
    return bool(_NOISE.search(names)) or bool(_NAVIGATION.search(names) and _link_share(element) > 0.5)


def _is_uncertain(element: Any) -> bool:
    """Whether an element is probably navigation: a list of links, or a page's head without a title."""
    if element.tag in ("ul", "ol", "menu"):
        return _link_share(element) > 0.8
    return element.tag == "header" and not _is_inside(element, ("main", "article")) and element.find(".//h1") is None


def _link_share(element: Any) -> float:
    total = len(_SPACE.sub("", "".join(element.itertext())))
    links = sum(len(_SPACE.sub("", "".join(link.itertext()))) for link in element.iter("a"))
    return links / total if total else 1.0


def _shown(tree: Any, *, asides: bool = False, certain: bool = False) -> str:
    """The text of an element as a browser shows it: one line per block, the cells of a row on one line.

    Args:
        tree: the element.
        asides: includes navigation and similar elements.
        certain: leaves out what is probably navigation.
    """
    etree = stream.import_for_documents("lxml.etree")
    pieces: list[str] = []
    left_out: set[Any] = set()
    preformatted = 0
    walk = etree.iterwalk(tree, events=("start", "end"))
    for event, element in walk:
        if event == "start":
            if element is not tree and (
                _is_hidden(element) or (not asides and _is_aside(element)) or (certain and _is_uncertain(element))
            ):
                left_out.add(element)
                walk.skip_subtree()
                continue
            preformatted += element.tag in _PREFORMATTED
            pieces.append(_before(element.tag))
            pieces.append(_collapsed(element.text, preformatted))
            continue
        if element in left_out:
            left_out.remove(element)
            # What is hidden leaves no gap, and any other block does.
            pieces.append("" if element.tag in _INLINE or element.tag in _UNSEEN else "\n")
        else:
            preformatted -= element.tag in _PREFORMATTED
            pieces.append("" if element.tag in _INLINE or element.tag in ("br", "td", "th") else "\n")
        if element is not tree:
            pieces.append(_collapsed(element.tail, preformatted))
    lines = (re.sub(r"[ \t\f\v]+", " ", line).strip(" |") for line in "".join(pieces).split("\n"))
    return "\n".join(line for line in lines if line and line != "-")


def _before(tag: str) -> str:
    if tag in _INLINE:
        return ""
    return {"td": " | ", "th": " | ", "li": "\n- "}.get(tag, "\n")


def _collapsed(text: str | None, preformatted: int) -> str:
    if not text:
        return ""
    return text if preformatted else _SPACE.sub(" ", text)
