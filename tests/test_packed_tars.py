"""Compressed tars as corpora: whole runs against plain tars, what is cut or a bomb, and bounded memory and disk."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from corpora import configure
from drawings import drawing, encoded, save_timm_model
from recordings import encoded as encoded_tune
from recordings import save_whisper, tune
from tars import sample, tar_of

from pipelines.backfill import backfill
from pipelines.init import write_configuration
from pipelines.plan import plan
from pipelines.sync import sync
from pipelines.web.row_media import media_of, picture_of
from pipelines.web.site import Site
from schemas.config import Config, Corpus
from schemas.config.loader import load_config
from schemas.formats import suffixes
from schemas.locator import Member, address, as_text
from transforms.encoders.media import packed_members
from transforms.encoders.media.content import RefusedError, opened, read
from transforms.read import list_corpus, plan_shards, read_shard
from transforms.support.storage import unpacked_file
from transforms.support.storage.unpacked_file import UnpackedFile, UnpackError

pytest.importorskip("timm", reason="the extra image is not installed")
zstandard = pytest.importorskip("zstandard", reason="the extra documents is not installed")

PACKED: dict[str, Callable[[bytes], bytes]] = {
    ".tar.gz": gzip.compress,
    ".tgz": gzip.compress,
    ".tar.zst": zstandard.compress,
    ".tar.bz2": bz2.compress,
    ".txz": lzma.compress,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_timm_model(tmp_path_factory.mktemp("timm"))


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def parts_of(numbers: range) -> list[tuple[str, bytes]]:
    return [part for number in numbers for part in sample(number, "png")]


def vectors_of(config: Config) -> dict[str, Any]:
    tables = [pq.read_table(part) for part in Path(config.checkpoint).rglob("parts/*.parquet")]
    return {row["item_id"] + f" {row['start']}": row["vector"] for table in tables for row in table.to_pylist()}


def read_all(pattern: str, **corpus: Any) -> tuple[list[str], list[tuple[str | None, str, str]]]:
    """Ids of the items, and id, error and reason of the rejects."""
    checked = Corpus.model_validate({"paths": [pattern], **corpus})
    items, rejects = [], []
    for shard in plan_shards(list_corpus(checked), checked):
        for batch in read_shard(shard, checked, batch_rows=3):
            items += batch.items.column("item_id").to_pylist()
            rejects += [(one["id"], one["error"], one["reason"]) for one in batch.rejects.to_pylist()]
    return items, rejects


def test_compressed_tars_have_the_vectors_of_plain_ones(tmp_path: Path, model: Path) -> None:
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    for number, (ending, pack) in enumerate(PACKED.items()):
        data = tar_of(parts_of(range(number * 5, number * 5 + 5)))
        write(plain / "tars" / f"{number}.tar", data)
        write(packed / "tars" / f"{number}{ending}", pack(data))
    # Batches of two rows: each batch is read where the one before ended.
    options: dict[str, Any] = {"encoder": {"model": str(model)}, "batch_rows": 2}
    known = configure(plain, corpus={"paths": ["tars/*.tar"]}, **options)
    globs = [f"tars/*{ending}" for ending in PACKED]
    columns = {"width": {"type": "int", "from": "json.width"}}
    config = configure(packed, corpus={"paths": globs, "metadata": columns}, **options)
    assert config.corpus.is_of_tars
    assert plan(config).items.new == 25
    backfill(known)
    report = backfill(config)
    assert (report.items.read, report.items.rejected, report.verify.found) == (25, 0, 25)
    assert not packed_members._tars  # the run closed them, and their temporary files are gone
    found, wanted = vectors_of(config), vectors_of(known)
    assert found.keys() == wanted.keys()
    assert all(np.dot(found[key], wanted[key]) >= 0.9999 for key in wanted)
    again = sync(config)
    assert (again.chunks.embedded, again.bytes.read) == (0, 0)
    # A tar that is written again, longer compressed: what is in it is compared by its bytes.
    changed = parts_of(range(4)) + [
        (name.replace("000104", "000004"), data) for name, data in parts_of(range(104, 105))
    ]
    write(packed / "tars" / "0.tar.gz", gzip.compress(tar_of([("README", os.urandom(9000)), *changed])))
    report = sync(config)
    assert (report.items.changed, report.chunks.embedded, report.verify.found) == (1, 1, 25)


def test_recordings_in_a_compressed_tar_have_windows(tmp_path: Path) -> None:
    save_whisper(tmp_path / "whisper")
    data = tar_of((f"{number}.wav", encoded_tune(tune(number, 0.6 + number))) for number in range(3))
    write(tmp_path / "tars" / "0.tgz", gzip.compress(data))
    corpus = {"paths": ["tars/*.tgz"], "media_modality": "audio"}
    config = configure(
        tmp_path, corpus=corpus, encoder={"model": str(tmp_path / "whisper")}, chunk={"seconds": 1.5}, batch_rows=2
    )
    report = backfill(config)
    assert (report.items.read, report.items.rejected, report.verify.found) == (3, 0, 5)


def test_what_is_damaged_costs_the_samples_behind_it(tmp_path: Path) -> None:
    noise = [(f"{number}.png", random.Random(number).randbytes(40_000)) for number in range(40)]
    tar = tar_of(noise)
    whole = [str(number) for number in range(40)]
    for ending, pack in PACKED.items():
        path, data = write(tmp_path / f"a{ending}", pack(tar)), pack(tar)
        assert read_all(str(path)) == (whole, [])
        path.write_bytes(data[: len(data) // 2])
        items, [(_, error, reason)] = read_all(str(path))
        assert items == whole[: len(items)]
        assert ending == ".tar.bz2" or len(items) >= 15  # bzip2 gives blocks of 900 kB
        assert error == "DamagedFile"
        assert "corrupt or ends early" in reason or "cut" in reason
        path.write_bytes(b"<html>" * 100)
        assert [one[1] for one in read_all(str(path))[1]] == ["DamagedFile"]
        path.write_bytes(pack(b"no tar" * 500))
        assert [one[1] for one in read_all(str(path))[1]] == ["DamagedFile"]
        path.unlink()
    # Of a whole gzip file, a tar that is cut.
    path = write(tmp_path / "cut.tar.gz", gzip.compress(tar[:100_000]))
    assert [one[:2] for one in read_all(str(path))[1]] == [("2", "DamagedFile")]


def test_a_decompression_bomb_is_one_reject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacked_file, "BOMB_BYTES", 8 << 20)
    picture = encoded(drawing(1))
    bomb = tar_of([("a.png", picture), ("b.png", bytes(64 << 20)), ("c.png", picture)])
    for ending in (".tar.gz", ".tar.zst", ".txz"):
        path = write(tmp_path / f"bomb{ending}", PACKED[ending](bomb))
        items, [(item_id, error, reason)] = read_all(str(path))
        assert (items, item_id, error) == (["a"], "b", "TooLarge")
        assert "decompression bomb" in reason


def test_a_dictionary_of_xz_that_needs_gigabytes_is_refused(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 256 << 20}]
    tar = tar_of(parts_of(range(2)))
    path = write(tmp_path / "a.tar.xz", lzma.compress(tar, preset=9))
    assert read_all(str(path)) == (["000000", "000001"], [])
    path.write_bytes(lzma.compress(tar, filters=filters))
    [(_, error, reason)] = read_all(str(path))[1]
    assert error == "TooLarge"
    assert "more than the 130 MiB of memory" in reason
    records = write(tmp_path / "records.jsonl.xz", lzma.compress(b'{"id": "a", "text": "b"}\n', filters=filters))
    assert [one[1] for one in read_all(str(records))[1]] == ["TooLarge"]


def test_content_of_any_place_with_a_bounded_temporary_file() -> None:
    data = random.Random(5).randbytes(1 << 20)
    packs: dict[str, bytes] = {
        "gzip": gzip.compress(data[: 1 << 19]) + gzip.compress(data[1 << 19 :]),
        "bzip2": bz2.compress(data),
        "xz": lzma.compress(data[: 1 << 19]) + bytes(8) + lzma.compress(data[1 << 19 :]) + bytes(4),
        "zstd": zstandard.compress(data[: 1 << 19]) + zstandard.compress(data[1 << 19 :]),
    }
    turns = random.Random(6)
    for compression, packed in packs.items():
        with UnpackedFile(io.BytesIO(packed), compression, kept_bytes=300_001) as content:
            for _ in range(12):
                place, length = turns.randrange(len(data)), turns.randrange(500_000)
                assert content.read_at(place, length) == data[place : place + length]
            assert (content.reaches(len(data)), content.reaches(len(data) + 1)) == (True, False)
            assert os.fstat(content._kept.fileno()).st_size <= 300_001


def test_a_failure_of_the_storage_is_not_damage() -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 100_000:
                raise OSError("connection reset")
            return super().read(size)

    packs = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zstd": zstandard.compress}
    for compression, pack in packs.items():
        content = UnpackedFile(Failing(pack(random.Random(1).randbytes(2 << 20))), compression)
        with pytest.raises(OSError, match="connection reset"):
            content.read_at(1 << 20, 10)
    with pytest.raises(UnpackError, match="corrupt"):
        UnpackedFile(io.BytesIO(b"x" * 500), "gzip").read_at(0, 10)


def test_members_are_read_in_any_order_and_long_films_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = [random.Random(number).randbytes(20_000) for number in range(6)]
    places = {}
    for name in "abc":  # one tar more than are kept open
        tar = tar_of((f"{number}.mp4", one) for number, one in enumerate(data))
        write(tmp_path / f"{name}.tar.gz", gzip.compress(tar))
        places = {number: tar.index(one) for number, one in enumerate(data)}
    turns = [(name, number) for name in "abc" for number in range(6)]
    random.Random(1).shuffle(turns)
    for name, number in turns:
        where = address(f"{tmp_path}/{name}.tar.gz", as_text(Member(places[number], 20_000, "")))
        assert read(where) == data[number]
        with opened(where, None) as stream:
            stream.seek(-100, io.SEEK_END)
            assert stream.read() == data[number][-100:]
    assert len(packed_members._tars) == packed_members.MOST_OPEN
    monkeypatch.setattr(packed_members, "KEPT_BYTES", 10_000)
    where = address(f"{tmp_path}/a.tar.gz", as_text(Member(places[0], 20_000, "0.mp4")))
    with pytest.raises(RefusedError, match="decompress the tar"), opened(where, None):
        pass
    packed_members.release_tars()
    # Between reading and embedding the tar is damaged: the item is a reject, and not the end of the run.
    write(tmp_path / "a.tar.gz", b"x" * 50)
    with pytest.raises(RefusedError, match="corrupt"):
        read(where)
    packed_members.release_tars()


def test_init_and_the_page_know_compressed_tars(tmp_path: Path, model: Path) -> None:
    for number, ending in enumerate((".tgz", ".TGZ", ".tar.gz")):
        tar = tar_of(parts_of(range(number * 3, number * 3 + 3)))
        write(tmp_path / "tars" / f"{number}{ending}", gzip.compress(tar))
    assert suffixes("a/0.TGZ") == (".tar", ".gz")
    found = write_configuration([str(tmp_path / "tars")], tmp_path / "vecbeam.yaml", None)
    paths = [Path(path).name for path in found.values["corpus"]["paths"]]
    assert paths == ["*.TGZ", "*.tar.gz", "*.tgz"]
    assert found.values["corpus"]["id"] == "__key__"
    assert "json_caption" in found.values["corpus"]["metadata"]
    config = load_config(tmp_path / "vecbeam.yaml", [f"encoder.model={model}"])
    assert backfill(config).verify.found == 9
    site = Site(config)
    try:
        assert media_of(site, "000004#0").data == encoded(drawing(4), "PNG")
        assert picture_of(site, "000007#0").startswith(b"\xff\xd8")
    finally:
        site.close()
        packed_members.release_tars()
