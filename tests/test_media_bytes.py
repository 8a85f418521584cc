"""Images and recordings in columns of Parquet files: bytes, Hugging Face's structs, and what is wrong with them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import configure
from drawings import damaged, drawing, encoded, save_timm_model, write_drawings
from recordings import encoded as encoded_tune
from recordings import save_whisper, tune
from run_results import rows_in_parts

from pipelines.backfill import backfill
from pipelines.init import write_configuration
from pipelines.plan import plan
from pipelines.search import search
from pipelines.steps.search.queries.query import MediaQuery
from pipelines.sync import sync
from pipelines.verify import verify
from schemas.config import Config, Corpus
from schemas.config.loader import load_config
from schemas.locator import Cell
from transforms.read import list_corpus, plan_shards, read_shard
from transforms.support.storage.parquet_bytes import CellReader, holds_all_bytes

pytest.importorskip("timm", reason="the extra image is not installed")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_timm_model(tmp_path_factory.mktemp("timm"))


def media_config(folder: Path, model: Path, corpus: dict[str, Any] | None = None, **changes: Any) -> Config:
    named = {"paths": ["data/*.parquet"], "media": "photo", **(corpus or {})}
    return configure(folder, corpus=named, encoder={"model": str(model)}, **changes)


def write(path: Path, photos: list[Any], kind: pa.DataType | None = None, group: int = 5) -> Path:
    """Records p0, p1, ... with these photos, and a number each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ids, numbers = [f"p{number}" for number in range(len(photos))], list(range(len(photos)))
    table = pa.table({"id": ids, "photo": pa.array(photos, kind), "number": numbers})
    pq.write_table(table, path, row_group_size=group)
    return path


def read_all(folder: Path, **corpus: Any) -> dict[str, Any]:
    """The locator of each item, or the error of its reject."""
    named = Corpus.model_validate({"paths": [f"{folder}/*.parquet"], "media": "photo", **corpus})
    found: dict[str, Any] = {}
    for shard in plan_shards(list_corpus(named), named):
        for batch in read_shard(shard, named, batch_rows=100):
            found |= {item["item_id"]: json.loads(item["@locator"]) for item in batch.items.to_pylist()}
            found |= {reject["id"]: reject["error"] for reject in batch.rejects.to_pylist()}
    return found


HUGGING_FACE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.mark.parametrize("kind", ["binary", "struct"])
def test_bytes_have_the_vectors_of_loose_files(tmp_path: Path, model: Path, kind: str) -> None:
    photos: list[Any] = [encoded(drawing(number)) for number in range(23)]
    if kind == "struct":
        photos = [{"bytes": data, "path": f"{number}.png"} for number, data in enumerate(photos)]
    write(tmp_path / "data" / "a.parquet", photos, HUGGING_FACE if kind == "struct" else None)
    config = media_config(tmp_path, model, {"metadata": {"number": "int"}})
    assert plan(config).items.new == 23
    report = backfill(config)
    assert (report.items.read, report.items.rejected, report.verify.found) == (23, 0, 23)
    rows = rows_in_parts(config)
    assert (rows["p13#0"]["uri"], rows["p13#0"]["number"]) == (f"{tmp_path}/data/a.parquet#row=14", 13)
    loose = tmp_path / "loose"
    write_drawings(loose / "images", 23)
    files = configure(loose, corpus={"paths": ["images/*"], "format": "image"}, encoder={"model": str(model)})
    backfill(files)
    wanted = rows_in_parts(files)
    for number in range(23):
        assert np.dot(rows[f"p{number}#0"]["vector"], wanted[f"drawing-{number:03d}.png#0"]["vector"]) >= 0.9999
    again = sync(config)
    assert (again.chunks.embedded, again.bytes.read) == (0, 0)
    if kind == "struct":
        return
    # Other bytes in one row, and all rows in other places.
    changed = [*photos[20:], *photos[:20]]
    ids = [f"p{number}" for number in (20, 21, 22, *range(20))]
    changed[5] = encoded(drawing(102))
    table = pa.table({"id": ids, "photo": changed, "number": [int(name[1:]) for name in ids]})
    pq.write_table(table, tmp_path / "data" / "a.parquet", row_group_size=4)
    report = sync(config)
    assert (report.items.changed, report.chunks.embedded, report.verify.found) == (1, 1, 23)
    assert verify(config).verify.damaged == 0
    (tmp_path / "query.png").write_bytes(encoded(drawing(102)))
    assert search(config, MediaQuery(str(tmp_path / "query.png")), k=1)[0]["item_id"] == "p2"


def test_faults_of_bytes_cost_one_item_each(tmp_path: Path, model: Path) -> None:
    bad = [data for data, _ in damaged().values()]
    good = [encoded(drawing(number)) for number in range(12)]
    write(tmp_path / "data" / "a.parquet", [*good[:6], None, *bad, encoded_tune(tune(1)), *good[6:]])
    report = backfill(media_config(tmp_path, model, verify={"max_rejected": 0.6}))
    wanted = {"p6": "NoMedia", **{f"p{7 + at}": error for at, (_, error) in enumerate(damaged().values())}}
    assert {one.id: one.error for one in report.rejected} == wanted | {"p12": "NotAnImage"}
    assert report.verify.found == 12


def test_structs_without_bytes_name_a_file(tmp_path: Path, model: Path) -> None:
    write_drawings(tmp_path / "data" / "photos", 2)
    photos = [
        {"bytes": encoded(drawing(5)), "path": "/anywhere/x.png"},
        {"bytes": None, "path": "photos/drawing-000.png"},
        {"bytes": None, "path": "../secret.png"},
        {"bytes": None, "path": "http://169.254.169.254/x.png"},
        {"bytes": None, "path": None},
        {"bytes": b"", "path": "photos/drawing-001.png"},
        None,
    ]
    path = write(tmp_path / "data" / "a.parquet", photos, HUGGING_FACE)
    assert not holds_all_bytes(str(path), "photo")
    assert read_all(tmp_path / "data") == {
        "p0": ["cell", 0, 0, "photo.bytes", 1],
        "p1": ["target", f"{tmp_path}/data/photos/drawing-000.png", f"{tmp_path}/data/"],
        "p2": "UriNotAllowed",
        "p3": "UriNotAllowed",
        "p4": "NoMedia",
        "p5": "EmptyFile",
        "p6": "NoMedia",
    }
    config = media_config(tmp_path, model, verify={"max_rejected": 0.9})
    assert backfill(config).verify.found == 2
    (tmp_path / "data" / "photos" / "drawing-000.png").write_bytes(encoded(drawing(77), "PNG", compress_level=1))
    assert sync(config).items.changed == 1  # although the file of records is the same


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("photo", pa.binary()),
        ("photo", pa.large_binary()),
        ("photo", pa.binary_view()),
        ("of.photo", pa.binary()),
        ("of.photo", HUGGING_FACE),
    ],
)
def test_columns_of_all_kinds_and_in_structs(tmp_path: Path, column: str, kind: pa.DataType) -> None:
    data = [b"\xff1", b"\xff2", b"text"]
    values: list[Any] = [{"bytes": one, "path": None} for one in data] if kind == HUGGING_FACE else data
    photos = pa.array(values, kind)
    of = pa.StructArray.from_arrays([photos, pa.array(["a", "b", "c"])], ["photo", "name"])
    columns = {"of": of} if column.startswith("of") else {"photo": photos, "of": of.flatten()[1]}
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=2)
    found = read_all(tmp_path, media=column, id="of.name" if column.startswith("of") else "of")
    bytes_of = f"{column}.bytes" if kind == HUGGING_FACE else column
    assert found == {
        "a": ["cell", 0, 0, bytes_of, 1],
        "b": ["cell", 0, 1, bytes_of, 2],
        "c": ["cell", 1, 0, bytes_of, 3],
    }
    assert holds_all_bytes(str(path), column)
    with CellReader() as cells:
        for place in (2, 0, 1, 1, 2):  # in any order
            assert cells.read(str(path), Cell(*found["abc"[place]][1:])) == data[place]


def test_a_column_of_numbers_is_no_media(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [1, 2])
    assert read_all(tmp_path) == {None: "WrongSchema"}
    assert read_all(tmp_path, media="none") == {None: "WrongSchema"}


def test_recordings_in_bytes(tmp_path: Path) -> None:
    model = save_whisper(tmp_path / "whisper")
    sounds = [encoded_tune(tune(number, 0.6 + number)) for number in range(3)]
    write(tmp_path / "data" / "a.parquet", [*sounds, encoded(drawing(1))], group=2)
    corpus = {"media_modality": "audio"}
    config = media_config(tmp_path, model, corpus, chunk={"seconds": 1.5}, verify={"max_rejected": 0.5})
    report = backfill(config)
    assert (report.items.read, report.verify.found) == (4, 5)
    assert [(one.id, one.error) for one in report.rejected] == [("p3", "NotSound")]
    assert [rows_in_parts(config)[f"p2#{number}"]["end"] for number in range(2)] == [1.5, 2.6]


def test_large_groups_are_read_some_rows_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"photo": [bytes([number]) * (1 << 20) for number in range(40)]})
    pq.write_table(table, path, use_dictionary=False, write_batch_size=1, data_page_size=1 << 20, compression="none")
    del table
    before = pa.total_allocated_bytes()
    most = 0
    with CellReader() as cells:
        for number in range(40):
            assert cells.read(str(path), Cell(0, number, "photo", number + 1)) == bytes([number]) * (1 << 20)
            most = max(most, pa.total_allocated_bytes() - before)
    assert most < 38 << 20


def test_bytes_in_an_object_store(tmp_path: Path, model: Path, s3_bucket: tuple[Any, str]) -> None:
    client, bucket = s3_bucket
    stream = io.BytesIO()
    photos = [encoded(drawing(number)) for number in range(8)]
    pq.write_table(pa.table({"id": [f"p{number}" for number in range(8)], "photo": photos}), stream, row_group_size=3)
    client.put_object(Bucket=bucket, Key="data/a.parquet", Body=stream.getvalue())
    corpus = {"paths": [f"s3://{bucket}/data/*.parquet"]}
    config = media_config(tmp_path, model, corpus, checkpoint=f"s3://{bucket}/c")
    assert backfill(config).verify.found == 8
    (tmp_path / "query.png").write_bytes(encoded(drawing(5)))
    hit = search(config, MediaQuery(str(tmp_path / "query.png")), k=1)[0]
    assert (hit["item_id"], hit["uri"]) == ("p5", f"s3://{bucket}/data/a.parquet#row=6")
    again = sync(config)
    assert (again.chunks.embedded, again.bytes.read) == (0, 0)


def test_init_of_bytes_makes_ids_and_a_configuration_that_runs(tmp_path: Path, model: Path) -> None:
    photos = [{"bytes": encoded(drawing(number)), "path": "same.png"} for number in range(8)]
    table = pa.table({"image": pa.array([*photos, photos[0]], HUGGING_FACE), "label": [1] * 9})
    (tmp_path / "data").mkdir()
    pq.write_table(table, tmp_path / "data" / "a.parquet")
    found = write_configuration([str(tmp_path / "data")], tmp_path / "vecbeam.yaml", None)
    corpus = {key: value for key, value in found.values["corpus"].items() if key not in ("paths", "metadata")}
    assert corpus == {"id": {"hash": ["image"]}, "media": "image", "on_duplicate": "first"}
    assert found.values["corpus"]["metadata"]["label"] == "int"
    assert "a.parquet#row=1" in str(found)
    config = load_config(tmp_path / "vecbeam.yaml", [f"encoder.model={model}", "verify.max_rejected=0.5"])
    report = backfill(config)
    assert (report.verify.found, [one.error for one in report.rejected]) == (8, ["DuplicateId"])


def test_init_of_recordings_in_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [encoded_tune(tune(1, 0.5)), encoded_tune(tune(2, 0.5))])
    corpus = write_configuration([str(path)], tmp_path / "vecbeam.yaml", None).values["corpus"]
    assert (corpus["id"], corpus["media"], corpus["media_modality"]) == ("id", "photo", "audio")
