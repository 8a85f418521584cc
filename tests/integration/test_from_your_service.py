"""The guide for services: its examples, run against a published collection, find what `vecbeam search` finds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from pipelines.backfill import backfill
from pipelines.search import search
from schemas.config import Config
from schemas.config.loader import parse_config
from transforms.encoders import CATALOGUE
from transforms.encoders.engines.torch.torchvision_operators import DECLARED

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "from-your-service.md").read_text(encoding="utf-8")
QUERY = "Which country is in Africa?"
TEXTS = {
    "japan": "Japan is an island country in East Asia.",
    "kenya": "Kenya is a country in East Africa. Its capital is Nairobi.",
    "peru": "Peru is a country in western South America.",
}


def example(heading: str) -> str:
    found = re.search(rf"^## {heading}\n.*?^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, list[tuple[str, float]]]:
    """A configuration with a query prompt, and the ids and scores that its own search finds."""
    from milvus_lite.server_manager import server_manager_instance

    folder = tmp_path_factory.mktemp("service")
    rows = (json.dumps({"id": name, "text": text}) + "\n" for name, text in TEXTS.items())
    (folder / "facts.jsonl").write_text("".join(rows), encoding="utf-8")
    values = {
        "name": "facts",
        "corpus": {"paths": "facts.jsonl"},
        "encoder": {
            "model": "all-MiniLM-L6-v2",
            "query_prompt": "question: ",
            "dimensions": 256,
            "max_tokens": 64,
            "engine": "torch",
        },
        "chunk": {"max_tokens": 64, "overlap_tokens": 0},
        "checkpoint": "checkpoint",
        "collection": {"uri": "./milvus.db"},
    }
    config = parse_config(values, folder=folder)
    backfill(config)
    hits = search(config, QUERY, k=3)
    server_manager_instance.release_server(config.collection.uri)
    return config, [(hit["id"], hit["score"]) for hit in hits]


FOUND = {
    "pymilvus": "[(hit['id'], hit['distance']) for hit in hits]",
    "LangChain": "[(document.metadata['id'], score) for document, score in found]",
    "Haystack": "[(document.id, document.score) for document in answer['documents']]",
}


def test_the_examples_find_what_vecbeam_finds(published: tuple[Config, list[tuple[str, float]]]) -> None:
    config, expected = published
    package = find_spec(CATALOGUE[config.encoder.model].package)
    assert package is not None
    assert package.origin is not None
    names = {
        "uri": config.collection.uri,
        "alias": config.name,
        "model_folder": str(Path(package.origin).parent / "model"),
    }
    # A service imports nothing of vecbeam, and has a process of its own.
    code = [f"{name} = {value!r}" for name, value in names.items()]
    if DECLARED:  # torchvision is for another torch here
        code.append(example("torchvision for another torch"))
    for heading, found in FOUND.items():
        code += [example(heading), f"import json; print('FOUND', json.dumps({found}))"]
    code += ["import sys; print('OURS', sorted({'vecbeam', 'schemas', 'transforms', 'pipelines'} & {*sys.modules}))"]
    code += ["try:\n    store.add_texts(['a text'])\nexcept PermissionError as error:\n    print('REFUSED', error)"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", "\n".join(code)],
        cwd=Path(config.collection.uri).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    answers: list[list[tuple[str, float]]] = [json.loads(line[5:]) for line in lines if line.startswith("FOUND")]
    assert len(answers) == len(FOUND)
    for answer in answers:
        assert [name for name, _ in answer] == [name for name, _ in expected]
        assert [score for _, score in answer] == pytest.approx([score for _, score in expected], abs=1e-4)
    assert expected[0][0] == "kenya#0"
    assert "OURS []" in lines
    assert "REFUSED vecbeam writes this collection" in lines
    assert any(line.startswith("space ") and line.endswith("metric COSINE") for line in lines)


def test_the_space_of_the_guide_is_the_space_of_the_code(published: tuple[Config, Any]) -> None:
    [path] = Path(published[0].checkpoint).rglob("space.json")
    space = json.loads(path.read_text(encoding="utf-8"))["space"]
    for name in ("query_prompt", "max_tokens", "dimensions", "normalize", "weights"):
        assert name in space
        assert f"`{name}`" in PAGE
