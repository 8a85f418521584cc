"""Which of the files that were found are the corpus, what they make of `corpus`, and why the others are left out."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pipelines.steps.proposal.columns import add_column
from pipelines.steps.proposal.fields import Fields, propose_fields
from pipelines.steps.proposal.media_field import find_media_field, has_text, propose_media
from pipelines.steps.proposal.proposal import Proposal, plural, printable
from pipelines.steps.proposal.tars import propose_tars
from schemas.formats import WEBDATASET, format_of_suffix, holds_records, modality_of
from schemas.glob import Glob
from schemas.modality import Modality
from transforms.read import SourceFile
from transforms.read.head import FileSample, sample
from transforms.read.listing.inventory import Entry

SAMPLED_FILES = 500
SAMPLED_RECORDS = 5000
"""Most records that are looked at; each file gives its share, but at least 20 and at most 200."""
SAMPLED_TARS = 20
MOST_LABELS = 100
"""Files of records among which labels of other files are looked for."""
WORDS_OF_TEXT = 5
"""A field with more words on average is text, not a label."""
_BESIDE = re.compile(r"(?:readme|license|licence|changelog|changes|contributing|notice|authors)\b", re.IGNORECASE)


def less_readme(entries: list[Entry]) -> list[Entry]:
    """A README in a folder of files of records documents them, and is not part of the corpus."""
    records = {entry.argument for entry in entries if _has_records(entry)}
    return [
        entry.without("documentation of the files of records in the same folder")
        if not entry.why
        and not _has_records(entry)
        and entry.argument in records
        and _BESIDE.match(posixpath.basename(entry.path))
        else entry
        for entry in entries
    ]


def of_one_modality(entries: list[Entry]) -> tuple[list[Entry], Modality]:
    """The entries of one modality, and it: a corpus has one.

    It is text if there is a file of records, else what most files are; for tars `with_fields` finds out.
    """
    counts = Counter(
        modality_of(entry.source.format) for entry in entries if entry.source is not None and not entry.why
    )
    if counts[Modality.VIDEO]:  # captions belong to the films
        counts[Modality.TEXT] -= sum(
            entry.source is not None and entry.source.format == "captions" for entry in entries
        )
    is_text = not counts or any(map(_has_records, entries))
    chosen = Modality.TEXT if is_text else max(Modality, key=lambda modality: counts[modality])
    return [
        entry.without(f"it is of the modality {modality_of(entry.source.format)}, the corpus is {chosen}")
        if entry.source is not None and not entry.why and modality_of(entry.source.format) is not chosen
        else entry
        for entry in entries
    ], chosen


def _has_records(entry: Entry) -> bool:
    """Whether an entry is a file of records, which may hold texts; tars hold media."""
    return (
        entry.source is not None and holds_records(entry.source.format) and not entry.why and not is_tar(entry.source)
    )


def is_tar(file: SourceFile) -> bool:
    """Whether a file is a tar of samples."""
    return file.format == WEBDATASET


def less_labels(entries: list[Entry]) -> list[Entry]:
    """A file of records that names the other files holds labels of them, unless one of its fields is text as well."""
    others = {posixpath.basename(entry.path): entry for entry in entries if entry.why or not _has_records(entry)}
    records = [entry for entry in entries if _has_records(entry)]
    if len(others) < 2 or len(records) > MOST_LABELS:
        return entries
    labels = {}
    for entry in records:
        if entry.source is not None and (named := _named(entry.source, others)):
            kind, count = Counter(other.kind for other in named).most_common(1)[0]
            labels[entry.path] = f"it names {count} of the {kind} files, as labels do"
    return [entry.without(labels[entry.path]) if entry.path in labels else entry for entry in entries]


def _named(file: SourceFile, others: dict[str, Entry]) -> list[Entry]:
    """The files that a field of most of a file's first records names, with their suffix or without."""
    # A stem may be an id that a picture elsewhere has by chance: only files in the same folder or below count.
    below = posixpath.dirname(file.uri) + "/"
    stems = {posixpath.splitext(name)[0]: entry for name, entry in others.items() if entry.path.startswith(below)}
    known = others | stems
    records = sample(file, 200).records
    found: list[Entry] = []
    for name in {name for record in records for name in record}:
        values = [str(record[name]) for record in records if record.get(name) is not None]
        if sum(len(value.split()) for value in values) > WORDS_OF_TEXT * len(values):
            return []
        named = [known[value] for value in map(posixpath.basename, values) if value in known]
        if len(named) * 2 > len(records):
            found = found or named
    return found


def with_tars(
    entries: list[Entry], modality: Modality, found: Proposal
) -> tuple[list[Entry], Modality, dict[str, Any] | None]:
    """The entries without what is next to tars, the modality of their media, and the keys of `corpus` for them.

    The keys are None where there are no tars.
    """
    taken = [entry for entry in entries if entry.source is not None and not entry.why]
    tars = [entry.source for entry in taken if entry.source is not None and is_tar(entry.source)]
    if not tars or modality is Modality.TEXT:
        return entries, modality, None
    step = -(-len(tars) // SAMPLED_TARS)
    samples = [sample(file, 50) for file in tars[::step]]
    why = {one.file.uri: f"can't be read: {printable(one.problem)}" for one in samples if one.problem}
    why |= {entry.path: "the corpus is the tars" for entry in taken if entry.source and not is_tar(entry.source)}
    fields, modality, found.fields_left_out = propose_tars([one for one in samples if not one.problem], found.notes)
    fields = {"format": WEBDATASET, **fields}
    return [entry.without(why[entry.path]) if entry.path in why else entry for entry in entries], modality, fields


def with_media(entries: list[Entry], found: Proposal) -> tuple[list[Entry], Modality | None, dict[str, Any]]:
    """The entries without what is next to records with media, their modality, and the keys of `corpus` for them.

    The modality is None where no field of the records has or names media, or where their texts are to be embedded.
    """
    records = [entry.source for entry in entries if entry.source is not None and _has_records(entry)]
    samples = [sample(file, 200) for file in records[:: -(-len(records) // SAMPLED_TARS) or 1]]
    readable = [one for one in samples if not one.problem and (one.records or one.kinds)]
    media = find_media_field(readable)
    if media is None:
        return entries, None, {}
    if not media.has_bytes and has_text(readable, media):
        found.notes.append(
            f"{media.name} names files ({media.modality}); to embed those, set corpus.media: {media.name} instead of "
            "corpus.content; to embed both, set both, chunk: false, and the input of each of several encoders"
        )
        return entries, None, {}
    why = {one.file.uri: f"can't be read: {printable(one.problem)}" for one in samples if one.problem}
    why |= {
        entry.path: f"the corpus is the records, which name files in {media.name}"
        for entry in entries
        if entry.source is not None and not entry.why and not _has_records(entry)
    }
    fields, found.fields_left_out = propose_media(readable, media, found.notes)
    if written := _csv_keys(readable):
        fields["csv"] = written
    return [entry.without(why[entry.path]) if entry.path in why else entry for entry in entries], media.modality, fields


def with_fields(entries: list[Entry], found: Proposal) -> tuple[list[Entry], dict[str, Any]]:
    """The entries without those that do not fit, and the keys of `corpus` that the files' fields make."""
    taken = [entry for entry in entries if not entry.why and entry.source is not None]
    looked_at = [entry for entry in taken if _has_records(entry) or _is_markdown(entry)]
    if len(looked_at) > SAMPLED_FILES:
        step = len(looked_at) / SAMPLED_FILES
        found.notes.append(f"the fields are those of {SAMPLED_FILES} of {len(looked_at):,} files, evenly spread")
        looked_at = [looked_at[int(at * step)] for at in range(SAMPLED_FILES)]
    each = min(200, max(20, SAMPLED_RECORDS // max(1, len(looked_at))))
    samples = [sample(entry.source, each) for entry in looked_at if entry.source is not None]
    why = {one.file.uri: f"can't be read: {printable(one.problem)}" for one in samples if one.problem}
    readable = [one for one in samples if not one.problem]
    records = [one for one in readable if holds_records(one.file.format) and one.records]
    fields = Fields()
    if records:
        fields = propose_fields(records)
        written = _csv_keys([one for one in records if one.file.uri not in fields.files])
        if written:
            fields.corpus["csv"] = written
        why |= fields.files
        bad = sum(one.bad for one in records if one.file.uri not in fields.files)
        if bad:
            fields.notes.append(f"{bad} of the first records can't be parsed and would be rejected")
    elif readable and all(holds_records(one.file.format) for one in readable) and not _has_documents(taken):
        why |= {one.file.uri: "it holds no record" for one in readable}
    _add_front_matter(fields, [one for one in readable if one.file.format == "markdown"])
    found.notes += fields.notes
    found.fields_left_out = fields.left_out
    return [entry.without(why[entry.path]) if entry.path in why else entry for entry in entries], fields.corpus


def _is_markdown(entry: Entry) -> bool:
    return entry.source is not None and entry.source.format == "markdown"


def _has_documents(entries: Sequence[Entry]) -> bool:
    return any(entry.source is not None and not holds_records(entry.source.format) for entry in entries)


def _csv_keys(samples: Sequence[FileSample]) -> dict[str, Any]:
    """How the CSV files are written, if that is not as usual."""
    keys = {}
    if delimiter := next((one.delimiter for one in samples if one.delimiter not in ("", one.file.delimiter)), ""):
        keys["delimiter"] = delimiter
    if encoding := next((one.encoding for one in samples if one.encoding), None):
        keys["encoding"] = encoding
    return keys


def _add_front_matter(fields: Fields, samples: Sequence[FileSample]) -> None:
    values: dict[str, list[Any]] = {}
    for record in (record for one in samples for record in one.records):
        for name, value in record.items():
            values.setdefault(name, []).append(value)
    metadata = fields.corpus.get("metadata", {})
    for name, found in values.items():
        kinds = {type(value) for value in found if value is not None}
        kind = {str: "string", int: "int", float: "float", bool: "bool"}.get(next(iter(kinds), dict))
        if kinds == {int, float}:
            kinds, kind = {float}, "float"
        if len(kinds) != 1 or kind is None:
            fields.left_out[name] = "in front matter: lists, objects or values of several types"
        elif name not in metadata:
            add_column(metadata, name, kind)
    if metadata:
        fields.corpus["metadata"] = metadata


def shown_path(path: str, argument: str) -> str:
    """A file's path below the folder that was named, or its name."""
    for folder in (argument.rstrip("/"), Glob(argument).root):
        if path.startswith(f"{folder}/"):
            return path[len(folder) + 1 :]
    return path.rsplit("/", 1)[-1]


def reasons_of(found: Proposal) -> str:
    """Why no file is read, in a sentence."""
    said = [f"{len(paths):,} {plural('file', len(paths))} ({paths[0]}): {why}" for why, paths in found.left_out.items()]
    return "; ".join(said) or "there is no file"


def remedy(found: Proposal) -> str:
    """The remedy if no file is read."""
    labels = [path for why, paths in found.left_out.items() if "as labels do" in why for path in paths]
    if labels:
        return f"name a file to embed it all the same, for example {labels[0]}, in a folder of its own"
    return f"name files that end in {' '.join(format_of_suffix())}, or write the configuration yourself"
