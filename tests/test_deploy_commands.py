"""Each command line in deploy/ is read by vecbeam's own parser, and the programs of the images run."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from pipelines.cli import app

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a file of deploy/ that a shell runs: steps of workflows, code, and indented lines of comments."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".md":
        yield from re.findall(r"^#   +(.+)$", text, re.MULTILINE)
    if path.parent.name in ("github", "workflows"):
        for job in yaml.safe_load(text)["jobs"].values():
            for step in job["steps"]:
                yield from step.get("run", "").splitlines()
    if path.suffix == ".md":
        for block in re.findall(r"^```(?:console|bash)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            yield from block.replace("\\\n", " ").splitlines()
        yield from re.findall(r"`((?:vecbeam|gcloud) [^`]+)`", text)


def words_of(path: Path) -> Iterator[list[str]]:
    """The command lines of vecbeam in a file of deploy/, as words."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".tf":
        for listed in re.findall(r'args\s*=\s*(\["[^\]]*\])', text):
            yield ["vecbeam", *json.loads(listed)]
    if path.parent.name == "kubernetes":
        for listed in re.findall(r"args: \[((?!-)[^\]]*)\]", text):
            yield ["vecbeam", *(word.strip() for word in listed.split(","))]
    for line in lines_of(path):
        for listed in re.findall(r"--args=(\S+)", line):  # of gcloud, for the job that starts `vecbeam`
            yield ["vecbeam", *listed.rstrip("`").split(",")]
        for found in re.findall(r"(?:^|&& |\$ )(vecbeam [^#|&;>]+)", line.strip()):
            yield shlex.split(found)


@functools.cache
def commands() -> Any:
    """The command line, as the program builds it."""
    return typer.main.get_group(app)


def complaint(words: list[str]) -> str:
    """What the program's parser has against a command line, which is not run; "" if nothing."""
    group = commands()
    context = group.context_class(group, info_name="vecbeam")
    try:
        name, command, rest = group.resolve_command(context, words[1:])
        command.make_context(name, list(rest), parent=context)
    except Exception as error:  # typer has its own copy of click, whose classes it does not export
        return str(error)
    return ""


FILES = [path for path in sorted(DEPLOY.rglob("*")) if path.suffix in {".md", ".yaml", ".yml", ".tf", ".Dockerfile"}]


def test_every_command_line_is_one_of_vecbeam() -> None:
    assert ["vecbeam", "sync", "missing.yaml"] in list(words_of(DEPLOY / "README.md"))  # as gcloud takes it
    seen = set()
    for path in FILES:
        for words in words_of(path):
            assert complaint(words) == "", f"{path.relative_to(ROOT)}: {shlex.join(words)}"
            seen.add((path.name, words[1]))
    assert seen >= {
        ("sync.yml", "sync"),
        ("backfill.yml", "backfill"),
        ("reindex.yml", "plan"),
        ("reindex.yml", "compare"),
        ("reindex.yml", "reindex"),
        ("sync.tf", "sync"),
        ("sync.yaml", "sync"),
        ("backfill.yaml", "backfill"),
        ("milvus.compose.yaml", "doctor"),
        ("README.md", "backfill"),
        ("README.md", "rollback"),
    }


def test_the_page_names_keys_that_there_are() -> None:
    text = (DEPLOY / "README.md").read_text()
    named = re.findall(r"`(?:chunk|collection|corpus|encoder|verify)\.(\w+)|`(batch_rows)", text)
    reference = (ROOT / "docs" / "configuration.md").read_text()
    assert named
    assert [key for pair in named for key in pair if key and f"| `{key}` |" not in reference] == []


def test_a_wrong_command_line_would_be_found() -> None:
    assert "--jsonn" in complaint(["vecbeam", "sync", "docs.yaml", "--jsonn"])
    assert "synk" in complaint(["vecbeam", "synk", "docs.yaml"])
    assert complaint(["vecbeam", "sync", "docs.yaml", "--json"]) == ""


def test_the_configuration_of_the_images_is_read_by_the_cloud_run_job() -> None:
    text = (DEPLOY / "terraform" / "storage.tf").read_text() + (DEPLOY / "terraform" / "sync.tf").read_text()
    [name] = re.findall(r'name\s+= "(.+\.yaml)"', text)
    [mounted] = re.findall(r'mount_path = "(.+)"', text)
    assert f'"{mounted}/{name}"' in text


def test_models_are_fetched_into_an_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configuration = tmp_path / "vecbeam.yaml"
    values = {
        "name": "docs",
        "corpus": {"paths": ["gs://bucket/*.jsonl"]},
        "encoders": {"one": {"model": "fake"}, "terms": {"model": "tfidf"}},
        "checkpoint": "gs://bucket/checkpoints",
        "collection": {"uri": "http://127.0.0.1:9"},
    }
    configuration.write_text(yaml.safe_dump(values))
    lines = program("fetch_models").fetch(str(configuration))
    assert lines[0].startswith("one: fake, space ")
    assert lines[1] == "terms: fitted on the corpus, not in the image"


def program(name: str) -> Any:
    """A program of deploy/images, as a module."""
    spec = importlib.util.spec_from_file_location(name, DEPLOY / "images" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_template_embeds_a_corpus(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    lines = [{"id": "a", "text": "Japan spans many islands."}, {"id": "b", "text": ""}, {"id": "c", "text": "Kenya."}]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    configuration = tmp_path / "vecbeam.yaml"
    values = {
        "name": "docs",
        "corpus": {"paths": [str(tmp_path / "corpus.jsonl")], "content": ["text"]},
        "encoder": {"model": "fake"},
        "checkpoint": str(tmp_path / "checkpoint"),
        "collection": {"uri": "http://127.0.0.1:9"},
    }
    configuration.write_text(yaml.safe_dump(values))
    program("flex_embed").start([f"--configuration={configuration}", "--runner=FnApiRunner"])
    parts = list((tmp_path / "checkpoint").rglob("parts/*.parquet"))
    assert sorted(item for part in parts for item in pq.read_table(part)["item_id"].to_pylist()) == ["a", "c"]
    rejects = list((tmp_path / "checkpoint").rglob("rejects/*.parquet"))
    assert [reason for file in rejects for reason in pq.read_table(file)["error"].to_pylist()] == ["EmptyText"]


def test_the_entry_point_fetches_the_token(tmp_path: Path) -> None:
    """With a secret of Secret Manager, and without one; the boot program gets its arguments and the token."""
    boot = tmp_path / "boot"
    boot.write_text('#!/bin/sh\nprintf "%s %s" "$MILVUS_TOKEN" "$*"\n')
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "root:%s" "$3"\n')
    for file in (boot, python):
        file.chmod(0o755)
    entry = tmp_path / "entrypoint.sh"
    entry.write_text((DEPLOY / "images" / "entrypoint.sh").read_text().replace("/opt/apache/beam/boot", str(boot)))
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "MILVUS_TOKEN": "given"}
    for more, token in (({}, "given"), ({"MILVUS_TOKEN_SECRET": "projects/p/secrets/s"}, "root:projects/p/secrets/s")):
        done = subprocess.run(
            ["sh", str(entry), "--id=1", "--x"], env={**environment, **more}, capture_output=True, text=True, check=True
        )
        assert done.stdout == f"{token} --id=1 --x"
