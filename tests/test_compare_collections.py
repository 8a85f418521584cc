"""`vecbeam compare` of collections: by name, without names, of two models and of two indexes, and through `Index`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from corpora import WORDS, configure, write_jsonl
from typer.testing import CliRunner

import vecbeam
from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.compare import compare
from pipelines.evaluate import evaluate
from pipelines.reindex import reindex
from pipelines.rollback import rollback
from pipelines.search import search
from schemas.config import Config
from schemas.errors import CollectionError, ConfigurationError, SpaceMismatchError
from transforms import milvus

ITEMS = 40


def words(number: int) -> str:
    return " ".join(np.random.default_rng(number).choice(WORDS, 6, replace=False)) + f" n{number}"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[Config], list[str]]]:
    """Three collections of one alias: 48 dimensions, 48 with another index, 4 dimensions; the last one is served."""
    folder = tmp_path_factory.mktemp("collections")
    write_jsonl(folder / "corpus" / "a.jsonl", [{"id": f"d{n}", "text": words(n)} for n in range(ITEMS)])
    (folder / "log.txt").write_text("".join(words(n)[:-4] + "\n" for n in range(12)))
    configs, names = [], []
    for name, dimensions, index in (("good", 48, "HNSW"), ("flat", 48, "FLAT"), ("bad", 4, "FLAT")):
        encoder = {"model": "fake", "dimensions": dimensions}
        config = configure(
            folder, chunk=False, encoder=encoder, collection={"uri": "./milvus.db", "index": {"type": index}}
        )
        names.append((reindex(config) if names else backfill(config)).collection)
        (folder / "vecbeam.yaml").rename(folder / f"{name}.yaml")
        configs.append(config)
    assert len({*names}) == 3
    yield folder, configs, names
    milvus.release(configs[0].collection)


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["compare", *words])
    return result.exit_code, result.stdout or result.output


def test_what_is_served_is_compared_with_what_a_rollback_goes_to(
    published: tuple[Path, list[Config], list[str]],
) -> None:
    folder, (good, _, bad), names = published
    both = ["-c", str(folder / "bad.yaml"), "-c", str(folder / "good.yaml")]
    code, output = run(*both, "--queries", str(folder / "log.txt"), "-k", "5", "--json")
    assert code == 0, output
    found = json.loads(output)
    assert (found["old_collection"], found["new_collection"]) == (names[1], names[2])
    assert found["old_space"] != found["new_space"]
    assert found["overlap_at_5"]["value"] < 1
    # What a side lists is what its collection answers, and what its checkpoint has.
    exact = {row["query"]: row for row in compare(good, bad, queries=folder / "log.txt", k=5).table.to_pylist()}
    for row in found["rows"]:
        assert (row["old"], row["new"]) == (exact[row["query"]]["old"], exact[row["query"]]["new"])
        assert row["new"] == [hit["item_id"] for hit in search(bad, row["content"], k=5)]
    # A configuration that is the only word is the one whose alias is looked up.
    code, output = run(both[1], "-c", both[3], "--queries", str(folder / "log.txt"), "--json")
    assert code == 0, output
    assert json.loads(output)["new_collection"] == names[2]


def test_collections_are_named_and_an_alias_is_a_name(published: tuple[Path, list[Config], list[str]]) -> None:
    folder, (good, _, bad), names = published
    log = folder / "log.txt"
    same = compare(names[0], names[1], queries=log, configs=[good])
    assert (same.basis["old_collection"], same.basis["new_collection"]) == (names[0], names[1])
    assert same.figures["rbo"]["value"] == 1  # the index is another, the vectors are the same
    for old, new in ((names[0], ""), ("", names[0]), (names[0], "tested")):
        one = compare(old, new, queries=log, configs=[good, bad])
        assert (one.basis["old_collection"], one.basis["new_collection"]) == (names[0], names[2])
    mixed = compare(good, names[2], queries=log, configs=[bad])
    assert (mixed.basis["old_snapshot"] != "", mixed.basis["new_collection"]) == (True, names[2])
    assert "old_collection" not in mixed.basis


def test_what_can_not_be_compared_is_refused(published: tuple[Path, list[Config], list[str]]) -> None:
    folder, (good, _, bad), names = published
    log = folder / "log.txt"
    with pytest.raises(SpaceMismatchError, match=r"encoder of no given configuration makes: .*dimensions") as refused:
        compare(queries=log, configs=[bad])
    assert "-c other.yaml" in str(refused.value.remedy)
    with pytest.raises(CollectionError, match="has no collection 'nothing'"):
        compare("nothing", queries=log, configs=[bad])
    with pytest.raises(ConfigurationError, match="is what is served"):
        compare(names[2], queries=log, configs=[bad])
    with pytest.raises(ConfigurationError, match="has no dense vector 'photo'; the dense vectors are: vector"):
        compare(names[0], names[1], queries=log, configs=[good], vector="photo")
    with pytest.raises(ConfigurationError, match="named without a configuration"):
        compare(names[0], queries=log)


def test_the_index_has_the_words_of_the_command_line(published: tuple[Path, list[Config], list[str]]) -> None:
    folder, (good, _, _), names = published
    with vecbeam.Index(folder / "good.yaml") as index:
        found = index.compare(names[0], names[1], queries=folder / "log.txt")
        assert found.figures["overlap_at_10"]["value"] == 1
        rollback(good)
        again = index.compare(names[0], queries=folder / "log.txt", k=3)
        # What is served is the second one now.
        assert (again.basis["old_collection"], again.basis["new_collection"]) == (names[0], names[1])
        (folder / "q.jsonl").write_text(json.dumps({"id": "q", "text": words(1)}) + "\n")
        (folder / "t.tsv").write_text("q 0 d1 1\n")
        judged = {"queries": folder / "q.jsonl", "truth": folder / "t.tsv"}
        same = index.compare(folder / "good.yaml", str(folder / "good.yaml"), queries=folder / "log.txt")
        assert same.figures["overlap_at_10"]["value"] == 1
        assert index.evaluate(**judged).figures == evaluate(good, **judged).figures
        with pytest.raises(ConfigurationError, match="there is no file"):
            index.train(folder / "pairs.jsonl", folder / "model")


def test_the_example_of_the_guide_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    guide = Path(__file__).parent.parent / "docs" / "guides" / "evaluate.md"
    _, example = re.findall(r"^```python\n(.*?)^```", guide.read_text(), re.MULTILINE | re.DOTALL)
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": f"d{n}", "text": words(n)} for n in range(12)])
    (tmp_path / "log.txt").write_text(f"{words(1)}\n{words(2)}\n")
    for command, index in ((backfill, "HNSW"), (reindex, "FLAT")):
        config = configure(tmp_path, chunk=False, collection={"uri": "./milvus.db", "index": {"type": index}})
        command(config)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "evaluate.md", "exec"), {})
    assert float(capsys.readouterr().out.split()[0]) == 1
    milvus.release(config.collection)
