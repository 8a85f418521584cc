"""Pages of PDF files as images: whole runs, vectors against the library, and files that are not right."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import configure
from drawings import drawing, save_timm_model
from PIL import Image
from run_results import rows_in_parts

from pipelines.backfill import backfill
from pipelines.load import load
from pipelines.plan import plan
from pipelines.reindex import reindex
from pipelines.search import search
from pipelines.steps.search.queries.query import MediaQuery
from pipelines.sync import sync
from pipelines.verify import verify
from schemas.config import Config
from schemas.errors import ConfigurationError, SpaceMismatchError
from schemas.locator import PdfPage, as_text
from transforms.encoders import resolve
from transforms.encoders.base import media_inputs
from transforms.encoders.media.image import MAX_PIXELS
from transforms.support.pdf_pages import PdfError, page_count, page_image

pdfium = pytest.importorskip("pypdfium2", reason="the extra documents is not installed")
pytest.importorskip("timm", reason="the extra image is not installed")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_timm_model(tmp_path_factory.mktemp("timm"))


def write_pdf(path: Path, numbers: list[int], **options: Any) -> Path:
    """A PDF with a drawing on each page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = [drawing(number, (96, 80)) for number in numbers]
    first.save(path, "PDF", save_all=True, append_images=others, resolution=72, **options)
    return path


def page_config(folder: Path, model: Path, dpi: int = 144, **changes: Any) -> Config:
    corpus = {"paths": ["docs/*.pdf"], "pages": {"dpi": dpi}, **changes.pop("corpus", {})}
    return configure(folder, **({"corpus": corpus, "encoder": {"model": str(model)}} | changes))


def drawn(path: Path, page: int, dpi: int) -> Image.Image:
    """A page by PDFium itself."""
    document = pdfium.PdfDocument(path)
    image: Image.Image = document[page].render(scale=dpi / 72).to_pil().convert("RGB")
    document.close()
    return image


def test_each_page_is_a_row_with_the_vector_of_its_image(tmp_path: Path, model: Path) -> None:
    first = write_pdf(tmp_path / "docs" / "first.pdf", [1, 2, 3])
    write_pdf(tmp_path / "docs" / "second.pdf", [4])
    config = page_config(tmp_path, model)
    assert plan(config).chunks.value == 4
    report = backfill(config)
    assert (report.items.read, report.chunks.embedded, report.verify.found) == (2, 4, 4)
    rows = rows_in_parts(config)
    assert {name: (row["start"], row["end"], row["chunk"]) for name, row in rows.items()} == {
        "first.pdf#0": (0, 1, 0),
        "first.pdf#1": (1, 2, 1),
        "first.pdf#2": (2, 3, 2),
        "second.pdf#0": (0, 1, 0),
    }
    assert rows["first.pdf#1"]["uri"] == f"{first}#page=2"
    images = [drawn(first, page, 144) for page in range(3)]
    assert images[0].size == (192, 160)
    encoder = resolve(config.encoder).load()
    expected = encoder.encode(media_inputs(map(png, images))).matrix
    found = np.array([rows[f"first.pdf#{page}"]["vector"] for page in range(3)], np.float32)
    assert (found * expected).sum(axis=1).min() >= 0.9999 * float(np.linalg.norm(expected[0]) ** 2)

    # A picture of a page finds it.
    picture = tmp_path / "picture.png"
    images[1].save(picture)
    best = search(config, MediaQuery(str(picture)), k=1)[0]
    assert (best["id"], best["start"], best["end"]) == ("first.pdf#1", 1, 2)
    assert verify(config).verify.missing == 0


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def test_pages_that_change_go_and_get_another_resolution(tmp_path: Path, model: Path) -> None:
    write_pdf(tmp_path / "docs" / "first.pdf", [1, 2, 3])
    write_pdf(tmp_path / "docs" / "second.pdf", [4, 5])
    config = page_config(tmp_path, model)
    backfill(config)
    assert sync(config).chunks.embedded == 0
    write_pdf(tmp_path / "docs" / "first.pdf", [1, 6])
    report = sync(config)
    assert (report.chunks.embedded, report.chunks.deleted) == (2, 1)
    assert verify(config).verify.found == 4
    # Another resolution makes other images: their vectors are of another space.
    finer = page_config(tmp_path, model, dpi=288)
    for command in (sync, verify, load):
        with pytest.raises(SpaceMismatchError, match="page_dpi: 288 here, 144 there") as caught:
            command(finer)
        assert "vecbeam reindex" in str(caught.value.remedy)
    picture = tmp_path / "picture.png"
    drawn(tmp_path / "docs" / "first.pdf", 1, 144).save(picture)
    with pytest.raises(SpaceMismatchError, match="page_dpi: 288 here, 144 there"):
        search(finer, MediaQuery(str(picture)), k=1)
    assert search(config, MediaQuery(str(picture)), k=1)[0]["id"] == "first.pdf#1"
    assert reindex(finer).chunks.embedded == 4
    assert verify(finer).verify.found == 4
    assert sync(finer).chunks.embedded == 0
    with pytest.raises(SpaceMismatchError, match="page_dpi: 144 here, 288 there"):
        sync(config)


def test_pages_alone_in_a_batch_and_shuffled_have_the_same_vectors(tmp_path: Path, model: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", [1, 2, 3, 4, 5])
    encoder = resolve(page_config(tmp_path, model).encoder).load()
    pages = media_inputs([str(path)] * 5)
    at = pages.column_names.index("@locator")
    locators = [as_text(PdfPage(page, 100)) for page in range(5)]
    pages = pages.set_column(at, pages.schema.field(at), [locators])
    whole = encoder.encode(pages).matrix
    order = [3, 0, 4, 2, 1]
    assert np.allclose(encoder.encode(pages.take(order)).matrix, whole[order], atol=1e-5)
    for page in range(5):
        assert np.allclose(encoder.encode(pages.slice(page, 1)).matrix[0], whole[page], atol=1e-5)


def test_files_that_are_not_right_are_rejects(tmp_path: Path, model: Path) -> None:
    docs = tmp_path / "docs"
    good = write_pdf(docs / "good.pdf", [1, 2])
    (docs / "cut.pdf").write_bytes(good.read_bytes()[:200])
    (docs / "empty.pdf").write_bytes(b"")
    (docs / "html.pdf").write_bytes(b"<html>no PDF</html>")
    # One page of 200 x 200 inches.
    write_pdf(docs / "large.pdf", [3])
    large = pdfium.PdfDocument.new()
    large.new_page(14400, 14400)
    large.save(docs / "large.pdf")
    report = backfill(page_config(tmp_path, model, verify={"max_rejected": 1.0}))
    assert report.rejects == {"EmptyFile": 1, "InvalidPdf": 2, "TooManyPixels": 1}
    assert report.verify.found == 2


def test_a_page_bomb_is_refused_before_it_is_drawn(tmp_path: Path) -> None:
    document = pdfium.PdfDocument.new()
    document.new_page(14400, 14400)
    stream = io.BytesIO()
    document.save(stream)
    assert page_count(stream.getvalue()) == 1
    with pytest.raises(PdfError, match=r"Page 1 has 30,000 x 30,000 pixels at 150 dpi, .* lower corpus\.pages\.dpi"):
        page_image(stream.getvalue(), 0, 150, MAX_PIXELS)
    with pytest.raises(PdfError, match="The PDF has 1 pages now; page 3 is gone"):
        page_image(stream.getvalue(), 2, 20, MAX_PIXELS)


@pytest.mark.parametrize(
    ("corpus", "says"),
    [
        ({"paths": ["docs/*"]}, "pages is for PDF files; let all paths end in .pdf, or set format: pdf"),
        ({"format": "image"}, "pages is for PDF files, and format is image"),
        ({"content": ["text"]}, "content and pages are both set"),
        ({"pages": {"dpi": 10}}, r"corpus\.pages\.dpi: .* 18"),
    ],
)
def test_configurations_that_do_not_fit(tmp_path: Path, model: Path, corpus: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        page_config(tmp_path, model, corpus=corpus)


def test_a_text_encoder_is_refused_for_pages(tmp_path: Path, model: Path) -> None:
    write_pdf(tmp_path / "docs" / "a.pdf", [1])
    with pytest.raises(ConfigurationError, match="fake embeds text, and the corpus has items of the modality image"):
        backfill(page_config(tmp_path, model, encoder={"model": "fake"}))
    assert not (tmp_path / "checkpoint").exists()
