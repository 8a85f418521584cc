"""Names of columns and where their values come from: reserved words, renames, objects, partitions, front matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import configure, write_jsonl

from pipelines.backfill import backfill
from pipelines.plan import plan
from pipelines.reindex import reindex
from pipelines.run.plan_text import text as plan_text
from pipelines.run.progress import Progress
from pipelines.search import search
from pipelines.steps.corpus.corpus_digests import settings_digest
from pipelines.steps.judgement.null_columns import unfilterable
from schemas.config import Corpus, suggested_column
from schemas.errors import ConfigurationError
from schemas.milvus import FILTER_KEYWORDS, LITE, RESULT_NAMES, SERVER, SYSTEM_FIELDS, refusal
from transforms.encoders import resolve
from transforms.read import list_corpus, plan_shards, read_shard

pytestmark = pytest.mark.usefixtures("lite_released")


def read(glob: Path, **corpus: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Items and rejects of a glob."""
    settings = Corpus(paths=[str(glob)], **corpus)
    items, rejects = [], []
    for shard in plan_shards(list_corpus(settings), settings):
        for batch in read_shard(shard, settings, batch_rows=100):
            items += batch.items.to_pylist()
            rejects += batch.rejects.to_pylist()
    return items, rejects


def spellings(word: str) -> set[str]:
    return {word, word.upper(), word.capitalize()}


@pytest.mark.parametrize("server", [LITE, SERVER])
def test_reserved_words_are_refused_with_the_configuration(tmp_path: Path, server: str) -> None:
    uri = "./milvus.db" if server == LITE else "http://127.0.0.1:1"
    words = set(SYSTEM_FIELDS[server]) | set(RESULT_NAMES)
    for word in FILTER_KEYWORDS[server]:
        words |= spellings(word) if server == LITE else {word, word.upper()}
    for word in sorted(words):
        with pytest.raises(ConfigurationError) as refused:
            configure(tmp_path, corpus={"paths": ["c.jsonl"], "metadata": {word: "string"}}, collection={"uri": uri})
        assert f"'{word}' can't be a column" in str(refused.value)
        assert f"{word}_: {{from: " in str(refused.value)
        renamed = {"paths": ["c.jsonl"], "metadata": {f"{word}_": {"from": word, "type": "string"}}}
        configure(tmp_path, corpus=renamed, collection={"uri": uri})


def test_what_works_is_not_refused() -> None:
    assert refusal("Like", SERVER) is None  # its filter language knows like and LIKE alone
    assert refusal("Timestamp", LITE) is None
    assert refusal("json_contains", LITE) is None
    for name in ("author", "year", "Score", "timestamp", "threshold", "rank", "score_"):
        assert refusal(name, LITE) is None
        assert refusal(name, SERVER) is None


def test_milvus_takes_and_filters_by_every_name_that_is_not_refused(milvus_uri: str) -> None:
    from pymilvus import DataType, MilvusClient

    client = MilvusClient(milvus_uri, dedicated=True)
    server = SERVER if milvus_uri.startswith("http") else LITE
    tried = [word for words in FILTER_KEYWORDS.values() for word in words]
    tried += [word for words in SYSTEM_FIELDS.values() for word in words]
    tried = sorted({spelt for word in tried for spelt in spellings(word)})
    names = [name for name in tried if refusal(name, server) is None]
    names += [suggested_column(name) for name in tried if name not in names]
    names = list(dict.fromkeys(names))[:50]
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=64)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
    for name in names:
        schema.add_field(name, DataType.VARCHAR, max_length=64)
    index = client.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="L2")
    client.create_collection("named", schema=schema, index_params=index)
    client.insert("named", [{"id": "a", "vector": [0.0, 1.0], **dict.fromkeys(names, "x")}])
    for name in names:
        found = client.query("named", filter=f'{name} == "x"', output_fields=[name], consistency_level="Strong")
        assert [row[name] for row in found] == ["x"], name
    client.close()


def test_a_renamed_field_is_stored_filtered_and_leaves_the_score_alone(tmp_path: Path) -> None:
    write_jsonl(
        tmp_path / "c.jsonl",
        [
            {"id": "a", "text": "hello world", "score": 7.5, "like": "x"},
            {"id": "b", "text": "good bye", "score": None, "like": "y"},
        ],
    )
    metadata = {"score_": {"from": "score", "type": "float"}, "like_": {"from": "like", "type": "string"}}
    config = configure(tmp_path, corpus={"paths": ["c.jsonl"], "metadata": metadata})
    backfill(config)
    hits = {hit["item_id"]: hit for hit in search(config, "hello world")}
    assert hits["a"]["score"] == pytest.approx(1.0, abs=1e-5)
    assert (hits["a"]["score_"], hits["b"]["score_"]) == (7.5, None)
    found = search(config, "hello world", filter_expression='like_ == "y" or score_ > 100')
    assert [hit["item_id"] for hit in found] == ["b"]


def test_another_name_for_a_column_embeds_nothing_again(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "c.jsonl", [{"id": str(n), "text": f"text {n}", "rank": n} for n in range(9)])
    backfill(configure(tmp_path, corpus={"paths": ["c.jsonl"], "metadata": {"rank": "int"}}))
    renamed = {"rank_": {"from": "rank", "type": "int"}}
    config = configure(tmp_path, corpus={"paths": ["c.jsonl"], "metadata": renamed})
    report = reindex(config)
    assert (report.chunks.embedded, report.chunks.reused, report.exit_code) == (0, 9, 0)
    assert [hit["rank_"] for hit in search(config, "text 4", k=1, filter_expression="rank_ == 4")] == [4]


def test_words_of_newer_servers_are_warned_of(tmp_path: Path) -> None:
    corpus = {"paths": ["c.jsonl"], "metadata": {"threshold": "int", "ISO": "string", "author": "string"}}
    server = configure(tmp_path, corpus=corpus, collection={"uri": "http://127.0.0.1:1"})
    assert [warning.split(":")[0] for warning in unfilterable(server)] == [
        "corpus.metadata.ISO",
        "corpus.metadata.threshold",
    ]
    corpus["metadata"] = {"threshold": "int"}
    assert unfilterable(configure(tmp_path, corpus=corpus)) == []


def test_an_upgrade_changes_no_digest_of_settings(tmp_path: Path) -> None:
    metadata = {"author": "string", "year": {"type": "int", "default": 3, "max_bytes": 9}}
    corpus = {"paths": ["corpus/*"], "id": "key", "content": ["title", "text"], "metadata": metadata}

    def of(**changes: Any) -> str:
        config = configure(tmp_path, corpus=corpus | changes)
        return settings_digest(config, resolve(config.encoder))

    assert of() == "0420781dbb20f0f7c2daff74d7f3a396"  # what version 0.1.0 made of it
    others = [
        of(metadata={"author": {"type": "string", "from": "writer"}, "year": metadata["year"]}),
        of(metadata={"author": {"type": "string", "partition": "author"}, "year": metadata["year"]}),
        of(id={"hash": ["key"]}),
    ]
    assert len({of(), *others}) == 4


def test_fields_of_objects_by_dotted_names(tmp_path: Path) -> None:
    records = [
        {"doc": {"key": "a", "text": "one", "meta": {"lang": "en"}}},
        {"doc": {"key": "b", "text": "two", "meta": None}, "doc.text": "its own name wins"},
        {"doc": {"key": "c", "text": "three"}},
        {"doc": None},
        {"doc": "text"},
    ]
    corpus: dict[str, Any] = {
        "id": "doc.key",
        "content": ["doc.text"],
        "metadata": {"lang": {"from": "doc.meta.lang", "type": "string"}},
    }
    write_jsonl(tmp_path / "a.jsonl", records)
    items, rejects = read(tmp_path / "a.jsonl", **corpus)
    assert [(i["item_id"], i["@content"], i["lang"]) for i in items] == [
        ("a", "one", "en"),
        ("b", "its own name wins", None),
        ("c", "three", None),
    ]
    assert [r["error"] for r in rejects] == ["EmptyId", "MissingField"]

    structs = pa.Table.from_pylist(
        [{"doc": record["doc"], "unused": {"big": "x"}} for record in records[:1]]
        + [{"doc": {"key": "n", "text": None, "meta": {"lang": None}}, "unused": None}]
        + [{"doc": {"key": "é", "text": "zwei", "meta": None}, "unused": None}, {"doc": None, "unused": None}]
    )
    pq.write_table(structs, tmp_path / "a.parquet")
    items, rejects = read(tmp_path / "a.parquet", **corpus)
    assert [(i["item_id"], i["@content"], i["lang"]) for i in items] == [("a", "one", "en"), ("é", "zwei", None)]
    assert [(r["id"], r["error"]) for r in rejects] == [("n", "EmptyText"), (None, "EmptyId")]
    _, rejects = read(tmp_path / "a.parquet", **(corpus | {"content": ["doc.txt"]}))
    assert rejects[0]["error"] == "WrongSchema"
    assert "'doc.txt' (string) is missing" in rejects[0]["reason"]


def test_bytes_in_a_struct_that_are_not_utf_8_cost_their_row(tmp_path: Path) -> None:
    raw = pa.array([b"good", b"b\xffd"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    doc = pa.StructArray.from_arrays([pa.array(["a", "b"]), text], ["key", "text"])
    pq.write_table(pa.table({"doc": doc}), tmp_path / "a.parquet")
    items, rejects = read(tmp_path / "a.parquet", id="doc.key", content=["doc.text"])
    assert [i["item_id"] for i in items] == ["a"]
    assert [(r["id"], r["error"]) for r in rejects] == [("b", "InvalidUtf8")]


def test_an_id_made_from_content_is_the_same_in_each_format_of_the_same_values(tmp_path: Path) -> None:
    records = [
        {"question": "Why?", "answer": "So.", "n": 1},
        {"question": "Why?", "answer": "Thus.", "n": 2},
        {"question": None, "answer": "", "n": 3},
    ]
    write_jsonl(tmp_path / "a.jsonl", records)
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet")
    corpus: dict[str, Any] = {"id": {"hash": ["question", "answer"]}, "content": ["question", "answer"]}
    items, rejects = read(tmp_path / "a.jsonl", **corpus)
    assert [len(i["item_id"]) for i in items] == [32, 32]
    assert items[0]["item_id"] == "8bab3e4709e83fc5934b0a6bad9707d9"
    assert len({i["item_id"] for i in items}) == 2
    assert [(r["error"], r["place"]) for r in rejects] == [("EmptyId", "line 3")]
    assert [i["item_id"] for i in read(tmp_path / "a.parquet", **corpus)[0]] == [i["item_id"] for i in items]
    _, rejects = read(tmp_path / "a.jsonl", **(corpus | {"id": {"hash": ["question", "reply"]}}))
    assert {r["error"] for r in rejects} == {"MissingField"}
    assert "'reply', which corpus.id.hash names" in rejects[0]["reason"]


def test_partitions_of_the_path_are_metadata(tmp_path: Path) -> None:
    rows = [{"id": "a", "text": "one", "year": 1999}]
    write_jsonl(tmp_path / "d" / "year=2024" / "lang=pt%20BR" / "x.jsonl", rows)
    write_jsonl(tmp_path / "d" / "year=__HIVE_DEFAULT_PARTITION__" / "x.jsonl", [rows[0] | {"id": "b"}])
    write_jsonl(tmp_path / "d" / "year=later" / "x.jsonl", [rows[0] | {"id": "c"}])
    (tmp_path / "d" / "year=2020").mkdir()
    (tmp_path / "d" / "year=2020" / "page.txt").write_text("a page")
    metadata = {"year": {"partition": "year", "type": "int"}, "lang": {"partition": "lang", "type": "string"}}
    items, rejects = read(tmp_path / "d" / "**" / "*", metadata=metadata)
    found = {i["item_id"]: (i["year"], i["lang"]) for i in items}
    assert found == {"a": (2024, "pt BR"), "b": (None, None), "year=2020/page.txt": (2020, None)}
    assert [(r["id"], r["error"]) for r in rejects] == [("c", "MetadataType")]
    items, _ = read(tmp_path / "d" / "year=2024" / "**" / "*", metadata=metadata)  # above the glob's root
    assert [i["year"] for i in items] == [2024]


def test_one_source_a_column(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="one source"):
        configure(
            tmp_path,
            corpus={"paths": ["c"], "metadata": {"year": {"from": "y", "partition": "year", "type": "int"}}},
        )


def test_a_column_that_is_null_throughout_is_named_with_what_was_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.plan.CALIBRATED_S", 0.1)
    rows = [{"id": str(n), "text": f"text {n}", "author": "ann", "none": None, "seldom": None} for n in range(40)]
    rows[-1]["seldom"] = "once"
    write_jsonl(tmp_path / "d" / "year=2024" / "x.jsonl", rows)
    metadata = dict.fromkeys(["author", "autor", "none", "seldom", "elsewhere"], "string")
    metadata |= {"year": "int", "month": {"partition": "monht", "type": "int"}}
    config = configure(tmp_path, corpus={"paths": ["d/**/*.jsonl"], "metadata": metadata}, batch_rows=8)
    planned = plan(config)
    report = backfill(config, Progress())
    expected = {
        "autor": ["no record has a field 'autor'; did you mean 'author'?"],
        "none": ["the field 'none' has no value"],
        "elsewhere": ["no record has a field 'elsewhere'; the records have id, text, author"],
        "year": ["paths have folders year=...", "write year: {partition: year, type: int}"],
        "month": ["no file has a folder monht=...", "year"],
    }
    for warnings in (planned.warnings, report.warnings):
        assert len(warnings) == len(expected)
        for (column, parts), warning in zip(sorted(expected.items()), warnings, strict=True):
            assert warning.startswith(f"corpus.metadata.{column} ")
            assert all(part in warning for part in parts), warning
    assert "warning     corpus.metadata.autor would be null" in plan_text(planned)
    assert "corpus.metadata.autor is null in every row" in capsys.readouterr().err
    right = metadata | {"year": {"partition": "year", "type": "int"}}
    for column in ("autor", "none", "elsewhere", "month"):
        del right[column]
    config = configure(tmp_path, corpus={"paths": ["d/**/*.jsonl"], "metadata": right}, name="right")
    assert backfill(config).warnings == []


MARKDOWN = {
    "matter.md": "---\ntitle: Trees\nyear: 2024\ndate: 2024-01-05\ndraft: true\n---\n# Trees\n\nThey grow.\n",
    "windows.md": "\ufeff---\r\ntitle: Leaves\r\n---\r\nThey fall.\r\n",
    "plain.md": "# Plain\n\nNo front matter.\n\n---\n\nA rule.\n",
    "rules.md": "---\nBetween two rules there is: text\nof two lines\n---\nMore.\n",
    "open.md": "---\ntitle: never closed\n\nText.\n",
    "list.md": "---\n- a\n- b\n---\nText.\n",
}


def test_front_matter_is_metadata_and_is_not_embedded(tmp_path: Path) -> None:
    for name, text in MARKDOWN.items():
        (tmp_path / name).write_bytes(text.encode())
    (tmp_path / "broken.md").write_text('---\ntitle: "Half\n---\nText.\n')
    (tmp_path / "wrong.md").write_text("---\nyear: last\n---\nText.\n")
    (tmp_path / "only.md").write_text("---\ntitle: Nothing else\n---\n")
    metadata = {"title": "string", "year": "int", "date": "string", "draft": "bool"}
    items, rejects = read(tmp_path / "*.md", metadata=metadata)
    found = {i.pop("item_id"): i for i in items}
    assert found["matter.md"]["@content"] == "# Trees\n\nThey grow.\n"
    assert [found["matter.md"][name] for name in metadata] == ["Trees", 2024, "2024-01-05", True]
    assert (found["windows.md"]["title"], found["windows.md"]["@content"]) == ("Leaves", "They fall.\r\n")
    for name in ("plain.md", "rules.md", "open.md", "list.md"):
        assert found[name]["@content"] == MARKDOWN[name], name
        assert found[name]["title"] is None
    assert {(r["id"], r["error"]) for r in rejects} == {
        ("broken.md", "InvalidFrontMatter"),
        ("wrong.md", "MetadataType"),
        ("only.md", "EmptyText"),
    }
