"""`vecbeam explore` as a whole: its results as text, JSON, files and pages; what it refuses; near duplicates."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from corpora import WORDS, configure, text, write_jsonl
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.explore.duplicates import duplicates
from pipelines.export import export
from pipelines.index import Index
from pipelines.steps.collection.current_rows import current_rows
from pipelines.sync import sync
from schemas.config import Config
from schemas.errors import CheckpointError, ConfigurationError
from transforms import milvus
from transforms.explore.near_duplicates import near_duplicates
from transforms.explore.neighbour_search import EXACT_ROWS

UNSAFE = "<script>alert(1)</script>"


def words(number: int) -> str:
    return " ".join(np.random.default_rng(number).choice(WORDS, 12, replace=False))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    """60 different texts, and ten of them again: five the same, five with another order of their words."""
    folder = tmp_path_factory.mktemp("explored")
    records = [{"id": f"own{number}", "text": words(number)} for number in range(59)]
    records.append({"id": "own59", "text": f"{UNSAFE} {text(7)}"})
    records += [{"id": f"same{number}", "text": words(number)} for number in range(5)]
    records += [{"id": f"order{n}", "text": " ".join(reversed(words(n).split()))} for n in range(5, 10)]
    write_jsonl(folder / "corpus" / "a.jsonl", records)
    config = configure(folder, chunk=False)
    backfill(config)
    yield config
    milvus.release(config.collection)


def path_of(config: Config) -> Path:
    return Path(config.collection.uri).parent / "vecbeam.yaml"


def test_planted_duplicates_are_found_and_one_of_each_pair_is_kept(config: Config) -> None:
    found = duplicates(config, above=0.99)
    rows = found.table.to_pylist()
    assert found.figures["groups"] == 10
    pairs = {frozenset(row["item_id"] for row in rows if row["group"] == group) for group in range(10)}
    assert pairs == {frozenset({f"own{n}", f"{'same' if n < 5 else 'order'}{n}"}) for n in range(10)}
    assert {row["item_id"] for row in rows if row["keep"]} == {f"own{n}" for n in range(10)}
    last = duplicates(config, above=0.99, keep="last", by="item").table
    assert {row["item_id"] for row in last.to_pylist() if not row["keep"]} == {f"own{n}" for n in range(10)}
    assert "id" not in last.column_names


def test_inverted_lists_find_the_pairs_that_comparing_all_finds() -> None:
    random = np.random.default_rng(5)
    vectors = random.standard_normal((EXACT_ROWS + 2_000, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[-1_000:] = vectors[:1_000] + 0.01 * random.standard_normal((1_000, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[1_500] = 0  # like no other
    groups = near_duplicates(vectors, 0.99)
    alike = groups.labels[:1_000] == groups.labels[-1_000:]
    assert (alike & (groups.labels[:1_000] >= 0)).mean() > 0.99
    assert groups.labels[1_500] == -1
    assert groups.count < 1_020


def test_equal_rows_are_found_bit_by_bit() -> None:
    random = np.random.default_rng(7)
    vectors = random.standard_normal((3_000, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[random.integers(3_000, size=2_000)] = vectors[random.integers(3_000, size=2_000)]
    vectors[100:103] = 0
    groups = near_duplicates(vectors, 1 - 1e-7)
    _, of_row, counts = np.unique(vectors, axis=0, return_inverse=True, return_counts=True)
    is_equal = (counts[of_row] > 1) & vectors.any(axis=1)
    assert ((groups.labels >= 0) == is_equal).all()
    for group in range(groups.count):
        assert len(set(of_row[groups.labels == group])) == 1


def test_rows_that_are_nearly_equal_are_one_group_in_little_memory() -> None:
    random = np.random.default_rng(6)
    vectors = np.tile(random.standard_normal(16).astype(np.float32), (8_000, 1))
    vectors[6_000:] += 0.001 * random.standard_normal((2_000, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[[10, 20]] = 0  # like nothing, each other included
    tracemalloc.start()
    groups = near_duplicates(vectors, 0.99)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert groups.count == 1
    assert np.flatnonzero(groups.labels < 0).tolist() == [10, 20]
    assert (groups.nearest[groups.labels == 0] > 0.99).all()
    assert peak < 60_000_000  # 64 million pairs


def test_the_command_prints_json_and_writes_files_and_a_page_that_shows_markup_as_text(
    config: Config, tmp_path: Path
) -> None:
    command = ["explore", "duplicates", str(path_of(config)), "--above", "0.2", "--json"]
    files = [tmp_path / f"found.{suffix}" for suffix in ("parquet", "jsonl", "csv")]
    for path in files:
        result = CliRunner().invoke(app, [*command, "--out", str(path), "--html", str(tmp_path / "page.html")])
        assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert (found["rows_total"], found["rows_seen"], found["space"]) == (70, 70, current_rows(config).snapshot.space_id)
    ids = [row["id"] for row in found["rows"]]
    assert len(ids) == found["duplicate_rows"] > 20
    assert pq.read_table(files[0]).column("id").to_pylist() == ids
    assert [json.loads(line)["id"] for line in files[1].read_text().splitlines()] == ids
    assert csv.read_csv(files[2]).column("id").to_pylist() == ids
    page = (tmp_path / "page.html").read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert UNSAFE not in page
    assert "http://" not in page and "https://" not in page  # noqa: PT018


def test_the_command_prints_a_table(config: Config) -> None:
    result = CliRunner().invoke(app, ["explore", "duplicates", str(path_of(config)), "--above", "0.99"])
    assert result.exit_code == 0
    assert "groups          10" in result.output
    assert "own3#0" in result.output


def test_python_has_the_same_words(config: Config) -> None:
    with Index(path_of(config)) as index:
        assert index.explore.duplicates(above=0.99).figures["removable"] == 10


def test_a_sample_is_stated_and_drawn_by_its_seed(config: Config) -> None:
    first, again, other = (duplicates(config, above=0.3, sample=30, seed=seed) for seed in (1, 1, 2))
    assert first.basis["rows_seen"] == 30
    assert first.basis["seed"] == 1
    assert first.table.equals(again.table)
    assert not first.table.equals(other.table)
    assert "pairs outside the sample" in first.notes[0]
    assert "30 of 70 rows (a sample, seed 1)" in first.text()


def test_it_looks_at_the_newest_rows_or_at_the_served_ones(tmp_path: Path) -> None:
    records = [{"id": f"one{number}", "text": words(number)} for number in range(20)]
    write_jsonl(tmp_path / "corpus" / "a.jsonl", records)
    config = configure(tmp_path, chunk=False)
    backfill(config)
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [*records, {"id": "again", "text": words(3)}])
    sync(config)
    assert len(current_rows(config)) == len(current_rows(config, served=True)) == 21
    milvus.release(config.collection)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--above", "1.5"], "--above: 1.5 is not a cosine between 0 and 1"),
        (["--above", "nan"], "--above: nan is not a cosine between 0 and 1"),
        (["--by", "file"], "--by: 'file' is not one of row, item"),
        (["--keep", "best"], "--keep: 'best' is not one of first, last"),
        (["--vector", "title"], "--vector: 'title' is not a dense vector of the checkpoint"),
        (["--out", "found.xlsx"], "--out: found.xlsx does not end in .parquet, .jsonl or .csv"),
        (["--out", "nowhere/found.csv"], "--out: the folder nowhere does not exist"),
        (["--html", "page.txt"], "--html: page.txt does not end in .html"),
    ],
)
def test_wrong_options_are_refused(config: Config, options: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["explore", "duplicates", str(path_of(config)), *options])
    assert result.exit_code == 2
    assert said in result.output


def test_a_corpus_without_rows_or_snapshot_is_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": "a", "text": "one"}])
    config = configure(tmp_path)
    with pytest.raises(CheckpointError, match="has no snapshot"):
        duplicates(config)
    backfill(config)
    assert duplicates(config).figures["groups"] == 0  # one row
    milvus.release(config.collection)


def test_a_vector_that_is_not_a_number_is_named(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": f"a{n}", "text": words(n)} for n in range(3)])
    config = configure(tmp_path, chunk=False)
    backfill(config)
    rows = current_rows(config)
    uri = rows.checkpoint.part_uri(rows.snapshot.part_names[0])
    part = pq.read_table(uri)
    vectors = part.column("vector").to_pylist()
    vectors[1][0] = float("nan")
    at = part.schema.get_field_index("vector")
    import pyarrow as pa

    pq.write_table(part.set_column(at, part.schema.field(at), pa.array(vectors, part.schema.field(at).type)), uri)
    with pytest.raises(CheckpointError, match=r"1 vectors of the checkpoint have NaN or infinity, the first: a1#0"):
        duplicates(config)
    for name in ("rows.parquet", "rows.jsonl", "rows"):
        with pytest.raises(CheckpointError, match="NaN or infinity, the first: a1#0"):
            export(config, tmp_path / name)
        assert not (tmp_path / name).exists()
    assert export(config, tmp_path / "rows.jsonl", without_vectors=True).rows == 3
    with pytest.raises(ConfigurationError, match="--by"):
        duplicates(config, by="part")
    milvus.release(config.collection)


def test_error_rates_of_the_threshold_on_labelled_pairs(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    lines = [f"own{n},same{n}#0,1" for n in range(5)] + [f"own{n},own{n + 20},no" for n in range(10)]
    path.write_text("\n".join(["a,b,same", *lines, "own30,own31,true"]), encoding="utf-8-sig")  # as Excel does
    found = duplicates(config, above=0.99, pairs=path).figures
    assert (found["pairs"], found["false_match_rate"]) == (16, 0)
    assert found["false_non_match_rate"] == pytest.approx(1 / 6, abs=1e-4)
    assert duplicates(config, above=0.01, pairs=path).figures["false_match_rate"] > 0.5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n", "has no column same; it has a, b"),
        ("a,b,same\nown1,own1,1\n", "line 2: 'own1' and 'own1' are not two ids"),
        ("a,b,same\nown1,own2,perhaps\n", "line 2: same is 'perhaps', not 1 or 0"),
        ("a,b,same\nown1,own2,1\n", "has no pair of different things"),
        ("a,b,same\nown1,own2,1\nown1,gone,0\n", "1 of 3 ids are of no row or item: gone"),
    ],
)
def test_wrong_pairs_are_refused_with_their_line(config: Config, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        duplicates(config, pairs=path)
    with pytest.raises(ConfigurationError, match="can't be read: No such file"):
        duplicates(config, pairs=tmp_path / "none.csv")
