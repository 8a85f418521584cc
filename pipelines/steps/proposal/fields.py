"""From the first records of files to the fields of a configuration: id, content, metadata, and what is left out.

Nothing is proposed that the reader would reject: a field is the id where each sampled record has a string or a whole
number there and all differ; it is content where each record has the field, as text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.steps.proposal.columns import metadata_columns
from pipelines.steps.proposal.item_fields import CONTENT_NAMES, content_fields, id_field, is_named
from pipelines.steps.proposal.sampled_field import DATE, NUMBER, sampled_fields
from schemas.config import Corpus
from schemas.errors import ConfigurationError
from transforms.read.head import FileSample, flat
from transforms.read.item import ItemChecker
from transforms.read.rejected_item import RejectedItemError, shown, shown_names


@dataclass
class Fields:
    """The parts of a configuration for the records.

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
        ConfigurationError: if no field of any holds text.
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
            content, _ = content_fields(sampled_fields(group), sum(len(sample.records) for sample in group))
            if content and (not named or any(is_named(name, CONTENT_NAMES) for name in content)):
                return group
    fields = sorted({name for sample in samples for record in sample.records for name, _ in flat(record)})
    twice = sorted({name for sample in samples for name in sample.twice})
    raise ConfigurationError(
        f"no field holds text; the records have: {shown_names(fields) or 'no fields'}"
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


def _chosen(samples: Sequence[FileSample]) -> Fields:
    columns = sampled_fields(samples)
    total = sum(len(sample.records) for sample in samples)
    content, notes = content_fields(columns, total)
    found = Fields(notes=notes)
    identity, why = id_field(columns, total, content)
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
    used = {*content, *(() if identity is None else (identity,))}
    metadata, found.left_out = metadata_columns(columns, kinds, samples, used=used)
    if metadata:
        found.corpus["metadata"] = metadata
    found.notes += [
        f"{name} has dates; Milvus holds them as text, which sorts as they do: --filter '{name} >= \"{first}\"'"
        for name, kind in metadata.items()
        if kind == "string" and (first := columns[name].first_date)
    ]
    return found


def _headless(sample: FileSample) -> str:
    """Says where the first line of a CSV file looks like a record."""
    header = list(sample.records[0]) if sample.file.format == "csv" and sample.records else []
    if not any(NUMBER.fullmatch(name) or DATE.fullmatch(name) for name in header):
        return ""
    shown_names = ", ".join(shown(name, 20) for name in header[:4])
    return (
        f"the first line of {_name(sample)} is taken for the names of its fields ({shown_names}); if it is a record, "
        "put a line with names above it"
    )
