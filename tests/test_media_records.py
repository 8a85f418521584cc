"""Records that name images and recordings: whole runs, what they may name, and changes of the files that they name."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import configure, write_jsonl
from drawings import drawing, encoded, save_timm_model, write_drawings
from media_server import MediaServer, serving
from recordings import encoded as encoded_tune
from recordings import save_whisper, tune
from run_results import rows_in_parts

from pipelines.backfill import backfill
from pipelines.init import write_configuration
from pipelines.plan import plan
from pipelines.replay import replay
from pipelines.search import search
from pipelines.steps.search.queries.query import MediaQuery
from pipelines.sync import sync
from pipelines.verify import verify
from schemas.allowed_uris import AllowedUris, NotAllowedError, normal, normal_prefix
from schemas.config import Config, Corpus
from schemas.config.loader import load_config
from schemas.errors import ConfigurationError, StorageError
from schemas.locator import Target
from transforms.embed.public.items_from_records import batches_of
from transforms.read import list_corpus, plan_shards, read_shard
from transforms.support.storage import filesystem, web_file
from transforms.support.storage.storage_errors import storage_error
from transforms.support.storage.target_file import Named, TargetError, open_target, versions

pytest.importorskip("timm", reason="the extra image is not installed")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_timm_model(tmp_path_factory.mktemp("timm"))


@pytest.fixture
def server() -> Iterator[MediaServer]:
    with serving() as found:
        yield found


def media_config(folder: Path, model: Path, corpus: dict[str, Any] | None = None, **changes: Any) -> Config:
    named = {"paths": ["records/*"], "media": "photo", **(corpus or {})}
    return configure(folder, corpus=named, encoder={"model": str(model)}, **changes)


def read_all(folder: Path, records: list[dict[str, Any]], **corpus: Any) -> dict[str, str]:
    """The URI of each item, or the error of its reject, of a JSONL file in a folder."""
    write_jsonl(folder / "a.jsonl", records)
    named = Corpus.model_validate({"paths": [f"{folder}/a.jsonl"], "media": "photo", **corpus})
    named = named.model_copy(update={"allow_uris": [normal_prefix(prefix) for prefix in named.allow_uris]})
    found: dict[str, str] = {}
    for shard in plan_shards(list_corpus(named), named):
        for batch in read_shard(shard, named, batch_rows=100):
            found |= {item["item_id"]: json.loads(item["@locator"])[1] for item in batch.items.to_pylist()}
            found |= {reject["id"]: reject["error"] for reject in batch.rejects.to_pylist()}
    return found


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
def test_records_that_name_images_have_the_vectors_of_loose_files(tmp_path: Path, model: Path, format: str) -> None:
    photos = write_drawings(tmp_path / "records" / "photos", 20)
    records = [
        {"id": f"p{number}", "photo": f"photos/{path.name}", "caption": f"drawing {number}", "year": 2000 + number}
        for number, path in enumerate(photos)
    ]
    file = tmp_path / "records" / f"a.{format}"
    if format == "jsonl":
        write_jsonl(file, records)
    elif format == "csv":
        with open(file, "w", newline="") as stream:
            writer = csv.DictWriter(stream, list(records[0]))
            writer.writeheader()
            writer.writerows(records)
    else:
        pq.write_table(pa.Table.from_pylist(records), file, row_group_size=7)
    metadata = {"caption": "string", "year": "int"}
    config = media_config(tmp_path, model, {"paths": [f"records/*.{format}"], "metadata": metadata})
    assert plan(config).items.new == 20
    report = backfill(config)
    assert (report.items.read, report.items.rejected, report.verify.found) == (20, 0, 20)
    rows = rows_in_parts(config, "item_id")
    assert {key: rows["p3"][key] for key in ("uri", "caption", "year")} == {
        "uri": str(photos[3]),
        "caption": "drawing 3",
        "year": 2003,
    }
    if format != "jsonl":
        return
    loose = configure(
        tmp_path / "records", corpus={"paths": ["photos/*"], "format": "image"}, encoder={"model": str(model)}
    )
    backfill(loose)
    wanted = rows_in_parts(loose, "item_id")
    for number, path in enumerate(photos):
        assert np.dot(rows[f"p{number}"]["vector"], wanted[path.name]["vector"]) >= 0.9999


def test_a_changed_file_is_a_changed_item_and_an_unchanged_one_is_not_read(tmp_path: Path, model: Path) -> None:
    photos = write_drawings(tmp_path / "records" / "photos", 12)
    records = [{"id": path.stem, "photo": f"photos/{path.name}"} for path in photos]
    write_jsonl(tmp_path / "records" / "a.jsonl", records)
    config = media_config(tmp_path, model, {"paths": ["records/*.jsonl"]}, verify={"max_rejected": 0.2})
    first = backfill(config)
    assert first.verify.found == 12
    snapshots = sorted(Path(config.checkpoint).rglob("snapshots/*"))
    again = sync(config)
    assert (again.chunks.embedded, again.chunks.reused, again.items.unchanged) == (0, 12, 12)
    assert sorted(Path(config.checkpoint).rglob("snapshots/*")) == snapshots
    # The record is the same, the file that it names is not.
    photos[3].write_bytes(encoded(drawing(103)))
    os.utime(photos[3], (1e9, 1e9))
    assert (plan(config).items.changed, plan(config).items.unchanged) == (1, 11)
    changed = sync(config)
    assert (changed.items.changed, changed.chunks.embedded, changed.verify.found) == (1, 1, 12)
    (tmp_path / "query.png").write_bytes(encoded(drawing(103)))
    assert search(config, MediaQuery(str(tmp_path / "query.png")), k=1)[0]["item_id"] == "drawing-003"
    assert verify(config).verify.damaged == 0
    # A file that is gone is one reject, and comes back by `replay`.
    data = photos[4].read_bytes()
    photos[4].unlink()
    gone = sync(config)
    assert [(one.id, one.error) for one in gone.rejected] == [("drawing-004", "UnreadableMedia")]
    assert gone.verify.found == 11
    photos[4].write_bytes(data)
    assert replay(config).verify.found == 12


def test_records_name_only_what_is_below_their_folder(tmp_path: Path) -> None:
    folder = tmp_path / "records"
    outside = write_drawings(tmp_path / "private", 1)[0]
    write_drawings(folder / "deep", 1)
    (folder / "empty.png").write_bytes(b"")
    (folder / "link.png").symlink_to(outside)
    (folder / "inside.png").symlink_to(folder / "deep" / "drawing-000.png")
    (folder / "away").symlink_to(tmp_path / "private")
    os.mkfifo(folder / "pipe.png")
    values: dict[str, tuple[Any, str]] = {
        "plain": ("deep/drawing-000.png", str(folder / "deep" / "drawing-000.png")),
        "dots": ("./deep/../deep/drawing-000.png", str(folder / "deep" / "drawing-000.png")),
        "inside": ("inside.png", str(folder / "inside.png")),
        "null": (None, "NoMedia"),
        "empty": ("", "NoMedia"),
        "space": ("  ", "NoMedia"),
        "number": (7, "WrongType"),
        "list": (["deep/drawing-000.png"], "WrongType"),
        "missing": ("deep/none.png", "UnreadableMedia"),
        "folder": ("deep", "UnreadableMedia"),
        "zero": ("empty.png", "EmptyFile"),
        "fifo": ("pipe.png", "UnreadableMedia"),
        "up": ("../private/drawing-000.png", "UriNotAllowed"),
        "deep up": ("deep/../../private/drawing-000.png", "UriNotAllowed"),
        "absolute": (str(outside), "UriNotAllowed"),
        "file": (f"file://{outside}", "UriNotAllowed"),
        "link": ("link.png", "UriNotAllowed"),
        "folder link": ("away/drawing-000.png", "UriNotAllowed"),
        "nul": ("deep/a\0.png", "UriNotAllowed"),
        "line": ("deep/a\n.png", "UriNotAllowed"),
        "self": (".", "UriNotAllowed"),
        "metadata": ("http://169.254.169.254/latest/meta-data/", "UriNotAllowed"),
        "loopback": ("http://127.0.0.1/a.png", "UriNotAllowed"),
        "web": ("https://example.com/a.png", "UriNotAllowed"),
        "store": ("s3://bucket/a.png", "UriNotAllowed"),
        "data": ("data:image/png;base64,AAAA", "UriNotAllowed"),
        "code": ("javascript:alert(1)", "UriNotAllowed"),
        "gopher": ("gopher://127.0.0.1/a", "UriNotAllowed"),
        "host": ("//127.0.0.1/a.png", "UriNotAllowed"),
    }
    records = [{"id": name, "photo": value} for name, (value, _) in values.items()]
    found = read_all(folder, [*records, {"id": "no field"}])
    assert found == {name: wanted for name, (_, wanted) in values.items()} | {"no field": "MissingField"}
    # A folder that the configuration lists may be named in each way.
    listed = read_all(folder, records, allow_uris=[str(tmp_path / "private")])
    allowed = ("up", "deep up", "absolute", "file")
    assert {name: listed[name] for name in allowed} == dict.fromkeys(allowed, str(outside))
    assert listed["link"] == listed["folder link"] == "UriNotAllowed"


def test_prefixes_are_folders_buckets_and_hosts() -> None:
    allowed = AllowedUris([normal_prefix(one) for one in ("gs://b/photos", "HTTPS://Host.com/x/", "/data/p")], "/r")
    for uri, wanted in {
        "gs://b/photos/a.jpg": "gs://b/photos/a.jpg",
        "https://HOST.com:443/x/a%20b.jpg?w=1#part": "https://host.com/x/a%20b.jpg?w=1",
        "file:///data/p/a%20b.jpg": "/data/p/a b.jpg",
        "FILE://localhost/data/p/a.jpg": "/data/p/a.jpg",
        "../data/p/a.jpg": "/data/p/a.jpg",
        "a.jpg": "/r/a.jpg",
    }.items():
        assert allowed.target(uri).uri == wanted
    for uri in (
        "gs://b/photos-private/a.jpg",
        "gs://b/photos/../secret.jpg",
        "gs://b/photos/",
        "https://host.com/xy/a.jpg",
        "https://host.com/x/../a.jpg",
        "https://host.com/x/%2e%2e/a.jpg",
        "https://host.com/x/..%2fa.jpg",
        "https://host.com/x\\..\\a.jpg",
        "https://user:key@host.com/x/a.jpg",
        "https://host.com@evil.com/x/a.jpg",
        "https://host.com.evil.com/x/a.jpg",
        "https://host.com:444/x/a.jpg",
        "http://host.com/x/a.jpg",
        "https://host.com:port/x/a.jpg",
        "https:///x/a.jpg",
        "file://other/data/p/a.jpg",
        "file:///data/p/../q/a.jpg",
        "/data/pq/a.jpg",
        "/data/p/../../etc/passwd",
    ):
        with pytest.raises(NotAllowedError):
            allowed.target(uri)
    with pytest.raises(NotAllowedError, match="in no file"):
        AllowedUris(["/data/p/"]).target("a.jpg")
    assert normal("https://[::1]:80/a") == "https://[::1]:80/a"


@pytest.mark.parametrize(
    ("corpus", "said"),
    [
        ({"allow_uris": ["file:///data"]}, "write the folder's path, without file:"),
        ({"allow_uris": ["https://"]}, "it names no host"),
        ({"allow_uris": ["s3:///a"]}, "it names no"),
        ({"allow_uris": ["/"]}, "it names no folder"),
        ({"allow_uris": ["s3://b/*"]}, "not a glob"),
        ({"allow_uris": ["ftp://h/a"]}, "opens no ftp: URIs"),
        ({"allow_uris": ["https://u:p@h/a"]}, "user name"),
        ({"media": None, "allow_uris": ["s3://b/"]}, "allow_uris is for records that name media"),
        ({"media": None, "media_modality": "audio"}, "media_modality is for tars, and for records"),
        ({"content": ["text"]}, "corpus.content and corpus.media are both set"),
        ({"format": "image"}, "in the format image a file is an item"),
    ],
)
def test_keys_that_do_not_fit_are_refused(tmp_path: Path, corpus: dict[str, Any], said: str) -> None:
    values = {"paths": ["a/*.jsonl"], "media": "photo", **corpus}
    with pytest.raises(ConfigurationError, match=said):
        configure(tmp_path, corpus={key: value for key, value in values.items() if value is not None})


def test_a_field_that_no_record_has_is_named(tmp_path: Path, model: Path) -> None:
    write_jsonl(tmp_path / "records" / "a.jsonl", [{"id": "a", "picture": "a.png"}])
    with pytest.raises(ConfigurationError, match=r"corpus\.media: no record has 'photo'; they have id, picture"):
        backfill(media_config(tmp_path, model))


def test_images_of_a_web_server(tmp_path: Path, model: Path, server: MediaServer) -> None:
    server.files = {f"/photos/{number}.png": encoded(drawing(number)) for number in range(10)}
    server.failures["/photos/3.png"] = 2
    server.redirects = {"/photos/away.png": "http://169.254.169.254/a.png", "/photos/other.png": "/photos/1.png"}
    server.files["/private/a.png"] = server.files["/photos/1.png"]
    server.files["/photos/zero.png"] = b""
    server.files["/photos/page.png"] = b"<html>Not found</html>"
    names = [*(f"photos/{number}.png" for number in range(10)), "photos/none.png", "photos/away.png"]
    names += ["photos/other.png", "private/a.png", "photos/page.png", "photos/%2e%2e/private/a.png", "photos/zero.png"]
    records = [{"id": name, "photo": server.address + name} for name in names]
    write_jsonl(tmp_path / "records" / "a.jsonl", records)
    allow = {"allow_uris": [f"{server.address}photos/"]}
    config = media_config(tmp_path, model, allow, verify={"max_rejected": 0.5})
    report = backfill(config)
    assert {one.id: one.error for one in report.rejected} == {
        "photos/none.png": "UnreadableMedia",
        "photos/away.png": "UriNotAllowed",
        "photos/other.png": "UriNotAllowed",
        "private/a.png": "UriNotAllowed",
        "photos/page.png": "NotAnImage",
        "photos/%2e%2e/private/a.png": "UriNotAllowed",
        "photos/zero.png": "EmptyFile",
    }
    reasons = {one.id: one.reason for one in report.rejected}
    assert "corpus.allow_uris" in reasons["private/a.png"]
    assert "redirect to http://169.254.169.254/a.png" in reasons["photos/away.png"]
    assert report.verify.found == 10
    assert not [path for _, path in server.requested if path.startswith("/private")]
    server.requested.clear()
    assert sync(config).chunks.embedded == 0
    snapshots = sorted(Path(config.checkpoint).rglob("snapshots/*"))
    assert sync(config).chunks.embedded == 0
    assert sorted(Path(config.checkpoint).rglob("snapshots/*")) == snapshots
    assert "GET" not in {method for method, path in server.requested if path in server.files and "page" not in path}
    server.files["/photos/5.png"] = encoded(drawing(105))
    changed = sync(config)
    assert (changed.items.changed, changed.chunks.embedded) == (1, 1)


def test_servers_without_etags_or_head_are_versions_of_what_they_say(server: MediaServer) -> None:
    server.files = {"/a.png": b"12345"}
    uri = f"{server.address}a.png"
    [tag] = web_file.facts(uri, server.address)
    assert tag == f'"{hash(b"12345")}"'
    server.tags = False
    assert web_file.facts(uri, server.address) == [5]
    server.heads = False
    assert web_file.facts(uri, server.address) == [5]


def test_private_addresses_are_refused_unless_they_are_listed(
    server: MediaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files = {"/a.png": b"12345"}

    def opened(uri: str, below: str, most: int = 10) -> bytes:
        with open_target(Target(uri, below), most) as stream:
            return stream.read()

    assert opened(f"{server.address}a.png", server.address) == b"12345"
    assert opened(f"http://localhost:{server.port}/a.png", f"http://localhost:{server.port}/") == b"12345"
    with pytest.raises(TargetError, match="has more than 0 MiB"):
        opened(f"{server.address}a.png", server.address, 4)
    real = web_file.socket.getaddrinfo

    def rebound(host: str, *rest: Any, **more: Any) -> Any:
        """A name of somebody else, which resolves to this machine."""
        return real("127.0.0.1" if host == "photos.example.com" else host, *rest, **more)

    monkeypatch.setattr(web_file.socket, "getaddrinfo", rebound)
    server.requested.clear()
    prefix = f"http://photos.example.com:{server.port}/"
    with pytest.raises(TargetError, match=r"points to 127\.0\.0\.1, which is not a public address"):
        opened(f"{prefix}a.png", prefix)
    assert not server.requested
    for address in ("169.254.169.254", "10.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "[fd00::1]"):
        with pytest.raises(TargetError, match="not a public address"):
            web_file._check_address("u", "photos.example.com", address.strip("[]"))


def test_a_host_that_is_away_costs_its_items_and_little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_file, "PATIENCE_S", 0.5)
    monkeypatch.setattr(web_file, "MOST_FAILURES", 2)
    address = "http://127.0.0.1:9/"
    for number in range(30):
        with pytest.raises(TargetError, match="can't be opened"):
            web_file.facts(f"{address}{number}.png", address)


def test_records_in_an_object_store_name_its_objects(tmp_path: Path, model: Path, s3_bucket: tuple[Any, str]) -> None:
    client, bucket = s3_bucket
    for number in range(6):
        client.put_object(Bucket=bucket, Key=f"data/photos/{number}.png", Body=encoded(drawing(number)))
    client.put_object(Bucket=bucket, Key="other/x.png", Body=encoded(drawing(50)))
    names = [f"photos/{number}.png" for number in range(5)]
    names += [f"s3://{bucket}/other/x.png", f"s3://{bucket}/data/photos/5.png", "photos/none.png", "../../etc/x.png"]
    lines = "".join(
        json.dumps({"id": name.rpartition("/")[2] + str(at), "photo": name}) + "\n" for at, name in enumerate(names)
    )
    client.put_object(Bucket=bucket, Key="data/a.jsonl", Body=lines.encode())
    corpus = {"paths": [f"s3://{bucket}/data/*.jsonl"], "allow_uris": [f"s3://{bucket}/other/"]}
    config = media_config(tmp_path, model, corpus, checkpoint=f"s3://{bucket}/c", verify={"max_rejected": 0.5})
    report = backfill(config)
    assert {one.id: one.error for one in report.rejected} == {
        "5.png6": "UriNotAllowed",
        "none.png7": "UnreadableMedia",
        "x.png8": "UriNotAllowed",
    }
    assert report.verify.found == 6
    assert sync(config).chunks.embedded == 0
    client.put_object(Bucket=bucket, Key="data/photos/2.png", Body=encoded(drawing(102)))
    changed = sync(config)
    assert (changed.items.changed, changed.chunks.embedded) == (1, 1)


def test_recordings_of_a_web_server_and_of_a_folder(tmp_path: Path, server: MediaServer) -> None:
    model = save_whisper(tmp_path / "whisper")
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "0.wav").write_bytes(encoded_tune(tune(0, 0.6)))
    server.files = {f"/{number}.wav": encoded_tune(tune(number, 0.6 + number)) for number in (1, 2)}
    server.files["/page.wav"] = b"<html></html>"
    names = ["0.wav", *(f"{server.address}{name}.wav" for name in ("1", "2", "page"))]
    write_jsonl(tmp_path / "records" / "a.jsonl", [{"id": name[-6:], "photo": name} for name in names])
    corpus = {"paths": ["records/*.jsonl"], "media_modality": "audio", "allow_uris": server.address}
    config = media_config(tmp_path, model, corpus, chunk={"seconds": 1.5}, verify={"max_rejected": 0.5})
    report = backfill(config)
    assert (report.items.read, report.verify.found) == (4, 5)
    assert [one.error for one in report.rejected] == ["NotSound"]


def test_init_of_records_that_name_images(tmp_path: Path, model: Path, server: MediaServer) -> None:
    photos = write_drawings(tmp_path / "records" / "photos", 8)
    records = [{"file": f"photos/{path.name}", "label": f"l{at % 2}"} for at, path in enumerate(photos)]
    file = write_jsonl(tmp_path / "records" / "a.jsonl", records)
    found = write_configuration([str(file)], tmp_path / "vecbeam.yaml", None)
    corpus = {key: value for key, value in found.values["corpus"].items() if key != "paths"}
    assert corpus == {"id": "file", "media": "file", "metadata": {"label": "string"}}
    assert f"file of photos/drawing-000.png: {str(photos[0])[:80]}" in str(found)  # a long one is cut
    config = load_config(tmp_path / "vecbeam.yaml", [f"encoder.model={model}"])
    assert backfill(config).verify.found == 8
    # Of records that have texts, these are embedded, and a note says how to embed the files.
    captions = [{"id": str(at), "file": f"photos/{path.name}", "caption": "a dog"} for at, path in enumerate(photos)]
    file = write_jsonl(tmp_path / "records" / "b.jsonl", captions)
    found = write_configuration([str(file)], tmp_path / "b.yaml", None)
    assert found.values["corpus"]["content"] == ["caption"]
    assert any("set corpus.media: file instead" in note for note in found.notes)
    # URIs: their prefix is listed, and a note says so.
    server.files = {f"/photos/{at}.png": path.read_bytes() for at, path in enumerate(photos)}
    named = [{"id": at, "url": f"{server.address}photos/{at}.png?w=64"} for at in range(8)]
    server.files |= {f"{name}?w=64": data for name, data in server.files.items()}
    file = write_jsonl(tmp_path / "c.jsonl", named)
    found = write_configuration([str(file)], tmp_path / "c.yaml", None)
    assert found.values["corpus"]["allow_uris"] == [f"{server.address}photos/"]
    assert any("corpus.allow_uris" in note for note in found.notes)
    assert f"file of 0: {server.address}photos/0.png?w=64" in str(found)


def test_an_object_that_the_store_refuses_is_one_reject(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(uri: str, *_: Any) -> Any:
        raise storage_error("look for", uri, PermissionError("403 Forbidden"))

    def away(uri: str, *_: Any) -> Any:
        raise storage_error("look for", uri, ConnectionError("connection reset"))

    target = Target("s3://photos/a.png", "s3://photos/")
    monkeypatch.setattr(filesystem, "find", refused)
    monkeypatch.setattr(filesystem, "open_binary", refused)
    [found] = versions([Named(target, "a")])
    assert isinstance(found, TargetError)
    assert (found.error, "may not be read" in found.reason) == ("UnreadableMedia", True)
    with pytest.raises(TargetError):
        open_target(target, 10)
    monkeypatch.setattr(filesystem, "find", away)
    with pytest.raises(StorageError, match="connection reset"):
        list(versions([Named(target, "a")]))


def test_records_of_a_pipeline_name_what_is_listed(tmp_path: Path) -> None:
    write_drawings(tmp_path / "photos", 1)
    corpus = {"paths": "-", "media": "photo", "allow_uris": ["photos"]}
    config = configure(tmp_path, corpus=corpus)
    named = {"a": str(tmp_path / "photos" / "drawing-000.png"), "b": "photos/drawing-000.png", "c": "/etc/passwd"}
    records = [{"id": name, "photo": uri} for name, uri in named.items()]
    [batch] = batches_of(records, config, "mine", uri="mine")
    assert batch.items.column("item_id").to_pylist() == ["a"]
    assert {one["id"]: one["error"] for one in batch.rejects.to_pylist()} == dict.fromkeys("bc", "UriNotAllowed")
