"""What of a page a reader sees, as text: all of it, or what is not navigation."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

from transforms.read import stream

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


def flat_text(page: str) -> str:
    """All text of a page that is nested too deeply for a tree."""
    parser = _FlatText()
    parser.feed(page)
    parser.close()
    lines = (line.strip() for line in "".join(parser.pieces).split("\n"))
    return "\n".join(line for line in lines if line)


def is_inside(element: Any, tags: tuple[str, ...]) -> bool:
    """Whether an element is below one with such a tag."""
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
        return not is_inside(element, ("main", "article"))
    names = f"{element.get('class') or ''} {element.get('id') or ''}"
    if names == " ":
        return False
    return bool(_NOISE.search(names)) or bool(_NAVIGATION.search(names) and _link_share(element) > 0.5)


def _is_uncertain(element: Any) -> bool:
    """Whether an element is probably navigation: a list of links, or a page's head without a title."""
    if element.tag in ("ul", "ol", "menu"):
        return _link_share(element) > 0.8
    return element.tag == "header" and not is_inside(element, ("main", "article")) and element.find(".//h1") is None


def _link_share(element: Any) -> float:
    total = len(_SPACE.sub("", "".join(element.itertext())))
    links = sum(len(_SPACE.sub("", "".join(link.itertext()))) for link in element.iter("a"))
    return links / total if total else 1.0


def visible_text(tree: Any, *, asides: bool = False, certain: bool = False) -> str:
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
