"""The encoding of HTML pages, found as browsers do."""

from __future__ import annotations

import codecs
import re

from transforms.read.formats import charset

HTML_DEFAULT = "windows-1252"
"""The encoding of a page that declares none and is not valid UTF-8."""
_DECLARED_WITHIN = 64 << 10
"""Bytes before the body that are searched for a declaration; the standard has 1,024, browsers search more."""
_BODY = re.compile(rb"<body\b", re.IGNORECASE)
_COMMENT = re.compile(rb"<!--.*?-->", re.DOTALL)
_META = re.compile(rb"<meta\b[^>]*?\bcharset\s*=\s*[\"']?\s*([A-Za-z0-9_.:\-]+)", re.IGNORECASE)
_XML = re.compile(rb"^\s*<\?xml\b[^>]*?\bencoding\s*=\s*[\"']([A-Za-z0-9_.:\-]+)", re.IGNORECASE)
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
