"""From the first records of files to the fields of a configuration: id, content, metadata, and what is left out.

Nothing is proposed that the reader would reject: a field is the id where each sampled record has a string or a whole
number there and all differ; it is content where each record has the field, as text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from schemas.config import RESERVED_COLUMNS, Corpus, suggested_column
from schemas.errors import ConfigurationError
from schemas.milvus import LITE, SERVER, is_later_keyword, refusal
from transforms.read.head import FileSample, flat, is_dated, is_plain
from transforms.read.item import INT64, BadUtf8, ItemChecker, RejectedItemError, partitions_of, shown

ID_NAMES = (
    *("id", "_id", "doc_id", "docid", "document_id", "item_id", "uuid", "guid", "key", "uri", "url", "docno", "pid"),
    *("slug", "sku", "isbn", "doi", "pmid", "permalink", "link", "path", "file_name", "filename", "file"),
)
CONTENT_NAMES = (
    *("title", "headline", "subject", "question", "query", "instruction", "input", "prompt", "context", "text"),
    *("content", "body", "abstract", "description", "summary", "document", "article", "story", "passage", "paragraph"),
    *("sentence", "answer", "response", "reply", "output", "completion", "caption", "review", "comment", "message"),
    *("transcript", "lyrics", "notes", "overview", "synopsis"),
)
CATEGORY_BYTES = 200
"""A string column with longer values is no category to filter by."""
ID_BYTES = 480
MOSTLY = 0.95
"""Share of the records that must have the main text and the id; the rest is broken, and each costs itself."""
COLUMNS = 50
"""Milvus takes 64 fields, of which each row has ten of its own."""
_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_ID_KINDS = {"string", "int", "a whole number over 64 bits", "bytes", "a list"}
"""Kinds that a column of ids may have; of bytes and lists few, as each costs its record."""
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}.*)?|\d{1,2}[./]\d{1,2}[./]\d{2,4}")
_TRUTHS = {"true", "false", "yes", "no"}


@dataclass
class SampledField:
    """What the sampled records have in one field.

    Attributes:
        present: records that have the field, null or not.
        values: that are not null, nor empty in CSV.
        kinds: of those values: int, float, bool, string, or what else they are.
    """

    name: str
    present: int = 0
    values: list[Any] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)

    @property
    def texts(self) -> list[str]:
        return [value for value in self.values if type(value) is str]

    @property
    def is_text(self) -> bool:
        return bool(self.values) and len(self.texts) >= MOSTLY * len(self.values)

    @property
    def type(self) -> str | None:
        """The metadata type that all values have; None for mixed and other ones."""
        kinds = set(self.kinds)
        if kinds == {"int", "float"}:
            return "float"
        if kinds == {"date"} or kinds == {"date", "string"}:
            return "string"
        return next(iter(kinds)) if len(kinds) == 1 and kinds <= {"int", "float", "bool", "string"} else None

    @property
    def mean_length(self) -> float:
        return sum(map(len, self.texts)) / len(self.texts) if self.is_text else 0.0


@dataclass
class Fields:
    """What a configuration says of the records.

    Attributes:
        corpus: keys of `corpus`: id, content, metadata, on_duplicate.
        left_out: fields that are neither id nor content nor metadata, and why.
        files: uris of the files that do not fit, and why.
        notes: what a user should know.
    """

    corpus: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def propose_fields(samples: Sequence[FileSample]) -> Fields:
    """The fields for the files that share them; other files are left out.

    Args:
        samples: of files of records, of which each has some.

    Raises:
        ConfigurationError: where no field of any holds text.
    """
    group = _main_group(samples)
    main, unfit = _less_copies(group)
    chosen = _chosen(main)
    known = _ids(main, chosen)
    taken = list(main)
    for sample in samples:
        if any(sample is one for one in group):
            continue
        if why := _why_unfit(sample, chosen, main[0], known):
            unfit[sample.file.uri] = why
        else:
            taken.append(sample)
            known.update(_ids([sample], chosen))
    found = _chosen(taken) if len(taken) > len(main) else chosen
    found.files = unfit
    return found


def _main_group(samples: Sequence[FileSample]) -> list[FileSample]:
    """The files that have the same fields, of which there is most, and one of which is text."""
    groups: dict[tuple[str, str | None, frozenset[str]], list[FileSample]] = {}
    for sample in samples:
        names = frozenset(name for record in sample.records for name in record)
        groups.setdefault((sample.delimiter, sample.encoding, names), []).append(sample)
    ranked = sorted(groups.values(), key=lambda group: -sum(sample.file.size for sample in group))
    for named in (True, False):
        for group in ranked:
            content, _ = _content(_columns(group), sum(len(sample.records) for sample in group))
            if content and (not named or any(_is_named(name, CONTENT_NAMES) for name in content)):
                return group
    fields = sorted({name for sample in samples for record in sample.records for name, _ in flat(record)})
    twice = sorted({name for sample in samples for name in sample.twice})
    raise ConfigurationError(
        f"no field holds text; the records have: {', '.join(fields) or 'no fields'}"
        + (f", and more than one column each named {', '.join(twice)}" if twice else ""),
        "write the configuration yourself and name the fields that hold text in corpus.content",
    )


def _less_copies(group: list[FileSample]) -> tuple[list[FileSample], dict[str, str]]:
    """The files of a group without those whose records are in a larger one too, and why these are left out."""
    kept: list[FileSample] = []
    known: dict[str, str] = {}
    copies = {}
    for sample in sorted(group, key=_unpacked, reverse=True):
        records = [repr(record) for record in sample.records]
        same = [known[record] for record in records if record in known]
        if len(same) * 2 > len(records):
            copies[sample.file.uri] = f"its records are in {same[0]} too"
            continue
        kept.append(sample)
        known |= dict.fromkeys(records, _name(sample))
    return [sample for sample in group if any(sample is one for one in kept)], copies


def _unpacked(sample: FileSample) -> int:
    return sample.file.size * (4 if sample.file.compression else 1)


def _why_unfit(sample: FileSample, chosen: Fields, main: FileSample, known: Mapping[str, str]) -> str:
    written = (sample.delimiter, sample.encoding)
    if sample.delimiter and main.delimiter and written != (main.delimiter, main.encoding):
        return (
            f"its fields are separated by {sample.delimiter!r} in {sample.encoding or 'UTF-8'}, those of {_name(main)} "
            f"by {main.delimiter!r} in {main.encoding or 'UTF-8'}, and corpus.csv holds for all"
        )
    check = _checker(sample, chosen)
    reasons: list[str] = []
    for record in sample.records:
        try:
            check(record)
        except RejectedItemError as error:
            reasons.append(error.reason)
    if len(reasons) * 2 > len(sample.records):
        return f"{len(reasons)} of its first {len(sample.records)} records would be rejected: {reasons[0]}"
    same = [item_id for item_id in _ids([sample], chosen) if item_id in known]
    if same and isinstance(chosen.corpus["id"], str):
        return f"its ids are ids of {known[same[0]]} too, for example {same[0]!r}"
    return ""


def _checker(sample: FileSample, chosen: Fields) -> ItemChecker:
    corpus = Corpus(paths=["."], id=chosen.corpus["id"], content=chosen.corpus["content"])
    return ItemChecker(corpus, sample.file.uri)


def _ids(samples: Sequence[FileSample], chosen: Fields) -> dict[str, str]:
    """Ids of the sampled records, with the name of the file that each is in."""
    found: dict[str, str] = {}
    for sample in samples:
        check = _checker(sample, chosen)
        for record in sample.records:
            if item_id := check.known_id(record):
                found.setdefault(item_id, _name(sample))
    return found


def _name(sample: FileSample) -> str:
    return sample.file.uri.rsplit("/", 1)[-1]


def _columns(samples: Sequence[FileSample]) -> dict[str, SampledField]:
    columns: dict[str, SampledField] = {}
    for sample in samples:
        is_csv = sample.file.format == "csv"
        texts: dict[str, list[str]] = {}
        for record in sample.records:
            for name, value in flat(record):
                if not name:
                    continue
                column = columns.setdefault(name, SampledField(name))
                column.present += 1
                if value is None or isinstance(value, BadUtf8) or (is_csv and value == ""):
                    continue
                column.values.append(value)
                if is_csv:
                    texts.setdefault(name, []).append(value.strip())
                else:
                    dated = name in sample.kinds and is_dated(sample.kinds[name])
                    column.kinds["date" if dated else _kind(value)] += 1
        for name, values in texts.items():  # a column of a CSV file has one type, whatever its values would be alone
            columns[name].kinds[_csv_kind(values)] += len(values)
    for name, column in columns.items():  # a field that is a value here and an object there
        if column.values and any(other.startswith(f"{name}.") for other in columns):
            column.kinds["an object"] += 1
    return columns


def _kind(value: Any) -> str:
    if type(value) is int and value not in INT64:
        return "a whole number over 64 bits"
    kinds = {
        bool: "bool",
        int: "int",
        float: "float",
        Decimal: "float",
        list: "a list",
        dict: "an object",
        bytes: "bytes",
    }
    return "string" if isinstance(value, str) else kinds.get(type(value), type(value).__name__)


def _csv_kind(values: Sequence[str]) -> str:
    if all(_WHOLE.fullmatch(value) for value in values):
        return "int"
    if all(_NUMBER.fullmatch(value) for value in values):
        return "float"
    if all(value.lower() in _TRUTHS for value in values):
        return "bool"
    return "date" if all(_DATE.fullmatch(value) for value in values) else "string"


def _chosen(samples: Sequence[FileSample]) -> Fields:
    columns = _columns(samples)
    total = sum(len(sample.records) for sample in samples)
    content, notes = _content(columns, total)
    found = Fields(notes=notes)
    identity, why = _id_column(columns, total, content)
    if identity is None:
        found.corpus["id"] = {"hash": content}
        found.corpus["on_duplicate"] = "first"
        found.notes.append(
            f"{why}, so ids are made from {', '.join(content)} (corpus.id.hash); of records in which these are equal "
            "the first one counts (corpus.on_duplicate)"
        )
    else:
        found.corpus["id"] = identity
    found.corpus["content"] = content
    found.notes += [note for sample in samples if (note := _headless(sample))]
    kinds = {name: kind for sample in samples for name, kind in sample.kinds.items()}
    metadata = _metadata(columns, kinds, found, samples)
    if metadata:
        found.corpus["metadata"] = metadata
    return found


def _headless(sample: FileSample) -> str:
    """Says where the first line of a CSV file looks like a record."""
    header = list(sample.records[0]) if sample.file.format == "csv" and sample.records else []
    if not any(_NUMBER.fullmatch(name) or _DATE.fullmatch(name) for name in header):
        return ""
    shown_names = ", ".join(shown(name, 20) for name in header[:4])
    return (
        f"the first line of {_name(sample)} is taken for the names of its fields ({shown_names}); if it is a record, "
        "put a line with names above it"
    )


def _content(columns: Mapping[str, SampledField], total: int) -> tuple[list[str], list[str]]:
    """The fields to embed, in order of their names' sense, and what is to be said of them."""
    texts = {
        name: column
        for name, column in columns.items()
        if column.is_text
        and column.present >= MOSTLY * total
        and column.kinds["string"] >= MOSTLY * column.kinds.total()
    }
    longest = max(texts.values(), key=lambda column: column.mean_length, default=None)
    strict = [
        name for name, column in texts.items() if column.present == total and len(column.texts) == len(column.values)
    ]
    named = [name for wanted in CONTENT_NAMES for name in texts if _is_named(name, (wanted,))]
    content = [name for name in named if name in strict or texts[name] is longest]
    if longest is not None and longest.name not in content:
        alone = not content and not _looks_like_ids(longest) and not _is_named(longest.name, ID_NAMES)
        long = sum(texts[name].mean_length for name in content)
        if alone or (content and longest.mean_length > max(100, 2 * long) and _is_prose(longest)):
            content.append(longest.name)
    notes = [
        f"{name} is not in corpus.content, as {total - column.present} of the first {total} records have no such field"
        for name, column in columns.items()
        if column.is_text and column.present < total and _is_named(name, CONTENT_NAMES) and name not in content
    ]
    return list(dict.fromkeys(content)), notes


def _is_named(name: str, wanted: Sequence[str]) -> bool:
    return name.rpartition(".")[2].strip().lower() in wanted


def _id_column(columns: Mapping[str, SampledField], total: int, content: Sequence[str]) -> tuple[str | None, str]:
    """The id's field; where there is none, why."""
    able = [column for column in columns.values() if column.name not in content and _could_be_id(column, total)]
    unique = [column for column in able if len(set(map(str, column.values))) == len(column.values)]
    ranked = [column for wanted in ID_NAMES for column in unique if _is_named(column.name, (wanted,))]
    ranked += [column for column in unique if re.search(r"[_ -][iI][dD]$|[a-z]I[dD]$", column.name)]
    ranked += [column for column in unique if set(column.kinds) == {"string"} and _looks_like_ids(column)]
    if ranked:
        return ranked[0].name, ""
    for column in able:
        if _is_named(column.name, ID_NAMES):
            value, count = Counter(map(str, column.values)).most_common(1)[0]
            return None, f"{column.name!r} is not unique ({count} of the first {total} records have {shown(value)})"
    return None, "no field has a different string or whole number in each record"


def _could_be_id(column: SampledField, total: int) -> bool:
    usable = [value for value in column.values if type(value) in (str, int) and value != ""]
    if not total or len(usable) < MOSTLY * total or not set(column.kinds) <= _ID_KINDS:
        return False
    return all(len(str(value).encode("utf-8", "replace")) <= ID_BYTES and "\0" not in str(value) for value in usable)


def _is_prose(column: SampledField) -> bool:
    """Whether values are more than one word, or of a script without spaces."""
    return sum(len(text.split()) > 1 or not text.isascii() for text in column.texts) * 2 > len(column.texts)


def _looks_like_ids(column: SampledField) -> bool:
    return all(
        len(value) <= 64 and re.fullmatch(r"\S*[0-9_/:-]\S*", value) and not _DATE.fullmatch(value)
        for value in column.texts
    )


def _metadata(
    columns: Mapping[str, SampledField], kinds: Mapping[str, Any], found: Fields, samples: Sequence[FileSample]
) -> dict[str, Any]:
    used = {*found.corpus["content"]}
    if isinstance(found.corpus["id"], str):
        used.add(found.corpus["id"])
    metadata: dict[str, Any] = {}
    for name, column in columns.items():
        if name in used:
            continue
        if why := _why_no_column(column):
            found.left_out[name] = why
        elif len(metadata) == COLUMNS:
            found.left_out[name] = f"{COLUMNS} columns are proposed at most, as Milvus takes 64 fields"
        else:
            add_column(metadata, name, str(column.type))
    for name in dict.fromkeys(name for sample in samples for name in sample.twice):
        found.left_out[name] = "two columns have this name"
    for name, kind in kinds.items():
        if name not in found.left_out and not is_plain(kind):
            found.left_out[name] = f"{_article(str(kind))}: a column is a string, number or truth value"
    return metadata


def add_column(metadata: dict[str, Any], name: str, kind: str, **more: Any) -> str:
    """Adds a column for a field, under another name where its own can't be one; returns the column's name."""
    column = name
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,254}", name) or name in RESERVED_COLUMNS or _is_refused(name):
        column = suggested_column(name)
    while column in metadata or column in RESERVED_COLUMNS or _is_refused(column):
        column += "_"
    if column != name and "partition" not in more:
        more = {"from": name, **more}
    metadata[column] = {**more, "type": kind} if more else kind
    return column


def _is_refused(name: str) -> bool:
    return is_later_keyword(name) or any(refusal(name, server) for server in (LITE, SERVER))


def _why_no_column(column: SampledField) -> str:
    if not column.values:
        return "null in each of the first records"
    if column.type is None:
        if len(column.kinds) > 1:
            return f"values of several types: {', '.join(sorted(column.kinds))}"
        return f"{next(iter(column.kinds))}: a column is a string, number or truth value"
    if column.type == "string":
        longest = max(len(value.encode("utf-8", "replace")) for value in column.texts)
        if any("\0" in value for value in column.texts):
            return "it has NUL characters"
        if longest > CATEGORY_BYTES:
            return f"texts of up to {longest} bytes; a string column takes 4096 or its max_bytes"
    return ""


def _article(kind: str) -> str:
    return f"a {kind.split('<')[0]}" if kind.startswith(("list", "large_list", "map", "fixed_size_list")) else kind


def partition_columns(uris: Sequence[str], taken: Mapping[str, Any]) -> dict[str, Any]:
    """Columns for the hive partitions of the files' paths, but for those whose name a field has."""
    values: dict[str, list[str]] = {}
    for uri in uris:
        for key, value in partitions_of(uri).items():
            values.setdefault(key, [])
            if value is not None:
                values[key].append(value)
    columns = dict(taken)
    for key, found in values.items():
        if key not in columns and found:
            kind = _csv_kind(found)
            add_column(columns, key, "string" if kind == "date" else kind, partition=key)
    return columns


def shown_kinds(metadata: Mapping[str, Any]) -> Iterator[str]:
    """Metadata columns in words: "year: int", "score_: float from score"."""
    for name, column in metadata.items():
        if isinstance(column, str):
            yield f"{name}: {column}"
        elif "partition" in column:
            yield f"{name}: {column['type']} from folders {column['partition']}=..."
        else:
            yield f"{name}: {column['type']} from {column['from']}"
