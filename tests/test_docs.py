"""The documents against the code: commands, options, keys, errors, links, and the examples that they show."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
import typer
import yaml

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.run.jobs.beam_options import pipeline_options
from schemas import errors
from schemas.config import Config, reference
from schemas.config.loader import load_config, parse_config
from schemas.run_report import Report
from transforms.checkpoint import Checkpoint
from transforms.embed.public.read_items import ShardWork
from transforms.embed.stage import Embedding, EmbedShards
from transforms.encoders.catalogue import table
from transforms.encoders.models import Models
from transforms.read import Shard, SourceFile

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *DOCS, *GUIDES]


def _commands(group: Any, before: str = "") -> dict[str, Any]:
    """The commands of a group, and of the groups in it, by the words that call them."""
    found: dict[str, Any] = {}
    for name, one in group.commands.items():
        found |= _commands(one, f"{before}{name} ") if hasattr(one, "commands") else {f"{before}{name}": one}
    return found


COMMANDS = _commands(typer.main.get_command(app))


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    """Fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Names of a page's headings, as links use them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def reject_errors() -> set[str]:
    """CamelCase names in the sources that make rejects, except for labels of Beam's steps and names of transforms."""
    sources = [
        *(ROOT / "transforms" / "read").rglob("[!_]*.py"),
        *(ROOT / "transforms" / "embed" / "public").rglob("[!_]*.py"),
        *(ROOT / "transforms" / "chunk").rglob("[!_]*.py"),
        *(ROOT / "transforms" / "encoders" / "media").rglob("[!_]*.py"),
        *(
            ROOT / "transforms" / name
            for name in (
                *("embed/attempts.py", "embed/rows.py", "embed/stage.py"),
                *("encoders/words.py", "encoders/resemblyzer.py"),
                "encoders/transformers/patches/patch_encoder.py",
            )
        ),
    ]
    name = re.compile(r'"((?:[A-Z][a-z]+)(?:[A-Z][a-z0-9]+)+)"(?! >>)')
    rejecting = (source for source in sources if source.name != "image_transform.py")
    return {found for source in rejecting for found in name.findall(source.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_and_option_is_described(command: str) -> None:
    assert f"`vecbeam {command.split()[0]}" in text_of("README.md")
    described = text_of("docs/operations.md") + text_of("docs/guides/explore.md")
    described += text_of("docs/guides/evaluate.md") + text_of("docs/guides/train.md")
    [row] = re.findall(rf"^\| `vecbeam {command}[ `].*$", described, re.MULTILINE)
    for parameter in COMMANDS[command].params:
        if getattr(parameter, "hidden", False):
            continue
        options = [name for name in parameter.opts if name.startswith("-") and name != "--help"]
        for option in options:
            assert f"`{option}`" in row, f"{option} of {command}"
            assert f"| `{option}" in described or f", `{option}` |" in described
        assert parameter.help or not options, f"{options} of {command} has no help"
    assert COMMANDS[command].help


def test_no_command_is_described_that_is_not_there() -> None:
    described = re.findall(r"^\| `vecbeam (\w+)", text_of("README.md") + text_of("docs/operations.md"), re.MULTILINE)
    assert set(described) == {command.split()[0] for command in COMMANDS}
    explored = re.findall(r"^\| `vecbeam explore (\w+)", text_of("docs/guides/explore.md"), re.MULTILINE)
    assert set(explored) == {command.split()[1] for command in COMMANDS if command.startswith("explore ")}


def test_the_configuration_page_is_what_the_models_say() -> None:
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), "run: python -m schemas.config.reference"


def test_each_key_has_a_description() -> None:
    for path, model in reference.SECTIONS.items():
        for name, field in model.model_fields.items():
            section = not path and name in reference.SECTIONS
            assert field.description or section, f"{path}.{name}"


def test_each_section_of_the_configuration_is_on_its_page() -> None:
    def models(schema: dict[str, Any]) -> set[str]:
        return {*schema["$defs"], "Config"}

    assert {model.__name__ for model in reference.SECTIONS.values()} == models(Config.model_json_schema())


def test_each_error_of_rejects_is_described() -> None:
    names = reject_errors()
    assert {"InvalidJson", "EmptyText", "IdTooLong", "EncoderFailed", "DuplicateId", "DamagedFile"} <= names
    described = set(re.findall(r"^\| `(\w+)` \| (?:read|chunk|embed)", text_of("docs/operations.md"), re.MULTILINE))
    assert described == names


def test_each_class_of_errors_is_described() -> None:
    classes = {
        name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.VecbeamError)
    }
    page = text_of("docs/operations.md")
    assert [name for name in sorted(classes) if f"`{name}`" not in page] == []
    for name, code in re.findall(r"\(`(\w+)`, (\d+)\)", page):
        assert getattr(errors, name).exit_code == int(code), name


def test_each_model_of_the_catalogue_is_described() -> None:
    # Made by: python -c 'from transforms.encoders.catalogue import table; print(*table(), sep="\\n")'
    assert "\n".join(table()) in text_of("docs/encoders.md")


def test_the_changelog_begins_with_this_version() -> None:
    version = tomllib.loads(text_of("pyproject.toml"))["project"]["version"]
    first = re.search(r"^## (\S+?),? ", text_of("CHANGELOG.md"), re.MULTILINE)
    assert first is not None
    assert first[1] == version


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    named = re.findall(r"`((?:schemas|transforms|pipelines|tests|deploy|docs)/[\w./-]*)`", page.read_text("utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


CORPUS = """\
{"id": "a", "text": "The first text.", "author": "ting-yili"}
{"id": "b", "text": "Another text, which is longer."}
{"id": "c", "text": "  "}
no json
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Report]]:
    """A small checkpoint of the fake encoder: its folder, and the report of the run."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "corpus.jsonl").write_text(CORPUS, encoding="utf-8")
    config = parse_config(
        {
            "name": "docs",
            "corpus": {"paths": "corpus.jsonl", "metadata": {"author": "string"}},
            "encoder": {"model": "fake"},
            "checkpoint": "checkpoint",
            "collection": {"uri": "./milvus.db"},
            "verify": {"max_rejected": 1.0},
        },
        folder=folder,
    )
    yield folder / "checkpoint" / "docs", backfill(config)
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(config.collection.uri)


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_python_examples_run(page: Path, checkpoint: tuple[Path, Report], capsys: pytest.CaptureFixture[str]) -> None:
    examples = blocks(page, "python")
    if not examples:
        pytest.skip("shows no Python")
    folder, report = checkpoint
    names: dict[str, Any] = {"folder": str(folder), "space_id": report.space}
    for example in examples:
        exec(compile(example, page.name, "exec"), names)
        assert capsys.readouterr().out.strip() or "print" not in example
    if page.name == "checkpoint.md":
        assert names["rows"].column("item_id").to_pylist() == ["a", "b"]
        assert names["vectors"].shape == (2, 64)
        assert names["counts"] == [("EmptyText", 1), ("InvalidJson", 1)]
        assert [row[0] for row in names["found"]] == ["b", "a"]


def test_the_columns_of_the_checkpoint_are_described(checkpoint: tuple[Path, Report]) -> None:
    import pyarrow.parquet as pq

    folder, report = checkpoint
    page = text_of("docs/checkpoint.md")
    for pattern in (f"{report.space}/parts", f"{report.space}/items", f"{report.space}/rejects", "snapshots", "files"):
        [file] = (folder / pattern).glob("*.parquet")
        for column in pq.read_schema(file).names:
            assert column == "author" or f"| `{column}` |" in page, f"{pattern}: {column}"


def test_the_least_configuration_and_every_other_example_is_one(tmp_path: Path) -> None:
    for page in DOCS:
        for example in blocks(page, "yaml"):
            parse_config(yaml.safe_load(example), folder=tmp_path)


def test_the_dataflow_example_gives_a_job_with_image_and_accelerator() -> None:
    config = load_config(ROOT / "deploy" / "dataflow.yaml")
    # The job is built and not sent.
    fake = config.encoder.model_copy(update={"model": "fake"})
    runner = config.runner.model_copy(update={"dry_run": "true"})
    config = config.model_copy(update={"encoder": fake, "runner": runner})
    models = Models.of(config)
    checkpoint = Checkpoint(config.checkpoint, config.name, models.space.id)
    file = SourceFile("gs://my-bucket/docs/a.jsonl", "a.jsonl", 1, 0.0, "jsonl", "")
    pipeline = beam.Pipeline(runner="DataflowRunner", options=pipeline_options(config))
    _ = (
        pipeline
        | beam.Create([ShardWork(Shard("a", 0, (file,), 0, 0), {})])
        | beam.Reshuffle()
        | EmbedShards(Embedding(config, models.layout, models.cutting, checkpoint, "listing"))
    )
    pipeline.run()
    environments = pipeline.runner.proto_pipeline.components.environments.values()
    assert all(str(config.runner.options["sdk_container_image"]).encode() in e.payload for e in environments)
    hints = {bytes(hint) for e in environments for hint in e.resource_hints.values()}
    assert hints == {str(config.encoder.accelerator).encode()}
