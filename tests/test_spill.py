"""Tables that lie in a temporary file: sorted, joined and filtered as tables in memory are."""

from __future__ import annotations

import gc
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from corpora import configure

from pipelines.replay import replay
from pipelines.steps.corpus.source import prepare
from pipelines.sync import sync
from schemas.errors import CorpusError
from transforms import milvus
from transforms.read import list_corpus
from transforms.support.storage import spill

LEFT = pa.schema([("key", pa.large_string()), ("at", pa.int64())])
RIGHT = pa.schema([("key", pa.string()), ("found", pa.list_(pa.int64()))])


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "ROWS", 7)
    monkeypatch.setattr(spill, "RUN_ROWS", 20)
    monkeypatch.setattr(spill, "LEAST_ROWS", 3)


def keyed(keys: Sequence[str]) -> pa.Table:
    return spill.spilled([pa.table([keys, range(len(keys))], schema=LEFT)], LEFT)


@pytest.mark.parametrize("seed", range(40))
def test_rows_are_sorted_and_found_as_in_memory(seed: int) -> None:
    chance = random.Random(seed)
    names = sorted({f"{chance.randrange(300):03d}" + chance.choice("aé\U0001f6a2") for _ in range(150)})
    left = chance.sample(names, chance.randrange(len(names)))
    right = left if seed % 3 == 0 else chance.sample(names, chance.randrange(len(names)))
    table = keyed(left)
    pieces = list(spill.sorted_pieces(spill.pieces(table), ["key"]))
    assert [key for piece in pieces for key in piece.column("key").to_pylist()] == sorted(left)
    other = spill.spilled([pa.table([right, [[at] for at in range(len(right))]], schema=RIGHT)], RIGHT)
    beside = zip(spill.pieces(table), spill.beside(table, other, "key"), strict=True)
    found = {key: [at] for at, key in enumerate(right)}
    for piece, rows in beside:
        assert rows.column("found").to_pylist() == [found.get(key) for key in piece.column("key").to_pylist()]
    mask = np.array([chance.random() < 0.5 for _ in left], bool)
    both = spill.filtered(table, mask), spill.filtered(table, ~mask)
    assert [part.num_rows for part in both] == [mask.sum(), (~mask).sum()]
    assert spill.interleaved(*both, mask).equals(table)


@pytest.mark.parametrize("seed", range(15))
def test_values_that_stand_twice_are_found_wherever_they_stand(seed: int) -> None:
    chance = random.Random(seed)
    keys = [f"{chance.randrange(40)}" for _ in range(chance.randrange(150))]
    first = {key: at for at, key in reversed(list(enumerate(keys)))}
    later = {at for _, rows in spill.repeats(keyed(keys), "key") for at in rows.tolist()}
    assert later == set(range(len(keys))) - set(first.values())


def test_the_file_of_a_table_is_gone_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    gc.collect()
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    table = keyed([str(number) for number in range(1000)])
    assert list(tmp_path.iterdir()) == []
    spill.let_go()
    assert table.column("at").to_pylist() == list(range(1000))
    del table
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) <= open_before


def test_a_temporary_folder_that_takes_nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        (tmp_path / f"{number}.txt").write_text("words")
    config = configure(tmp_path, corpus={"paths": ["*.txt"]})
    assert len(list_corpus(config.corpus)) == 50
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "not-there"))
    with pytest.raises(CorpusError, match=r"(?s)listing of many files.*not-there.*TMPDIR"):
        list_corpus(config.corpus)


def test_a_corpus_of_many_pieces_is_kept_in_sync(tmp_path: Path) -> None:
    texts: dict[str, str] = {}

    def write(name: str, text: str) -> None:
        texts[name] = text
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    for number in range(60):
        write(f"one/{number % 7}/{number:02d}.txt", f"words of one {number}")
        write(f"two/{number % 5 + 7}/{number:02d}.txt", f"words of two {number}")
    # The first and the last glob both match one/3/*.
    config = configure(tmp_path, corpus={"paths": ["one/**/*.txt", "two/**/*.txt", "one/3/*.txt"]})
    assert len(prepare(config).files) == 120
    report = sync(config)
    assert (report.items.new, report.balance()) == (120, [])
    assert sync(config).items.unchanged == 120
    write("two/7/05.txt", "other words")
    write("one/9/new.txt", "new words")
    (tmp_path / "one/1/01.txt").unlink()
    del texts["one/1/01.txt"]
    (tmp_path / "two/11/04.txt").write_bytes(b"\xff\xfe\x00broken")
    report = sync(config)
    counts = report.items
    assert (counts.new, counts.deleted, counts.rejected, report.balance()) == (1, 2, 1, [])
    (tmp_path / "two/11/04.txt").write_text(texts["two/11/04.txt"])
    replay(config)
    assert sync(config).items.rejected == 0
    with milvus.connected(config.collection) as connection:
        connection.client.load_collection(milvus.served(connection, config.name))
        rows = connection.client.query(config.name, filter='id != ""', limit=16384, output_fields=["text"])
    assert sorted(row["text"] for row in rows) == sorted(texts.values())


def test_files_of_one_path_under_two_globs_have_two_names(tmp_path: Path) -> None:
    for number in range(40):
        for folder in ("one", "two"):
            path = tmp_path / folder / f"{number if number % 9 == 0 else f'{number}-{folder}'}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text("words")
    source = prepare(configure(tmp_path, corpus={"paths": ["one/*.txt", "two/*.txt", "o*/*.txt"]}))
    rows = source.files.select(["name", "uri", "path"]).to_pylist()
    assert [row["uri"].decode().removeprefix(f"{tmp_path}/") for row in rows] == [
        f"{folder}/{path.name}" for folder in ("one", "two") for path in sorted((tmp_path / folder).iterdir())
    ]
    for row in rows:
        twice = "-" not in row["path"].decode()
        assert row["name"] == (row["uri"] if twice else row["path"]).decode()
    assert not source.ids_are_paths
