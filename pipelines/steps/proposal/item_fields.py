"""Which sampled fields make an item: its id, and what is embedded of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from pipelines.steps.proposal.sampled_field import DATE, MOSTLY, SampledField
from transforms.read.rejected_item import shown, shown_names

ID_NAMES = (
    *("id", "_id", "doc_id", "docid", "document_id", "item_id", "uuid", "guid", "uid", "key", "uri", "url", "docno"),
    *("pid", "slug", "sku", "isbn", "doi", "pmid", "permalink", "link", "path", "file_name", "filename", "file"),
)
CONTENT_NAMES = (
    *("title", "headline", "subject", "question", "query", "instruction", "input", "prompt", "context", "text"),
    *("content", "body", "abstract", "description", "summary", "document", "article", "story", "passage", "paragraph"),
    *("sentence", "answer", "response", "reply", "output", "completion", "caption", "review", "comment", "message"),
    *("transcript", "lyrics", "notes", "overview", "synopsis"),
)
ID_BYTES = 480
_ID_KINDS = {"string", "int", "a whole number over 64 bits", "bytes", "a list"}
"""Kinds that a column of ids may have; of bytes and lists few, as each costs its record."""


def content_fields(columns: Mapping[str, SampledField], total: int) -> tuple[list[str], list[str]]:
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
    named = [name for wanted in CONTENT_NAMES for name in texts if is_named(name, (wanted,))]
    content = [name for name in named if name in strict or texts[name] is longest]
    if longest is not None and longest.name not in content:
        alone = not content and not _looks_like_ids(longest) and not is_named(longest.name, ID_NAMES)
        long = sum(texts[name].mean_length for name in content)
        if alone or (content and longest.mean_length > max(100, 2 * long) and _is_prose(longest)):
            content.append(longest.name)
    notes = [
        f"{name} is not in corpus.content, as {total - column.present} of the first {total} records have no such field"
        for name, column in columns.items()
        if column.is_text and column.present < total and is_named(name, CONTENT_NAMES) and name not in content
    ]
    return list(dict.fromkeys(content)), notes


def is_named(name: str, wanted: Sequence[str]) -> bool:
    """Whether the last part of a dotted name is one of the wanted ones."""
    return name.rpartition(".")[2].strip().lower() in wanted


def id_field(columns: Mapping[str, SampledField], total: int, content: Sequence[str]) -> tuple[str | None, str]:
    """The id's field; if there is none, why."""
    able = [column for column in columns.values() if column.name not in content and _could_be_id(column, total)]
    unique = [column for column in able if len(set(map(str, column.values))) == len(column.values)]
    ranked = [column for wanted in ID_NAMES for column in unique if is_named(column.name, (wanted,))]
    ranked += [column for column in unique if re.search(r"[_ -][iI][dD]$|[a-z]I[dD]$", column.name)]
    ranked += [column for column in unique if set(column.kinds) == {"string"} and _looks_like_ids(column)]
    if ranked:
        return ranked[0].name, ""
    for column in able:
        if is_named(column.name, ID_NAMES):
            value, count = Counter(map(str, column.values)).most_common(1)[0]
            return None, f"{column.name!r} is not unique ({count} of the first {total} records have {shown(value)})"
    if unique:  # a number, or a word that does not look like an id, may differ in each record by chance
        names = shown_names([column.name for column in unique])
        return None, f"of the fields with a different value in each record, none has the name of an id ({names})"
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
        len(value) <= 64 and re.fullmatch(r"\S*[0-9_/:-]\S*", value) and not DATE.fullmatch(value)
        for value in column.texts
    )
