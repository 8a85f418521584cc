"""`vecbeam init PATHS`: looks at a corpus and writes a configuration that runs."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from schemas.config import RESERVED_COLUMNS, Corpus
from schemas.errors import ConfigurationError
from schemas.settings import SCHEMA_URL, parse_config
from transforms import filesystem
from transforms.filesystem import is_local
from transforms.read import FORMAT_OF_SUFFIX, SourceFile, first_records, list_corpus

_SAMPLE_RECORDS = 200
_ID_NAMES = ("id", "_id", "doc_id", "docid", "document_id", "item_id", "uuid", "key", "uri", "url")
_CONTENT_NAMES = ("title", "text", "content", "body", "abstract", "description", "summary", "document", "passage")
_CATEGORY_BYTES = 200
_COMPRESSED = (".gz", ".zst", ".bz2")
_PLAIN_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")


def write_configuration(paths: list[str], output: Path, name: str | None) -> str:
    """Writes a configuration for some files, folders or globs.

    Returns:
        What was found and what to do next, as text.

    Raises:
        ConfigurationError: where nothing is found, a file stands at `output`, or no id or content can be made out.
    """
    if output.exists():
        raise ConfigurationError(f"{output} is there already", "name another file with --output, or move it away")
    values, found = propose(paths, output, name)
    config = parse_config(values, source="vecbeam init", folder=output.resolve().parent)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_values(output, values)
    return "\n".join([*found, f"wrote {output} (alias {config.name})", f"next: vecbeam backfill {output}"])


def propose(paths: list[str], output: Path, name: str | None) -> tuple[dict[str, Any], list[str]]:
    """A configuration for some files, folders or globs, and what was found, a line each.

    Args:
        output: where it would stand; local paths below its folder become relative.
    """
    globs = [glob for path in paths for glob in _globs(path)]
    absolute = [glob if not is_local(glob) else str(Path(glob).expanduser().absolute()) for glob in globs]
    files = list_corpus(Corpus(paths=absolute))
    corpus: dict[str, Any] = {"paths": [_relative(glob, output) for glob in globs]}
    found = [f"{len(files)} files, {sum(f.size for f in files) / 1e6:,.1f} MB: {_formats(files)}"]
    records = _records(files)
    if records:
        corpus |= _fields(records)
        found.append(f"id: {corpus['id']}; content: {', '.join(corpus['content'])}")
    else:
        found.append("each file is an item; its path is the id")
    values = {
        "name": name or _name(paths[0]),
        "corpus": corpus,
        "chunk": {"max_tokens": 256, "overlap_tokens": 32},
        "encoder": {"model": "all-MiniLM-L6-v2", "precision": "float32"},
        "checkpoint": "checkpoint",
        "collection": {
            "uri": "./milvus.db",
            "metric": "COSINE",
            "index": {"type": "HNSW", "M": 16, "efConstruction": 200},
        },
    }
    return values, found


def write_values(output: Path, values: dict[str, Any]) -> None:
    """Writes a configuration, with the line that lets editors complete and check it."""
    body = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    filesystem.write_atomic(str(output.absolute()), f"# yaml-language-server: $schema={SCHEMA_URL}\n{body}".encode())


def _globs(path: str) -> list[str]:
    """A file or glob as it is; a folder as one glob for each suffix that is in it."""
    if not is_local(path) or not Path(path).expanduser().is_dir():
        return [path]
    suffixes: Counter[str] = Counter()
    nested = False
    folder = Path(path).expanduser()
    for file in folder.rglob("*"):
        suffix = "".join(file.suffixes[-2:]) if file.suffix in _COMPRESSED else file.suffix
        if file.is_file() and not file.name.startswith(".") and suffix.split(".")[1:2]:
            plain = "." + suffix.split(".")[1]
            if plain.lower() in FORMAT_OF_SUFFIX:
                suffixes[suffix] += 1
                nested = nested or file.parent != folder
    if not suffixes:
        known = " ".join(FORMAT_OF_SUFFIX)
        raise ConfigurationError(f"{path} holds no file of a known suffix", f"known are {known}; or name a glob")
    pattern = "**/*" if nested else "*"
    return [f"{path.rstrip('/')}/{pattern}{suffix}" for suffix in sorted(suffixes)]


def _relative(glob: str, output: Path) -> str:
    if not is_local(glob) or Path(glob).expanduser().is_absolute():
        return glob
    here = output.resolve().parent
    absolute = Path(glob).absolute()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)


def _formats(files: list[SourceFile]) -> str:
    counts = Counter(file.format + (f" ({file.compression})" if file.compression else "") for file in files)
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def _records(files: list[SourceFile]) -> list[dict[str, Any]]:
    for file in files:
        if file.format in ("jsonl", "csv", "parquet") and (records := first_records(file, _SAMPLE_RECORDS)):
            return records
    return []


def _fields(records: list[dict[str, Any]]) -> dict[str, Any]:
    names = list(dict.fromkeys(name for record in records for name in record))
    values = {name: [r[name] for r in records if r.get(name) is not None] for name in names}
    content = [n for n in _CONTENT_NAMES if n in values and all(isinstance(v, str) for v in values[n])]
    if not content:
        texts = {n: sum(map(len, v)) / len(v) for n, v in values.items() if v and all(isinstance(x, str) for x in v)}
        content = sorted(texts, key=lambda n: texts[n])[-1:]
    if not content:
        raise ConfigurationError(
            f"no field holds text; the records have: {', '.join(names) or 'no fields'}",
            "write the configuration by hand and name corpus.content",
        )
    unique = [n for n in names if len(values[n]) == len(records) and len(set(map(str, values[n]))) == len(records)]
    ids = [n for n in _ID_NAMES if n in unique] or [n for n in unique if n not in content]
    if not ids:
        raise ConfigurationError(
            f"no field is different in each of the first {len(records)} records, so none can be the id",
            "add ids to the corpus",
        )
    metadata = {n: _type(values[n]) for n in names if n not in (ids[0], *content, *RESERVED_COLUMNS) and _is_column(n)}
    found: dict[str, Any] = {"id": ids[0], "content": content}
    if kept := {n: t for n, t in metadata.items() if t}:
        found["metadata"] = kept
    return found


def _is_column(name: str) -> bool:
    return bool(_PLAIN_NAME.match(name))


def _type(values: list[Any]) -> str | None:
    """The metadata type that all sampled values have; None for mixed, nested or long ones."""
    if not values:
        return None
    if all(isinstance(v, bool) for v in values):
        return "bool"
    if all(isinstance(v, int) and not isinstance(v, bool) for v in values):
        return "int"
    if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
        return "float"
    if all(isinstance(v, str) and len(v.encode()) <= _CATEGORY_BYTES for v in values):
        return "string"
    return None


def _name(path: str) -> str:
    stem = Path(path.rstrip("/").split("*")[0].rstrip("/") or "corpus").name.split(".")[0]
    cleaned = re.sub(r"[^A-Za-z0-9_]+", "_", stem).strip("_") or "corpus"
    return f"corpus_{cleaned}" if cleaned[0].isdigit() else cleaned
