"""A format of another package, and how formats of other packages are refused."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from corpora import configure
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.plan import plan
from pipelines.search import search
from pipelines.sync import sync
from pipelines.verify import verify
from schemas import formats
from schemas.errors import ConfigurationError

RECIPES = r'''
"""Recipes: blocks of `key: value` lines with an empty line between."""

from schemas.formats import Format
from transforms.read import decompression
from transforms.read.item import ItemChecker

FORMAT = Format("recipes", (".recipe",), "recipes_format:read", holds_records=True, has_fields=True)
SAME_SUFFIX = Format("same", (".csv",), "recipes_format:read")


def read(opened, sink):
    text = decompression.whole(opened.raw, opened.file, 1 << 20).decode()
    check = ItemChecker(sink.corpus, opened.file.shown)
    for number, block in enumerate(text.strip().split("\n\n"), 1):
        record = dict(line.split(": ", 1) for line in block.splitlines())
        yield from sink.item(check, record, f"recipe {number}")
'''


@pytest.fixture
def bring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Installs entry points of a package outside the tree: what is given by name."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "recipes_format.py").write_text(RECIPES)
    sys.path.insert(0, str(folder))

    def install(**points: str) -> None:
        information = folder / "recipes-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: recipes\nVersion: 1.0\n")
        lines = ["[vecbeam.formats]", *(f"{name} = {value}" for name, value in points.items())]
        (information / "entry_points.txt").write_text("\n".join(lines))
        formats.installed.cache_clear()

    yield install
    sys.path.remove(str(folder))
    sys.modules.pop("recipes_format", None)
    formats.installed.cache_clear()


def soup(number: int) -> str:
    return f"id: soup-{number}\ntext: soup of {number} leeks and potatoes\n"


def test_a_format_of_another_package_goes_all_the_way(bring: Any, tmp_path: Path) -> None:
    bring(recipes="recipes_format:FORMAT")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "a.recipe").write_text("\n".join(map(soup, range(5))))
    (corpus / "b.recipe").write_text(soup(7) + "\nid: no-text\n")
    config = configure(tmp_path, verify={"max_rejected": 0.2})
    assert plan(config).items.new == 6
    report = backfill(config)
    assert (report.items.new, report.rejects, report.verify.published) == (6, {"MissingField": 1}, True)
    assert [reject.place for reject in report.rejected] == ["recipe 2"]
    (corpus / "a.recipe").write_text("\n".join(map(soup, range(4))))
    report = sync(config)
    assert (report.items.deleted, report.chunks.embedded) == (1, 0)
    assert verify(config).verify.damaged == 0
    assert search(config, "soup of 7 leeks and potatoes", k=1)[0]["item_id"] == "soup-7"


@pytest.mark.parametrize(
    ("points", "says"),
    [
        (
            {"recipes": "no_such_module:FORMAT"},
            "'recipes' of the package recipes 1.0 can't be imported: ModuleNotFound",
        ),
        ({"csv": "recipes_format:FORMAT"}, "entry point 'csv' .* is not a schemas.formats.Format of that name"),
        (
            {"same": "recipes_format:SAME_SUFFIX"},
            r"'same' of .* claims files that end in \.csv, and so does one of vecbeam",
        ),
        ({"recipes": "recipes_format:read"}, "is not a schemas.formats.Format of that name"),
    ],
)
def test_a_format_that_can_t_be_used_is_refused_by_name(
    bring: Any, tmp_path: Path, points: dict[str, str], says: str
) -> None:
    bring(**points)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.recipe").write_text(soup(1))
    with pytest.raises(ConfigurationError, match=says):
        backfill(configure(tmp_path))
    assert not (tmp_path / "checkpoint").exists()


def test_a_format_that_is_not_installed_is_refused(tmp_path: Path) -> None:
    configure(tmp_path)
    done = CliRunner().invoke(app, ["plan", str(tmp_path / "vecbeam.yaml"), "--set", "corpus.format=recipes"])
    assert done.exit_code == 2
    assert "corpus.format: 'recipes' is not an installed format; use one of: jsonl, csv" in done.output
