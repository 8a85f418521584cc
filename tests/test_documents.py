"""Pages and PDF files to text: in the right encoding, whole, and with what readers see on top of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from schemas.config import Corpus
from transforms.read import list_corpus, plan_shards, read_shard
from transforms.read.formats.documents.captions import captions_text
from transforms.read.formats.documents.html import html_text
from transforms.read.formats.documents.pdf import pdf_text
from transforms.read.rejected_item import RejectedItemError

FRENCH = "Une journée très agréable à Genève, où l'été dure longtemps."
RUSSIAN = "Съешь же ещё этих мягких французских булок"
JAPANESE = "いろはにほへと ちりぬるを 東京"


def page(text: str, head: str = "") -> str:
    return f"<!DOCTYPE html><html><head>{head}</head><body><p>{text}</p></body></html>"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (page(FRENCH).encode("cp1252"), FRENCH),
        (page(FRENCH).encode(), FRENCH),
        (page(FRENCH).encode("utf-16"), FRENCH),
        (page(FRENCH).encode("utf-8-sig"), FRENCH),
        (page("“quoted” – 5 €").encode("cp1252"), "“quoted” – 5 €"),
        (page("“quoted”", '<meta charset="iso-8859-1">').encode("cp1252"), "“quoted”"),
        (page(RUSSIAN, "<meta charset=windows-1251>").encode("cp1251"), RUSSIAN),
        (
            page(RUSSIAN, '<meta http-equiv="Content-Type" content="text/html; charset=koi8-r">').encode("koi8-r"),
            RUSSIAN,
        ),
        (page(JAPANESE, "<meta charset='Shift_JIS'>").encode("cp932"), JAPANESE),
        (page(JAPANESE, "<meta charset='x-sjis'>").encode("cp932"), JAPANESE),
        (page(JAPANESE, "<meta charset='euc-jp'>").encode("euc_jp"), JAPANESE),
        (page("联通", "<meta charset=gb2312>").encode("gbk"), "联通"),
        (page(FRENCH, "<meta charset='nonsense'>").encode("cp1252"), FRENCH),
        (page(FRENCH, "<meta charset='utf-8'>").encode("cp1252"), FRENCH),
        (page(FRENCH, "<meta charset='iso-8859-1'>").encode(), FRENCH),
        (page(FRENCH, "<meta charset='utf-16'>").encode(), FRENCH),
        (page(RUSSIAN, f"<script>{'x' * 5000}</script><meta charset=windows-1251>").encode("cp1251"), RUSSIAN),
        (page(FRENCH + ' <meta charset="koi8-r">').encode("cp1252"), FRENCH),
        (page(FRENCH, "<!-- <meta charset='koi8-r'> -->").encode("cp1252"), FRENCH),
        (b'<?xml version="1.0" encoding="ISO-8859-1"?>' + page(FRENCH).encode("cp1252"), FRENCH),
        (b'<?xml version="1.0" encoding="UTF-8"?>' + page(FRENCH).encode(), FRENCH),
    ],
)
def test_a_page_is_read_in_its_encoding(data: bytes, text: str) -> None:
    assert html_text(data) == text


def test_a_broken_character_costs_itself() -> None:
    data = page(FRENCH + " gut", "<meta charset=utf-8>").encode().replace(b"gut", b"g\xfct")
    assert html_text(data) == FRENCH + " g\ufffdt"


def test_the_configured_encoding_goes_before_the_declared_one() -> None:
    assert html_text(page(RUSSIAN, "<meta charset=utf-8>").encode("cp1251"), "cp1251") == RUSSIAN


SENTENCE = "Opening hours are from nine to five on every working day."
LONG = " ".join(f"Sentence number {n} says something about the harvest of olives in the hills." for n in range(12))


@pytest.mark.parametrize(
    "data",
    [
        f"<p>{SENTENCE}</p>",
        SENTENCE,
        "\n" * 80 + f"<!DOCTYPE html><html><body><p>{SENTENCE}</p></body></html>",
        f"<!-- {'x' * 300} --><html><body>{SENTENCE}</body></html>",
        f'<?xml version="1.0" encoding="UTF-8" standalone="yes"?><!DOCTYPE html><html><body>{SENTENCE}</body></html>',
        f'<html xmlns="http://www.w3.org/1999/xhtml"><body><div>{SENTENCE}</div></body></html>',
        f"<?xml version='1.0'?><html xmlns='http://www.w3.org/1999/xhtml'><body><p><![CDATA[{SENTENCE}]]></p></body></html>",
        f"<title>T</title><td>{SENTENCE}",
        f"<body><nav>{SENTENCE}</nav></body>",
        f"<b>{SENTENCE}</b>",
        f"<html><body><noscript>no</noscript><main>{SENTENCE}</main></body></html>",
    ],
)
def test_any_page_with_text_is_an_item(data: str) -> None:
    assert re.search(re.escape(SENTENCE), html_text(data.encode()))


@pytest.mark.parametrize(
    "part",
    [
        "<p>short</p>",
        "<div>loose <i>words</i> outside</div>",
        "<table><tr><td>cell one</td><td>cell two</td></tr></table>",
        "<dl><dt>term</dt><dd>meaning</dd></dl>",
        "<pre>  code = 1\n</pre>",
        "<figure><img src=a><figcaption>a caption</figcaption></figure>",
        "<details><summary>question</summary>answer</details>",
        "<blockquote>a quotation <cite>its source</cite></blockquote>",
        "<ul><li>first point</li><li>second point</li></ul>",
        "<aside>pulled words</aside>",
        "<h2>repeated</h2><h2>repeated</h2>",
        "<p>un<b>brok</b>en</p>",
        "<form><fieldset><legend>legend</legend><label>label</label></fieldset></form>",
        "<div class='menu'><p>Soup of the day</p></div>",
        "<address>12 Main Street</address>",
        "<svg><text>drawn</text></svg>",
        "tail text",
        "<p>x<sub>2</sub> &amp; &lt;tag&gt; &eacute;</p>",
    ],
)
def test_no_word_of_the_main_part_is_lost(part: str) -> None:
    expected = re.sub("<[^>]*>", "\0", re.sub("</?(b|i|sub)>", "", part)).replace("&amp;", "").replace("&eacute;", "é")
    for name in ("article", "main", "div")[: 2 if "aside" in part else 3]:
        text = html_text(
            f"<html><body><nav><a href=/>Home</a></nav><{name}><h1>Title</h1><p>{LONG}</p>{part}<p>{LONG}</p></{name}>"
            "<footer>Imprint</footer></body></html>".encode()
        )
        found = re.findall(r"\w+", text)
        for word in re.findall(r"\w+", expected.replace("&lt;", " ").replace("&gt;", " ")):
            assert word in found
        assert text.count("number 3 says") == 2


def test_a_page_nested_without_end_keeps_its_words() -> None:
    data = (
        "<html><head><style>p {}</style></head><body>"
        + "<div>" * 5000
        + "deep <b>wo</b>rds"
        + "</div>" * 5000
        + "<p>after"
    )
    assert html_text(data.encode()) == "deep words\nafter"


def test_navigation_is_left_out() -> None:
    data = (
        page(LONG)
        .replace("<body>", "<body><nav><a href=/>Home</a></nav>")
        .replace("</body>", "<footer>Imprint</footer>")
    )
    assert html_text(data.encode()) == LONG


@pytest.mark.parametrize(
    "data", [b"<html><body><script>x()</script></body></html>", b"<!-- only -->", b"<p> </p>", b" "]
)
def test_a_page_without_text_is_a_reject(data: bytes) -> None:
    with pytest.raises(RejectedItemError) as found:
        html_text(data)
    assert found.value.error == "EmptyText"


def pdf(annotations: list[str], fields: bool) -> bytes:
    """A page that says Label, with annotations; they are fields of a form if `form` says so."""
    stream = b"BT /F1 12 Tf 20 100 Td (Label) Tj ET"
    references = " ".join(f"{number} 0 R" for number in range(6, 6 + len(annotations)))
    form = (
        f"/AcroForm << /Fields [{references}] /DA (/F1 12 Tf 0 g) /DR << /Font << /F1 5 0 R >> >> >>" if fields else ""
    )
    objects = [
        f"<< /Type /Catalog /Pages 2 0 R {form} >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 200] /Contents 4 0 R /Annots [{references}]"
        " /Resources << /Font << /F1 5 0 R >> >> >>",
        f"<< /Length {len(stream)} >>\nstream\n{stream.decode()}\nendstream",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        *(f"<< /Type /Annot /Rect [20 20 280 40] /P 3 0 R /DA (/F1 12 Tf 0 g) {more} >>" for more in annotations),
    ]
    out, offsets = b"%PDF-1.7\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode()
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    trailer = f"trailer << /Size {size} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF".encode()
    return out + f"xref\n0 {size}\n0000000000 65535 f \n".encode() + table + trailer


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        ("/Subtype /Widget /FT /Tx /T (a) /F 4 /V (Typed value)", "Label\nTyped value"),
        ("/Subtype /Widget /FT /Tx /T (a) /F 4 /V <FEFF67714EAC>", "Label\n東京"),
        ("/Subtype /Widget /FT /Tx /Ff 4096 /T (a) /F 4 /V (Line one\\nLine two)", "Label\nLine one\nLine two"),
        ("/Subtype /Widget /FT /Ch /Ff 131072 /T (c) /F 4 /Opt [[(x) (Shown)] [(y) (Other)]] /V (x)", "Label\nShown"),
        ("/Subtype /Widget /FT /Tx /T (a) /F 2 /V (Hidden value)", "Label"),
        ("/Subtype /Widget /FT /Tx /T (a) /F 4", "Label"),
        ("/Subtype /FreeText /F 4 /Contents (A note on the page)", "Label\nA note on the page"),
        ("/Subtype /FreeText /F 2 /Contents (A hidden note)", "Label"),
        ("/Subtype /Link /A << /S /URI /URI (http://example.org) >>", "Label"),
    ],
)
def test_values_of_forms_belong_to_the_text(annotation: str, text: str) -> None:
    assert pdf_text(pdf([annotation], fields="/Widget" in annotation)) == text


def read(path: Path, **corpus: Any) -> tuple[list[str], list[tuple[str, str]]]:
    settings = Corpus(paths=[str(path)], **corpus)
    batches = [
        batch
        for shard in plan_shards(list_corpus(settings), settings)
        for batch in read_shard(shard, settings, batch_rows=9)
    ]
    return (
        [text for batch in batches for text in batch.items.column("@content").to_pylist()],
        [(row["error"], row["reason"]) for batch in batches for row in batch.rejects.to_pylist()],
    )


def test_text_files_in_other_encodings(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(FRENCH.encode("utf-16"))
    (tmp_path / "b.md").write_bytes(FRENCH.encode("utf-8-sig"))
    assert read(tmp_path / "*") == ([FRENCH, FRENCH], [])
    (tmp_path / "c.txt").write_bytes(FRENCH.encode("cp1252"))
    texts, rejects = read(tmp_path / "*")
    assert texts == [FRENCH, FRENCH]
    assert [error for error, _ in rejects] == ["InvalidUtf8"]
    assert read(tmp_path / "*", encoding="windows-1252") == ([FRENCH, FRENCH, FRENCH], [])
    (tmp_path / "d.txt").write_bytes(b"\x81 is not a letter")
    assert read(tmp_path / "d.txt", encoding="windows-1252")[1] == [
        ("InvalidEncoding", "The file has bytes that are not cp1252")
    ]


SUBRIP = (
    "1\r\n00:00:01,000 --> 00:00:02,500\r\n<i>Where is</i> it?\r\n{\\an8}Here &amp; there.\r\n\r\n"
    "2\r\n00:00:03,000 --> 00:00:04,000\r\n- No.\r\n"
)
WEBVTT = """WEBVTT - a title

NOTE nobody reads this
--

STYLE
::cue { color: red }

intro
00:01.000 --> 00:02.500 align:start
<v Ann>Where is</v> it?<00:00:02.000>
Here &amp; there.

00:00:03.000 --> 00:00:04.000
Here &amp; there.
- No.
"""


@pytest.mark.parametrize("text", [SUBRIP, WEBVTT], ids=["srt", "vtt"])
def test_captions_are_text_without_times(text: str) -> None:
    assert captions_text(text) == "Where is it? Here & there.\n- No."


def test_nothing_of_a_caption_is_lost() -> None:
    text = "1\n00:00:01,000 --> 00:00:02,500\n2 < 3\n\nand 4 > 3\n\n2\n01:00:00,000 --> 01:00:01,000\n1999\n"
    assert captions_text(text) == "2 < 3\nand 4 > 3\n1999"


def test_a_file_without_times_is_not_captions() -> None:
    with pytest.raises(RejectedItemError, match="NotCaptions"):
        captions_text("<html><body>Not found</body></html>")
