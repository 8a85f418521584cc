"""docs/configuration.md, generated from the models of `schemas.config`.

    python -m schemas.config.reference

rewrites it; a test fails where the file is not what this module makes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from schemas import milvus
from schemas.config import (
    RESERVED_COLUMNS,
    AutoIndex,
    ChunkConfig,
    Collection,
    Config,
    Corpus,
    Cost,
    Csv,
    EmbeddingServer,
    EncoderConfig,
    FitConfig,
    HashedId,
    IndexConfig,
    MetadataField,
    Pages,
    Runner,
    Verify,
    Zilliz,
)

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"

SECTIONS: dict[str, type[BaseModel]] = {
    "": Config,
    "corpus": Corpus,
    "corpus.id": HashedId,
    "corpus.metadata.NAME": MetadataField,
    "corpus.csv": Csv,
    "corpus.pages": Pages,
    "chunk": ChunkConfig,
    "encoder": EncoderConfig,
    "encoder.server": EmbeddingServer,
    "encoder.fit": FitConfig,
    "collection": Collection,
    "collection.index": IndexConfig,
    "collection.index: auto": AutoIndex,
    "collection.zilliz": Zilliz,
    "verify": Verify,
    "runner": Runner,
    "runner.cost": Cost,
}
"""Path of each section's keys, and its model."""

_INTRODUCTION = """\
# Configuration

Generated from the models in `schemas/config/` by `python -m schemas.config.reference`. Do not edit it manually.

A configuration is one YAML file. `vecbeam init PATHS` writes one for a corpus. It needs at least:

```yaml
name: docs
corpus: {paths: ["docs/*.jsonl"]}
checkpoint: checkpoint
collection: {uri: ./milvus.db}
```

These rules hold everywhere:

- Unknown keys and values of another type are errors. vecbeam reports all of them at once, before it reads anything.
- A local path is relative to the folder of the file. A path with `://` is a URI of a filesystem that Beam knows.
- vecbeam replaces `${NAME}` in a string with the environment variable NAME. A variable that is not set is an error.
- `--set key=value` overrides a key for one run, in YAML syntax: `--set encoder.precision=bfloat16`,
  `--set 'corpus.paths=["a/*.jsonl"]'`, `--set chunk=false`.
- A duplicate key is an error.
- Secrets have no key. vecbeam reads the token of a Milvus server from the environment variable `MILVUS_TOKEN`.
"""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


_NOTES = {
    "": "The top level of the file.",
    "corpus": (
        "Which files vecbeam reads. JSONL, CSV, TSV and Parquet files hold many items, with fields. In text, Markdown, "
        "HTML and PDF files each file is an item: its path is the id, its text the content. Such an item has no "
        "metadata except for partitions of the path and the front matter of Markdown.\n\n"
        "Wherever a key names a field (`id`, `content`, `from`), `doc.text` is the field `text` of the object `doc` in "
        "JSON, or of the struct `doc` in Parquet. A field whose full name is `doc.text` takes precedence.\n\n"
        "Globs: `*`, `?` and `[...]` stay within one name and do not match a leading dot; `**` crosses folders. The "
        "glob's root is the folder before its first wildcard. `[*]`, `[?]` and `[[]` match the characters themselves: "
        "`data [[]v1]/*.txt` matches the files in the folder `data [v1]`. Only `paths` has globs: in `checkpoint`, "
        "`encoder.model`, `collection.uri` and the configuration's own folder these characters have no special "
        "meaning. If a path with such characters matches nothing as a glob but is the name of a file, vecbeam reads "
        "that file. If it is both, vecbeam refuses it.\n\n"
        "vecbeam reads only regular files and links to them. A pipe, a socket or a device that a glob matches is a "
        "reject (`UnreadableFile`); vecbeam refuses one that `paths` names. It also refuses a folder where it expects "
        "a file, such as a `docs.parquet/` of parts. Plans and reports list what vecbeam leaves out: hidden files and "
        "folders, `_SUCCESS` and other markers of jobs, keys of object stores that end in a slash, and files of the "
        "checkpoint or of Milvus Lite, which it never reads as a corpus.\n\n"
        "A path that is an id is used unchanged; a backslash is an ordinary character. In a path with bytes that are "
        "not valid UTF-8, vecbeam writes each such byte as `\\udc` and its two hexadecimal digits, and a backslash as "
        "two, so that different names have different ids. On object stores a name must not have a line break, which "
        "Beam does not support."
    ),
    "corpus.metadata.NAME": (
        "Each entry of `corpus.metadata` is a column. `author: string` is short for `author: {type: string}`. A column "
        "may have another name than its field: `score_: {from: score, type: float}`.\n\n"
        f"These names are reserved: {_listed(RESERVED_COLUMNS)} for columns of each row, "
        f"{_listed(milvus.RESULT_NAMES)} "
        "for each search result.\n\n"
        + "\n\n".join(
            f"With {server} these are reserved too: {_listed(sorted(milvus.SYSTEM_FIELDS[server]))} for its own "
            f"fields, and for its filter language {_listed(sorted(milvus.FILTER_KEYWORDS[server]))}, "
            + ("in any case." if server == milvus.LITE else "in lower or upper case.")
            for server in (milvus.LITE, milvus.SERVER)
        )
        + f"\n\nReports and plans warn of {_listed(sorted(milvus.LATER_KEYWORDS))} on a server: some releases from 2.6 "
        "on can't filter by columns of these names."
        + "\n\nHive partitions, folders such as `year=2024/`, become a column with `partition`: "
        "`year: {partition: year, type: int}`. vecbeam parses the value as in CSV. `%20` is a space, and "
        "`__HIVE_DEFAULT_PARTITION__` is null.\n\n"
        "The YAML between two lines of `---` at the beginning of a Markdown file is its front matter. Its keys are the "
        "file's fields; vecbeam does not embed it. At the end of a run vecbeam lists the columns that are null in "
        "every row."
    ),
    "corpus.id": (
        "`corpus.id: {hash: [question, answer]}` is for a corpus without ids. The id is 32 hex digits of the SHA-256 "
        "of the fields' values. A record whose fields change is another item: the next sync deletes the old one and "
        "embeds the new one."
    ),
    "corpus.csv": (
        "How CSV and TSV files are written, where their suffix does not tell. With `quoting: auto`, vecbeam looks at "
        "each whole file that has tabs between its fields before reading it, so that the decision does not depend on "
        "how the file is split."
    ),
    "corpus.pages": "Pages of PDF files as images; see [Encoders](encoders.md#pages-of-pdf-files).",
    "chunk": "How vecbeam splits a long text. `chunk: false` turns splitting off. A text within the limit is one "
    "chunk.",
    "encoder": "Which model makes the vectors. [Encoders](encoders.md) has the details.",
    "collection.zilliz": (
        "Zilliz Cloud imports the parts from the checkpoint's bucket, through its REST API, with `load: import`. "
        "The keys stay in the environment: `ZILLIZ_API_KEY`, `ZILLIZ_STORAGE_ACCESS_KEY`, "
        "`ZILLIZ_STORAGE_SECRET_KEY`; see [operations](operations.md#import)."
    ),
    "encoder.server": (
        "An embedding server of the protocol `POST /v1/embeddings`. The key stays in the environment. "
        "[Embedding servers](encoders.md#embedding-servers) has the details."
    ),
    "encoder.fit": (
        "How vecbeam fits a model of the corpus' own terms. Each family has some of these keys, and vecbeam refuses "
        "the others. Another value is another model: `vecbeam reindex` fits it. "
        "[Models that vecbeam fits on the corpus](encoders.md#models-that-vecbeam-fits-on-the-corpus) has the details."
    ),
    "collection": (
        "Where vecbeam publishes the vectors. It creates a collection with a generated name and moves the alias, which "
        "is the top-level `name`, to it."
    ),
    "collection.index": (
        "Build parameters are keys next to the type: `index: {type: HNSW, M: 16, efConstruction: 200}`."
    ),
    "collection.index: auto": (
        "vecbeam chooses the index: `index: auto`, or `index: {type: auto, memory_gb: 8, filters: [...]}`. "
        "[An index by measurement](operations.md#an-index-by-measurement) has the details."
    ),
    "verify": "The gate that a collection must pass before the alias moves to it.",
    "runner": (
        "All keys in the table are vecbeam's. All others are Beam's pipeline options, under the names of Beam's Python "
        "options (`project`, `temp_location`, `s3_endpoint_url`). vecbeam refuses a key that Beam does not know. Set a "
        "switch to `true`."
    ),
    "runner.cost": "Prices for `vecbeam plan`, which assumes that each worker is as fast as the machine that plans.",
}


def page() -> str:
    """The whole page as Markdown."""
    parts = [_INTRODUCTION]
    for path, model in SECTIONS.items():
        parts.append(f"## {path or 'Top level'}\n\n{_NOTES[path]}\n\n{_table(_rows(model))}")
        if model is IndexConfig:
            parts.append(_index_parameters())
    return "\n".join(parts)


def _rows(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    yield "key", "type", "default", "description"
    properties = model.model_json_schema()["properties"]
    for field_name, field in model.model_fields.items():
        name = field.alias or field_name
        yield f"`{name}`", _type(properties[name]), _default(field), (field.description or _section(name)).rstrip(".")


def _section(name: str) -> str:
    return f"See [{name}](#{name})"


def _type(schema: Mapping[str, Any]) -> str:
    """A JSON Schema property in words."""
    if "$ref" in schema:
        return "section"
    if either := schema.get("anyOf") or schema.get("oneOf"):
        kinds = [_type(kind) for kind in either if kind.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kinds_in_words = {"integer": "whole number", "boolean": "true or false", "array": "list", "object": "mapping"}
    kind = kinds_in_words.get(schema["type"], str(schema["type"]))
    if kind == "list":
        return f"list of {_type(schema['items'])}s"
    if pattern := schema.get("pattern"):
        return f"{kind} that matches `{pattern}`"
    return kind + _range(schema)


def _range(schema: Mapping[str, Any]) -> str:
    bounds = (("minimum", "at least"), ("exclusiveMinimum", "more than"), ("maximum", "at most"))
    said = [f"{words} {_number(schema[key])}" for key, words in bounds if key in schema]
    return f", {' and '.join(said)}" if said else ""


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None:
        return "none"
    if isinstance(value, BaseModel):
        shown = value.model_dump(exclude_none=True)
        return f"`{json.dumps(shown)}`" if len(shown) <= 2 else "the section's own"
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"


def _table(rows: Iterator[tuple[str, ...]]) -> str:
    head, *body = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _index_parameters() -> str:
    def rows() -> Iterator[tuple[str, ...]]:
        yield "type", "build parameters", "search parameters, in `collection.search`"
        for kind, parameters in milvus.INDEX_PARAMETERS.items():
            yield (
                f"`{kind}`",
                _parameters(parameters, milvus.INDEX_DEFAULTS[kind]),
                _parameters(milvus.SEARCH_PARAMETERS[kind], milvus.SEARCH_DEFAULTS[kind]),
            )

    return f"Parameters, with their range and default:\n\n{_table(rows())}"


def _parameters(ranges: Mapping[str, tuple[int, int]], defaults: Mapping[str, int]) -> str:
    said = [f"`{name}` {low} to {high} ({defaults[name]})" for name, (low, high) in ranges.items()]
    return ", ".join(said) or "none"


def main() -> None:
    """Rewrites the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
