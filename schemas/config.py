"""The configuration file: pydantic models of the YAML. Every mistake is refused here, before anything is read.

Loading (files, `--set`, environment) is in `schemas.settings`.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    field_validator,
    model_validator,
)

from schemas import collection as milvus

MetadataType = Literal["string", "int", "float", "bool"]
FORMATS = ("jsonl", "csv", "parquet", "text", "markdown", "html", "pdf")
RESERVED_COLUMNS = (
    "id",
    "item_id",
    "chunk",
    "text",
    "uri",
    "start",
    "end",
    "content_hash",
    "vector",
    "tokens",
    "tokens_dropped",
)
_SECRET = re.compile(
    r"secret|passw(or)?d|passphrase|token|credential|connection_?string|shared_access|(^|_)sas(_|$)"
    r"|(access|account|private|api|shared)_?key",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(
    r"AccountKey=|SharedAccess(Key|Signature)=|[?&]sig=|PRIVATE KEY-----|^\w+://[^/@\s]*:[^/@\s]+@", re.IGNORECASE
)
_SECRETS_PLACE = {
    "azure": "AZURE_STORAGE_CONNECTION_STRING, which Beam reads",
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or AWS_PROFILE",
}
_COLUMN_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,254}$")

Text = Annotated[str, StringConstraints(min_length=1)]


class Model(BaseModel):
    """Strict base: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class MetadataField(Model):
    """One typed, filterable column. `author: string` is short for `author: {type: string}`.

    `source` is the key `from`, which Python keeps for itself.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_by_name=True, serialize_by_alias=True)

    type: MetadataType = Field(description="string, int (64 bit), float (64 bit) or bool")
    source: Text | None = Field(
        None,
        alias="from",
        description="Field of the record that the values come from; without it the one of the column's own name. "
        "`a.b` is the field `b` of the object `a`",
    )
    partition: Text | None = Field(
        None,
        description="Takes the value from the file's path in place of the record: `year` is 2024 for a file below a "
        "folder `year=2024`, and null where there is no such folder",
    )
    default: str | int | float | bool | None = Field(
        None,
        description="What the collection holds where an item does not have the field; without it the value is null",
    )
    max_bytes: int = Field(
        4096, ge=1, le=65535, description="Largest value of a string in UTF-8 bytes; a longer one rejects its item"
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_source(self) -> MetadataField:
        if self.source is not None and self.partition is not None:
            raise ValueError(
                f"from {self.source!r} names a field of the record and partition {self.partition!r} a folder of the "
                "path; a column has one source, leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _default_fits(self) -> MetadataField:
        wanted: dict[str, tuple[type, ...]] = {"string": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}
        if self.default is not None and (
            not isinstance(self.default, wanted[self.type]) or (isinstance(self.default, bool) and self.type != "bool")
        ):
            raise ValueError(f"default {self.default!r} is not of type {self.type}")
        return self


class HashedId(Model):
    """An id made from the item's content: the same fields with the same values have the same id."""

    hash: list[Text] = Field(
        min_length=1,
        description="Fields whose values the id is made from. Two records in which all of them are equal are one item",
    )

    @field_validator("hash", mode="before")
    @classmethod
    def _one_field(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("hash")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        if twice := [name for name in value if value.count(name) > 1]:
            raise ValueError(f"names {twice[0]!r} more than once; name each field once")
        return value


def _kind_of_id(value: Any) -> str:
    return "HashedId" if isinstance(value, (dict, HashedId)) else "FieldId"


Id = Annotated[Annotated[Text, Tag("FieldId")] | Annotated[HashedId, Tag("HashedId")], Discriminator(_kind_of_id)]


class Csv(Model):
    """How CSV and TSV files are written, where they are not as their suffix says."""

    delimiter: Text | None = Field(
        None,
        description='One character between fields, e.g. ; or |; "\\t" or the word tab for a tab. Without it a tab in '
        "files that end in .tsv, a comma in others",
    )
    quoting: Literal["auto", "quoted", "none"] = Field(
        "auto",
        description="quoted: a field in double quotes may hold delimiters, doubled quotes and line ends (RFC 4180); "
        "none: a quote is a letter like any other, and each line is a record. auto is quoted, but none for each file "
        "between tabs of which fewer records are broken that way",
    )
    escape: Text | None = Field(
        None, description="One character that makes the next one a letter, e.g. a backslash; without it there is none"
    )
    encoding: Text | None = Field(None, description="Overrides corpus.encoding for CSV and TSV files")

    @field_validator("delimiter", mode="before")
    @classmethod
    def _named_tab(cls, value: Any) -> Any:
        return "\t" if value in ("tab", "\\t") else value

    @field_validator("delimiter", "escape")
    @classmethod
    def _one_character(cls, value: str | None) -> str | None:
        if value is not None and (len(value) != 1 or value in '"\r\n\0'):
            raise ValueError(f"{value!r} is not one character other than a double quote, a line end or NUL")
        return value

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str | None) -> str | None:
        return _known_encoding(value)

    @model_validator(mode="after")
    def _different(self) -> Csv:
        if self.escape is not None and self.escape == self.delimiter:
            raise ValueError(f"escape and delimiter are both {self.escape!r}; they have to differ")
        return self


def _known_encoding(value: str | None) -> str | None:
    if value is not None:
        try:
            "".encode(value)
            if not isinstance(b"".decode(value), str):
                raise LookupError
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(
                f"{value!r} is not a text encoding that Python knows; write e.g. utf-8, windows-1252, utf-16, shift_jis"
            ) from error
    return value


class Corpus(Model):
    paths: list[Text] = Field(
        min_length=1,
        description="Globs on any filesystem that Beam knows; local paths are relative to the configuration file",
    )
    format: Literal["jsonl", "csv", "parquet", "text", "markdown", "html", "pdf"] | None = Field(
        None, description="Optional where the suffix tells; compression (.gz, .zst, .bz2) always goes by the suffix"
    )
    id: Id = Field(
        "id",
        description="Field with the item's id, or `{hash: [question, answer]}`: an id made from those fields' values. "
        "Where a file is an item, its path under the glob's root is the id",
    )
    content: list[Text] = Field(
        ["text"], min_length=1, description="Fields that are embedded, joined by a blank line; empty ones are left out"
    )
    metadata: dict[str, MetadataField] = Field(
        default_factory=dict, description="Fields that Milvus gets as typed, filterable columns"
    )
    on_duplicate: Literal["error", "first", "last"] = Field(
        "error", description="Two items with one id: stop and say where, or keep the first or last in corpus order"
    )
    max_deleted: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Most items that a run may delete, as a share of those there were; more needs --allow-deletes",
    )
    shard_bytes: int = Field(
        64 << 20,
        ge=1024,
        description="Files larger than this are split among workers; smaller ones are grouped up to it",
    )
    encoding: Text | None = Field(
        None,
        description="Encoding of text files, e.g. windows-1252 or shift_jis; UTF-8 without it, and for HTML what the "
        "page declares. A byte order mark of UTF-8, UTF-16 or UTF-32 goes before it",
    )
    csv: Csv = Field(default_factory=lambda: Csv(), description="How CSV and TSV files are written")

    @field_validator("encoding")
    @classmethod
    def _text_encoding(cls, value: str | None) -> str | None:
        return _known_encoding(value)

    @field_validator("content", mode="before")
    @classmethod
    def _one_field(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("paths", mode="before")
    @classmethod
    def _one_path(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("metadata")
    @classmethod
    def _column_names(cls, value: dict[str, MetadataField]) -> dict[str, MetadataField]:
        for name in value:
            if name in RESERVED_COLUMNS:
                raise ValueError(
                    f"{name!r} is a column that every row has; {_rename(name)} "
                    f"(reserved: {', '.join(RESERVED_COLUMNS)})"
                )
            if name in milvus.RESULT_NAMES:
                raise ValueError(f"{name!r} can't be a column: {milvus.refusal(name, milvus.SERVER)}; {_rename(name)}")
            if not _COLUMN_NAME.match(name):
                raise ValueError(
                    f"{name!r} is not a valid Milvus field name, which has letters, digits and underscores; "
                    f"{_rename(name)}"
                )
        return value

    @property
    def id_fields(self) -> list[str]:
        """The fields that the id is, or is made from."""
        return [self.id] if isinstance(self.id, str) else list(self.id.hash)

    def source_of(self, column: str) -> str | None:
        """The field of the record that a metadata column comes from; None where it comes from the path."""
        field = self.metadata[column]
        return None if field.partition is not None else field.source or column


def _rename(name: str) -> str:
    """How to give a column another name than its field."""
    column = suggested_column(name)
    return f"rename it, for example {column}: {{from: {_quoted(name)}, type: string}}, or leave it out"


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", name) and name.lower() not in _YAML_WORDS else repr(name)


_YAML_WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")


def suggested_column(name: str) -> str:
    """A column name for a field whose own name can't be one.

    >>> suggested_column("score"), suggested_column("doc.lang"), suggested_column("2nd author")
    ('score_', 'doc_lang', '_2nd_author')
    """
    column = re.sub(r"[^A-Za-z0-9_]+", "_", name)[:200] or "field"
    column = f"_{column}" if column[0].isdigit() else column
    return column if column != name or _COLUMN_NAME.match(name) is None else f"{column}_"


class Chunk(Model):
    max_tokens: int = Field(
        256, ge=8, description="Most tokens of a chunk, special tokens included; the model's own limit also holds"
    )
    overlap_tokens: int = Field(32, ge=0, description="Tokens that a chunk may share with the one before")

    @model_validator(mode="after")
    def _overlap_fits(self) -> Chunk:
        if self.overlap_tokens * 2 > self.max_tokens:
            raise ValueError(
                f"overlap_tokens {self.overlap_tokens} is more than half of max_tokens {self.max_tokens}; lower it"
            )
        return self


class Encoder(Model):
    model: Text = Field("all-MiniLM-L6-v2", description="A catalogue name, a hub id (with revision), or a folder")
    revision: Text | None = Field(None, description="Commit of the hub repository; needed for a hub id")
    precision: Literal["float32", "bfloat16", "int8"] = Field(
        "float32",
        description="float32: cosine at least 0.99999 to the library's own vectors, with every engine; bfloat16 is "
        "faster where the processor has it (float16 on a GPU that has not); int8 needs OpenVINO and loses a little. "
        "No part of the space",
    )
    engine: Literal["auto", "torch", "openvino", "amx"] = Field(
        "auto",
        description="auto takes, on a CPU, amx where the processor has AMX and the model is of BERT's kind, else "
        "OpenVINO where it is installed and knows the model, else torch. torch computes with the library's own "
        "arithmetic; amx builds float32 from products of int8",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU where the worker has one")
    accelerator: Text | None = Field(
        None,
        description="Beam resource hint of the embedding step, e.g. type:nvidia-tesla-t4;count:1;install-nvidia-driver",
    )
    prompt: str | None = Field(
        None,
        description="Put before each text of the corpus; without it the model's own document prompt, if it has one",
    )
    query_prompt: str | None = Field(
        None, description="Put before each query; without it the model's own query prompt, if it has one"
    )
    max_tokens: int | None = Field(None, ge=8, description="Lowers the model's own length limit")
    dimensions: int | None = Field(
        None, ge=1, description="Keeps the first n numbers of each vector (Matryoshka models)"
    )
    normalize: bool = Field(True, description="Scales each vector to length 1, after dimensions were cut")
    batch_tokens: int | None = Field(
        None,
        ge=64,
        description="Most tokens, padding included, that go through the model at once; without it what "
        "fits the engine: 2048 on a CPU (4096 with amx), 65536 on a GPU",
    )

    @model_validator(mode="after")
    def _engine_fits(self) -> Encoder:
        if self.precision == "int8" and self.engine in ("torch", "amx"):
            raise ValueError("precision int8 runs on OpenVINO: take engine: openvino, or precision: bfloat16")
        if self.device == "cuda" and (self.precision == "int8" or self.engine in ("openvino", "amx")):
            raise ValueError("OpenVINO, amx and int8 run on CPUs: take device: cpu, or engine: torch with bfloat16")
        return self


class Index(Model):
    """The vector index. Parameters stand beside the type: {type: HNSW, M: 16, efConstruction: 200}."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    type: Literal["AUTOINDEX", "FLAT", "HNSW", "IVF_FLAT", "IVF_SQ8"] = Field("HNSW", description="Milvus index type")

    @property
    def parameters(self) -> dict[str, int]:
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _parameters_fit(self) -> Index:
        milvus.check_index_parameters(self.type, self.parameters)
        return self


class Collection(Model):
    uri: Text = Field(
        description="A path ending in .db: Milvus Lite, embedded; or http(s)://host:19530, token from MILVUS_TOKEN"
    )
    database: Text | None = Field(None, description="Database of a Milvus server")
    metric: Literal["COSINE", "IP", "L2"] = Field("COSINE", description="Distance of the vector index")
    index: Index = Field(default_factory=lambda: Index(type="HNSW"), description="Type and build parameters")
    search: dict[str, int] = Field(
        default_factory=dict, description="Search parameters that fit the index, e.g. {ef: 64} or {nprobe: 16}"
    )
    id_max_bytes: int = Field(
        512, ge=16, le=65535, description="Longest row id in UTF-8 bytes; a longer one is rejected"
    )
    message_bytes: int = Field(
        16 << 20, ge=65536, le=64 << 20, description="Most bytes of one upsert message (servers refuse over 64 MiB)"
    )
    message_rows: int = Field(2000, ge=1, le=16384, description="Most rows of one upsert message")
    load: Literal["upsert", "import"] = Field(
        "upsert",
        description="How a new collection is filled: upsert sends rows; import lets the server read the parts itself, "
        "from its own disk or its own bucket. Later changes are upserted",
    )
    timeout_s: float = Field(60.0, gt=0, description="Seconds that one call to Milvus may take")
    retry_s: float = Field(120.0, ge=0, description="Seconds for which calls that fail in passing are tried again")

    @field_validator("uri")
    @classmethod
    def _no_secret(cls, value: str) -> str:
        if re.match(r"^https?://[^/]*@", value):
            raise ValueError("carries a user or password; put them into the environment: MILVUS_TOKEN=user:password")
        if not re.match(r"^(https?://[^/]+|[^:]+\.db/?)$", value):
            raise ValueError(f"{value!r} is neither a path that ends in .db (Milvus Lite) nor http(s)://host:port")
        return value

    @property
    def is_lite(self) -> bool:
        return not self.uri.startswith(("http://", "https://"))

    @model_validator(mode="after")
    def _search_fits(self) -> Collection:
        milvus.check_search_parameters(self.index.type, self.search)
        if self.load == "import" and self.is_lite:
            raise ValueError("load import needs a Milvus server, Milvus Lite has no bulk import: take load: upsert")
        return self


class Verify(Model):
    recall_at_10: float = Field(
        0.95, ge=0, le=1, description="Least recall@10 against exact search for the gate to pass"
    )
    sample: int = Field(100, ge=1, le=10000, description="Rows whose neighbours are searched to measure recall")
    max_rejected: float = Field(0.01, ge=0, le=1, description="Most rejects as a share of the items read")
    max_dropped_tokens: float = Field(0.05, ge=0, le=1, description="Most tokens dropped as a share of all tokens")


class Cost(Model):
    """What a pool of workers costs, for `vecbeam plan`."""

    workers: int = Field(1, ge=1, description="Workers that embed at the same time")
    usd_per_hour: float = Field(ge=0, description="Price of one worker, in US dollars per hour")


class Runner(Model):
    """Where the pipeline runs. Keys beside the name are Beam's own pipeline options."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    name: Literal["local", "DirectRunner", "dataflow", "flink", "spark", "portable"] = Field(
        "local", description="local is Beam's in-process runner; portable is any job server, named by job_endpoint"
    )

    cost: Cost | None = Field(None, description="What the workers cost, for vecbeam plan")
    mounted: list[Text] = Field(
        default_factory=list,
        description="Absolute folders that each worker has under the same path: a network share, or files in its "
        "image. Other local paths are refused where workers are other machines",
    )

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    @property
    def is_local(self) -> bool:
        return self.name in ("local", "DirectRunner")

    @property
    def workers_elsewhere(self) -> bool:
        """Whether workers may be other machines: all but the local runner, and Beam's LOOPBACK environment."""
        return not self.is_local and str(self.options.get("environment_type", "")).upper() != "LOOPBACK"

    def refusal(self, key: str, path: str) -> str:
        """What is wrong with a local path that workers would have to read; "" where they reach it."""
        if not self.workers_elsewhere or "://" in path or any(_is_below(path, folder) for folder in self.mounted):
            return ""
        store = "gs://" if self.name == "dataflow" else "gs:// or s3://"
        remedy = (
            "name a model of the catalogue or a hub id with its revision"
            if key == "encoder.model"
            else f"use object storage ({store})"
        )
        here = "" if self.name == "dataflow" else "; where all workers are this machine, set environment_type: LOOPBACK"
        return (
            f"{key} {path!r} is a path of this machine, where workers of runner {self.name} can't reach it: {remedy}; "
            f"or list its folder in runner.mounted where each worker has it under the same absolute path{here}"
        )

    @model_validator(mode="after")
    def _no_secret(self) -> Runner:
        for key, value in self.options.items():
            if _SECRET.search(key) or (isinstance(value, str) and _SECRET_VALUE.search(value)):
                place = _SECRETS_PLACE.get(key.split("_")[0].lower(), "where the store's library looks for it")
                raise ValueError(f"{key} is a secret; put it into the environment ({place})")
        return self

    @field_validator("mounted")
    @classmethod
    def _absolute(cls, value: list[str]) -> list[str]:
        for folder in value:
            if not folder.startswith("/"):
                raise ValueError(f"{folder!r} is not an absolute folder; workers know no other")
        return value


def _is_below(path: str, folder: str) -> bool:
    parts, above = PurePosixPath(path).parts, PurePosixPath(folder).parts
    return ".." not in parts and parts[: len(above)] == above


class Config(Model):
    """A vecbeam configuration: one corpus, one encoder, one collection behind an alias."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,199}$")] = Field(
        description="Alias of the collection and folder of the checkpoint: letters, digits, underscores"
    )
    corpus: Corpus
    chunk: Chunk | Literal[False] = Field(
        default_factory=lambda: Chunk(),
        description="false turns chunking off: one vector an item, tokens over the limit dropped and counted",
    )
    encoder: Encoder = Field(default_factory=lambda: Encoder())
    batch_rows: int = Field(2048, ge=1, le=65536, description="Most items of a batch: the unit of work, retry and part")
    checkpoint: Text = Field(description="Folder of the Parquet checkpoint, on any filesystem that Beam knows")
    collection: Collection
    verify: Verify = Field(default_factory=lambda: Verify())
    runner: Runner = Field(default_factory=lambda: Runner())

    @model_validator(mode="after")
    def _columns_can_be_named(self) -> Config:
        server = milvus.LITE if self.collection.is_lite else milvus.SERVER
        refused = [(name, why) for name in self.corpus.metadata if (why := milvus.refusal(name, server))]
        if refused:
            said = "; ".join(f"{name!r} can't be a column: {why}; {_rename(name)}" for name, why in refused)
            raise ValueError(f"corpus.metadata: {said}")
        return self

    @model_validator(mode="after")
    def _workers_reach_it(self) -> Config:
        if self.runner.is_local:
            return self
        if self.collection.is_lite:
            raise ValueError(
                f"collection.uri {self.collection.uri!r} is Milvus Lite, which lives on one machine; with runner "
                f"{self.runner.name} name a server: http(s)://host:19530"
            )
        paths = [("checkpoint", self.checkpoint), *(("corpus.paths", path) for path in self.corpus.paths)]
        if self.encoder.model.startswith((".", "/", "~")):
            paths.append(("encoder.model", self.encoder.model))
        for key, path in paths:
            if refusal := self.runner.refusal(key, path):
                raise ValueError(refusal)
        return self
