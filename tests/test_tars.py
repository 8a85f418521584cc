"""Tars of WebDataset and img2dataset: whole runs, vectors against loose files, and every fault of a tar."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from corpora import configure
from drawings import damaged, drawing, encoded, save_timm_model, write_drawings
from open_clip_model import save_open_clip
from recordings import encoded as encoded_tune
from recordings import save_whisper, tune
from run_results import rows_in_parts
from tars import sample, special, tar_of, write_tar

from pipelines.backfill import backfill
from pipelines.init import write_configuration
from pipelines.plan import plan
from pipelines.search import search
from pipelines.steps.search.queries.query import MediaQuery
from pipelines.sync import sync
from pipelines.verify import verify
from schemas.config import Config, Corpus
from schemas.config.loader import load_config
from schemas.errors import ConfigurationError, CorpusError
from schemas.locator import Member, address, as_text, parsed, shown
from transforms.encoders.media.content import RefusedError, contents_of, read
from transforms.read import list_corpus, plan_shards, read_shard
from transforms.support.storage import filesystem

pytest.importorskip("timm", reason="the extra image is not installed")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_timm_model(tmp_path_factory.mktemp("timm"))


def tar_config(folder: Path, model: Path, **changes: Any) -> Config:
    values = {"corpus": {"paths": ["tars/*.tar"]}, "encoder": {"model": str(model)}}
    return configure(folder, **(values | changes))


def read_all(folder: Path, **corpus: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Items and rejects of the tars of a folder."""
    checked = Corpus.model_validate({"paths": [f"{folder}/*.tar"], **corpus})
    items, rejects = [], []
    for shard in plan_shards(list_corpus(checked), checked):
        for batch in read_shard(shard, checked, batch_rows=3):
            items += batch.items.to_pylist()
            rejects += batch.rejects.to_pylist()
    return items, rejects


def read_one(folder: Path, data: bytes, **corpus: Any) -> tuple[list[str], list[tuple[str | None, str]]]:
    """Ids of the items, and ids and errors of the rejects, of one tar."""
    (folder / "0.tar").write_bytes(data)
    items, rejects = read_all(folder, **corpus)
    return [item["item_id"] for item in items], [(reject["id"], reject["error"]) for reject in rejects]


def test_images_in_tars_have_the_vectors_of_loose_files(tmp_path: Path, model: Path) -> None:
    for shard in range(3):
        write_tar(tmp_path / "tars" / f"{shard:05d}.tar", range(shard * 10, shard * 10 + 10), "png")
    caption = {
        "caption": {"type": "string", "from": "json.caption"},
        "txt": "string",
        "width": {"type": "int", "from": "json.width"},
    }
    config = tar_config(tmp_path, model, corpus={"paths": ["tars/*.tar"], "metadata": caption})
    assert plan(config).items.new == 30
    report = backfill(config)
    assert (report.items.read, report.items.rejected, report.verify.found) == (30, 0, 30)
    rows = rows_in_parts(config, "item_id")
    assert rows["000012"]["uri"] == f"{tmp_path}/tars/00001.tar#000012.png"
    assert {key: rows["000012"][key] for key in (*caption, "id")} == {
        "caption": "drawing 12",
        "txt": "drawing 12",
        "width": 96,
        "id": "000012#0",
    }
    loose = tmp_path / "loose"
    write_drawings(loose / "images", 30)
    files = configure(loose, corpus={"paths": ["images/*"], "format": "image"}, encoder={"model": str(model)})
    backfill(files)
    wanted = rows_in_parts(files, "item_id")
    for number in range(30):
        assert np.dot(rows[f"{number:06d}"]["vector"], wanted[f"drawing-{number:03d}.png"]["vector"]) >= 0.9999

    again = sync(config)
    assert (again.chunks.embedded, again.bytes.read) == (0, 0)
    # A tar that is written again: only the sample whose bytes are others is embedded, though all have moved.
    parts = [part for number in range(9, 20) for part in sample(number + 100 * (number == 13), "png")]
    named = [(name.replace("000113", "000013"), data) for name, data in parts if not name.startswith("000009")]
    (tmp_path / "tars" / "00001.tar").write_bytes(tar_of([("README", b"x" * 5000), *named]))
    changed = sync(config)
    assert (changed.items.changed, changed.chunks.embedded, changed.verify.found) == (1, 1, 30)
    assert verify(config).verify.damaged == 0
    (tmp_path / "query.png").write_bytes(encoded(drawing(113)))
    assert search(config, MediaQuery(str(tmp_path / "query.png")), k=1)[0]["item_id"] == "000013"


def test_faults_of_a_member_cost_one_item_each(tmp_path: Path, model: Path) -> None:
    parts = [part for number in range(12) for part in sample(number)]
    parts += [(f"bad{number}.jpg", data) for number, (data, _) in enumerate(damaged().values())]
    (tmp_path / "tars").mkdir()
    (tmp_path / "tars" / "0.tar").write_bytes(tar_of(parts))
    report = backfill(tar_config(tmp_path, model, verify={"max_rejected": 0.5}))
    wanted = {f"bad{number}": error for number, (_, error) in enumerate(damaged().values())}
    assert {reject.id: reject.error for reject in report.rejected} == wanted
    assert (report.items.read, report.items.rejected, report.verify.found) == (17, 5, 12)


def test_recordings_in_tars_have_windows(tmp_path: Path) -> None:
    model = save_whisper(tmp_path / "whisper")
    (tmp_path / "tars").mkdir()
    sounds = {f"{number}.wav": encoded_tune(tune(number, 0.6 + number)) for number in range(3)}
    (tmp_path / "tars" / "0.tar").write_bytes(tar_of(sounds.items()))
    corpus = {"paths": ["tars/*.tar"], "media_modality": "audio"}
    config = configure(tmp_path, corpus=corpus, encoder={"model": str(model)}, chunk={"seconds": 1.5})
    report = backfill(config)
    assert (report.items.read, report.verify.found) == (3, 5)
    loose = tmp_path / "loose" / "sounds"
    loose.mkdir(parents=True)
    for name, data in sounds.items():
        (loose / name).write_bytes(data)
    files = configure(
        tmp_path / "loose",
        corpus={"paths": ["sounds/*"], "format": "audio"},
        encoder={"model": str(model)},
        chunk={"seconds": 1.5},
    )
    backfill(files)

    def by_window(config: Config) -> dict[tuple[str, float, float], Any]:
        tables = [pq.read_table(part) for part in Path(config.checkpoint).rglob("parts/*.parquet")]
        rows = [row for table in tables for row in table.to_pylist()]
        return {(row["item_id"].partition(".")[0], row["start"], row["end"]): row["vector"] for row in rows}

    found, wanted = by_window(config), by_window(files)
    assert found.keys() == wanted.keys()
    assert all(np.dot(found[key], wanted[key]) >= 0.9999 for key in wanted)


def test_tars_in_an_object_store_are_read_by_range(tmp_path: Path, model: Path, s3_bucket: tuple[Any, str]) -> None:
    client, bucket = s3_bucket
    big = [("zz.json", b'{"pad": "' + b"x" * 900_000 + b'"}')]
    data = tar_of([*(part for number in range(8) for part in sample(number, "png")), *big])
    client.put_object(Bucket=bucket, Key="tars/0.tar", Body=data)
    corpus = {"paths": [f"s3://{bucket}/tars/*.tar"]}
    config = tar_config(tmp_path, model, corpus=corpus, checkpoint=f"s3://{bucket}/c", verify={"max_rejected": 0.2})
    report = backfill(config)
    assert (report.verify.found, [(one.id, one.error) for one in report.rejected]) == (8, [("zz", "NoMedia")])
    (tmp_path / "query.png").write_bytes(encoded(drawing(5)))
    hit = search(config, MediaQuery(str(tmp_path / "query.png")), k=1)[0]
    assert (hit["item_id"], hit["uri"]) == ("000005", f"s3://{bucket}/tars/0.tar#000005.png")
    assert sync(config).chunks.embedded == 0


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_all_lengths_and_folders_are_keys(tmp_path: Path, format: int) -> None:
    deep = "/".join(["part" * 10] * 2)
    parts = [
        ("./a.jpg", b"1"),
        (f"{deep}/a.jpg", b"2"),
        ("A.B/c.d.JPG", b"3"),
        ("A.B/c.txt", b"a caption\n"),
        ("naïve.png", b"4"),
        ("no-suffix", b"5"),
        (".hidden.jpg", b"6"),
        ("._a.jpg", b"7"),
    ]
    folders = [special("A.B", tarfile.DIRTYPE)]
    found, rejects = read_one(tmp_path, tar_of(parts, format, folders), metadata={"txt": "string"})
    assert (found, rejects) == (["a", f"{deep}/a", "A.B/c", "naïve"], [])
    items, _ = read_all(tmp_path, metadata={"txt": "string"})
    assert [item["txt"] for item in items] == [None, None, "a caption", None]


def test_ids_may_be_fields_and_hashes(tmp_path: Path) -> None:
    data = tar_of([part for number in range(3) for part in sample(number)])
    assert read_one(tmp_path, data, id="json.key")[0] == ["000000", "000001", "000002"]
    (tmp_path / "1.tar").write_bytes(data)
    ids = {item["item_id"] for item in read_all(tmp_path, id={"hash": ["__tar__", "__key__"]})[0]}
    assert len(ids) == 6
    assert read_one(tmp_path, data, id="json.none")[1][0] == (None, "MissingField")


def test_one_key_in_two_tars_is_refused_naming_both(tmp_path: Path, model: Path) -> None:
    for name in "01":
        write_tar(tmp_path / "tars" / f"{name}.tar", range(2))
    with pytest.raises(CorpusError, match=r"000000.* at .*0\.tar sample 000000 and .*1\.tar"):
        backfill(tar_config(tmp_path, model))


def test_members_that_are_not_a_sample_are_rejects_by_name(tmp_path: Path) -> None:
    picture = encoded(drawing(1))
    parts = [
        ("ok.png", picture),
        ("two.png", picture),
        ("two.jpg", picture),
        ("none.txt", b"only a caption"),
        ("empty.png", b""),
        ("bad.png", picture),
        ("bad.json", b"{not json"),
        ("list.png", picture),
        ("list.json", b"[1]"),
        ("latin.png", picture),
        ("latin.txt", "é".encode("latin-1")),
        ("../out.png", picture),
        ("a/../../out.png", picture),
        ("/etc/passwd.png", picture),
        ("C:\\x.png", picture),
        ("ok.png", picture),
        ("last.png", picture),
    ]
    before = [
        special("link.png", tarfile.SYMTYPE, "/etc/passwd"),
        special("hard.png", tarfile.LNKTYPE, "ok.png"),
        special("device.png", tarfile.CHRTYPE),
        special("pipe.png", tarfile.FIFOTYPE),
    ]
    found, rejects = read_one(tmp_path, tar_of(parts, before=before))
    assert found == ["ok", "last"]
    assert rejects == [
        ("link", "LinkInTar"),
        ("hard", "LinkInTar"),
        ("device", "SpecialInTar"),
        ("pipe", "SpecialInTar"),
        ("two", "SeveralMedia"),
        ("none", "NoMedia"),
        ("empty", "EmptyFile"),
        ("bad", "InvalidJson"),
        ("list", "WrongType"),
        ("latin", "InvalidUtf8"),
        ("../out", "PathLeavesTar"),
        ("a/../../out", "PathLeavesTar"),
        ("/etc/passwd", "PathLeavesTar"),
        ("C:\\x", "PathLeavesTar"),
        ("ok", "DuplicateKey"),
    ]
    _, named = read_all(tmp_path)
    reasons = {reject["id"]: (reject["place"], reject["reason"]) for reject in named}
    assert reasons["link"] == (
        "sample link",
        "The member 'link.png' is a link to '/etc/passwd'; links are not followed",
    )
    assert "corpus.media" in reasons["two"][1]
    assert read_one(tmp_path, tar_of(parts[:3]), media="jpg") == (["two"], [("ok", "NoMedia")])


def test_a_cut_tar_costs_the_sample_in_which_it_ends(tmp_path: Path) -> None:
    parts = [part for number in range(4) for part in sample(number)]
    data = tar_of(parts)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        infos = tar.getmembers()
    third = infos[9]  # the picture of sample 3
    three = ["000000", "000001", "000002"]
    in_picture = data[: third.offset_data + 100]
    in_json = data[: infos[11].offset_data + 5]
    for cut in (in_picture, in_json, data[: infos[11].offset + 100]):
        assert read_one(tmp_path, cut) == (three, [("000003", "DamagedFile")])
    # Between two samples: those before are whole.
    for cut in (data[: third.offset + 200], data[: third.offset]):
        assert read_one(tmp_path, cut) == (three, [(None, "DamagedFile")])
    broken = bytearray(data)
    broken[infos[3].offset + 10] ^= 0xFF
    assert read_one(tmp_path, bytes(broken)) == (["000000"], [(None, "DamagedFile")])


def test_what_is_not_a_tar_is_one_reject(tmp_path: Path) -> None:
    data = tar_of(sample(1))
    for content in (b"", b"<html>" * 200, gzip.compress(data), os.urandom(2000)):
        assert read_one(tmp_path, content) == ([], [(None, "DamagedFile")])
    assert read_one(tmp_path, tar_of([])) == ([], [])
    # Tars that follow one another, as `cat` makes them, and zeros at the end.
    both = data + tar_of(sample(2)) + b"\0" * 100_000
    assert read_one(tmp_path, both) == (["000001", "000002"], [])
    # Headers that would fill the memory, go backwards or never end.
    huge = special("x", tarfile.XHDTYPE)
    huge.size = 8 << 30
    header = huge.create_gnu_header(huge.get_info(), "utf-8", "strict")
    assert read_one(tmp_path, header + data)[1] == [(None, "DamagedFile")]
    back = bytearray(special("a.png", tarfile.REGTYPE).tobuf(tarfile.GNU_FORMAT))
    back[124:136] = b"\xff" * 8 + struct.pack(">i", -1024)
    back[148:156] = b" " * 8
    back[148:156] = b"%06o\0 " % sum(back)
    assert read_one(tmp_path, bytes(back) + data)[1] == [(None, "DamagedFile")]


def test_long_members_are_passed_over_and_have_the_version_of_the_tar(tmp_path: Path) -> None:
    long = b"\xff\xd8" + b"\0" * (5 << 20)
    (tmp_path / "0.tar").write_bytes(tar_of([("a.jpg", long), ("b.jpg", b"1"), ("c.jpg", b"1")]))
    items, _ = read_all(tmp_path)
    assert json.loads(items[0]["@content"])[0] == "0.tar"
    assert items[1]["@content"] == items[2]["@content"] != items[0]["@content"]


def test_keys_of_tars_are_refused_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"media_modality is for tars"):
        configure(tmp_path, corpus={"paths": ["a/*.jpg"], "media_modality": "audio"})
    with pytest.raises(ConfigurationError, match=r"encoder.*|media"):
        configure(tmp_path, corpus={"paths": ["a/*.txt"], "media": "jpg"})


def test_locators_are_text_and_back() -> None:
    member = Member(512, 7, 'a "b"\n/0.jpg')
    text = address("s3://b/0.tar", as_text(member))
    assert parsed(text) == ("s3://b/0.tar", member)
    assert parsed("/a/b.jpg") == ("/a/b.jpg", None)
    assert shown(text) == 's3://b/0.tar#a "b"\n/0.jpg'


def test_init_of_a_folder_of_tars_writes_a_configuration_that_runs(tmp_path: Path, model: Path) -> None:
    for shard in range(2):
        write_tar(tmp_path / "tars" / f"{shard}.tar", range(shard * 6, shard * 6 + 6))
    (tmp_path / "tars" / "stats.json").write_text("{}")
    found = write_configuration([str(tmp_path / "tars")], tmp_path / "vecbeam.yaml", None)
    assert found.values["corpus"].pop("paths")[0].endswith("/tars/*.tar")
    assert found.values["corpus"] == {
        "format": "webdataset",
        "id": "__key__",
        "metadata": {
            "txt": "string",
            "json_caption": {"from": "json.caption", "type": "string"},
            "json_key": {"from": "json.key", "type": "string"},
            "json_width": {"from": "json.width", "type": "int"},
        },
    }
    assert found.values["encoder"]["model"] == "conse"
    assert "file of 000000: " in str(found)
    assert "0.tar#000000.jpg" in str(found)
    config = load_config(tmp_path / "vecbeam.yaml", [f"encoder.model={model}"])
    assert backfill(config).verify.found == 12
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    sound = encoded_tune(tune(1, 0.5))
    (sounds / "0.tar").write_bytes(tar_of([("a.wav", sound), ("a.near.wav", sound), ("a.cls", b"3")]))
    found = write_configuration([str(sounds)], tmp_path / "sounds.yaml", None)
    corpus = found.values["corpus"]
    assert (corpus["media_modality"], corpus["media"], corpus["metadata"]) == ("audio", "wav", {"cls": "string"})
    assert found.values["encoder"]["model"] == "whisper-base"


def test_tars_pictures_and_texts_are_one_corpus(tmp_path: Path) -> None:
    pytest.importorskip("open_clip", reason="the extra image is not installed")
    model = save_open_clip(tmp_path / "open_clip")
    write_tar(tmp_path / "tars" / "0.tar", range(4))
    write_drawings(tmp_path / "pictures", 2, first=20)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("a red circle")
    corpus = {"paths": ["tars/*.tar", "pictures/*.png", "texts/*.txt"]}
    report = backfill(configure(tmp_path, corpus=corpus, encoder={"model": str(model)}))
    assert (report.items.read, report.items.rejected, report.verify.found) == (7, 0, 7)


def test_small_members_in_an_object_store_are_read_together(
    s3_bucket: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, bucket = s3_bucket
    large = os.urandom(2 << 20)
    data = [os.urandom(1000 * number) for number in range(1, 30)]
    tar = tar_of([*((f"{at}.jpg", one) for at, one in enumerate(data)), ("l.jpg", large), ("z.jpg", b"last")])
    client.put_object(Bucket=bucket, Key="0.tar", Body=tar)
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        infos = opened.getmembers()
    uri = f"s3://{bucket}/0.tar"
    every = [address(uri, as_text(Member(info.offset_data, info.size, info.name))) for info in infos]
    wanted = [*data, large, b"last"]
    requests: list[int] = []
    real = filesystem.read_range

    def counted(uri: str, start: int, length: int) -> bytes:
        requests.append(length)
        return real(uri, start, length)

    monkeypatch.setattr(filesystem, "read_range", counted)
    found = [read(one) if known is None else known for one, known in contents_of(every)]
    assert found == wanted
    assert len(requests) == 3  # the small ones, the large one, and the last
    requests.clear()
    chosen = [29, 5, 0, 28, 30, 28]
    pairs = contents_of([every[at] for at in chosen])
    assert [read(one) if known is None else known for one, known in pairs] == [wanted[at] for at in chosen]
    gone = address(f"s3://{bucket}/none.tar", as_text(Member(0, 5, "a.jpg")))
    assert list(contents_of([gone])) == [(gone, None)]
    with pytest.raises(RefusedError, match="can't be opened"):
        read(gone)
