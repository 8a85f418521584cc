"""`vecbeam init PATHS`: looks at a corpus and writes a configuration that runs."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from pipelines.steps.proposal.fields import Fields, add_column, partition_columns, propose_fields, shown_kinds
from schemas.config import Config, Corpus, template
from schemas.config.loader import parse_config
from schemas.errors import ConfigurationError, VecbeamError
from schemas.glob import Glob, escape
from transforms.read import FORMAT_OF_SUFFIX, Shard, SourceFile, list_corpus, read_shard
from transforms.read.head import FileSample, sample
from transforms.read.listing.inventory import Entry, inventory, suffixes
from transforms.read.listing.listing import RECORD_FORMATS
from transforms.support.storage import filesystem
from transforms.support.storage.filesystem import is_local

SAMPLED_FILES = 500
SAMPLED_RECORDS = 5000
"""Most records that are looked at; each file gives its share, but at least 20 and at most 200."""
SHOWN_TEXTS = 3
SHOWN_CHARACTERS = 100
NAMED = 5
MOST_PATHS = 50
MOST_LABELS = 100
"""Files of records among which labels of other files are looked for."""
WORDS_OF_TEXT = 5
"""A field with more words on average is text, not a label."""
_BESIDE = re.compile(r"(?:readme|license|licence|changelog|changes|contributing|notice|authors)\b", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]+")
_NOT_UTF8 = re.compile("[\udc80-\udcff]")


@dataclass
class Proposal:
    """A configuration, and what was seen on the way to it.

    Attributes:
        values: of the configuration.
        seen: files of each kind.
        taken: files that the configuration reads, of each kind.
        taken_bytes: their size.
        left_out: what is not read, and why: reason -> paths.
        fields_left_out: field -> why.
        samples: id and beginning of some texts.
        notes: what a user should know before a run.
        path: of the configuration; "" where none is written.
    """

    values: dict[str, Any]
    seen: Counter[str] = field(default_factory=Counter)
    taken: Counter[str] = field(default_factory=Counter)
    taken_bytes: int = 0
    left_out: dict[str, list[str]] = field(default_factory=dict)
    fields_left_out: dict[str, str] = field(default_factory=dict)
    samples: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    path: str = ""

    @property
    def corpus(self) -> dict[str, Any]:
        corpus: dict[str, Any] = self.values["corpus"]
        return corpus

    def lines(self) -> list[str]:
        """What was found, a line each."""
        corpus = self.corpus
        lines = [
            f"saw {_files(self.seen)}",
            f"takes {_files(self.taken)}, {_size(self.taken_bytes)}",
        ]
        for why, paths in self.left_out.items():
            lines.append(f"leaves out {_some(paths)}: {why}")
        if "content" in corpus:
            identity = corpus["id"] if isinstance(corpus["id"], str) else f"hash of {', '.join(corpus['id']['hash'])}"
            lines.append(f"id: {identity}; content: {', '.join(corpus['content'])}")
        else:
            lines.append("each file is an item; its path is the id")
        if metadata := corpus.get("metadata"):
            lines.append(f"metadata: {', '.join(shown_kinds(metadata))}")
        reasons: dict[str, list[str]] = {}
        for name, why in self.fields_left_out.items():
            reasons.setdefault(why, []).append(name)
        lines += [f"no column for {_some(names)}: {why}" for why, names in reasons.items()]
        lines += [f"text of {_printable(item_id)}: {text}" for item_id, text in self.samples]
        return lines + [f"note: {note}" for note in self.notes]

    def __str__(self) -> str:
        command = shlex.join(["vecbeam", "backfill", self.path])
        return "\n".join([*self.lines(), f"wrote {self.path} (alias {self.values['name']})", f"next: {command}"])

    def as_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "name": self.values["name"],
            "files": {
                "seen": dict(self.seen),
                "taken": dict(self.taken),
                "taken_bytes": self.taken_bytes,
                "left_out": [{"why": why, "paths": paths} for why, paths in self.left_out.items()],
            },
            "corpus": self.corpus,
            "fields_left_out": self.fields_left_out,
            "samples": [{"id": item_id, "text": text} for item_id, text in self.samples],
            "notes": self.notes,
        }


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(map(_printable, names[:NAMED])) + more


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 100_000 else f"{count:,} bytes"


def _files(counts: Counter[str]) -> str:
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in counts.most_common())
    return f"{counts.total():,} {_plural('file', counts.total())}: {kinds}"


def write_configuration(paths: list[str], output: Path, name: str | None) -> Proposal:
    """Writes a configuration for some files, folders or globs.

    Returns:
        What was found, which is text for people by `str`.

    Raises:
        ConfigurationError: where nothing is found, a file stands at `output`, or no text can be made out.
    """
    if output.is_dir():
        raise ConfigurationError(f"{output} is a folder", f"name a file in it: --output {output / 'vecbeam.yaml'}")
    if output.exists():
        raise ConfigurationError(f"{output} is there already", "name another file with --output, or move it away")
    found = look(paths, output, name)
    config = parse_config(found.values, source="vecbeam init", folder=output.resolve().parent)
    _check(found, config)
    output.parent.mkdir(parents=True, exist_ok=True)
    filesystem.write_atomic(str(output.absolute()), template.commented(found.values).encode())
    found.path = str(output)
    return found


def propose(paths: list[str], output: Path, name: str | None) -> tuple[dict[str, Any], list[str]]:
    """A configuration for some files, folders or globs, and what was found, a line each.

    Args:
        output: where it would stand; local paths below its folder become relative.
    """
    found = look(paths, output, name)
    return found.values, found.lines()


def write_values(output: Path, values: dict[str, Any]) -> None:
    """Writes a configuration, with the line that lets editors complete and check it."""
    filesystem.write_atomic(str(output.absolute()), template.plain(values).encode())


def look(paths: list[str], output: Path, name: str | None) -> Proposal:
    """Looks at files, folders or globs and proposes a configuration; nothing is written."""
    arguments = [path if not is_local(path) else str(Path(path).expanduser().absolute()) for path in paths]
    _prepare_stores([path for path in arguments if not is_local(path)])
    entries = [entry for entry in inventory(arguments) if entry.path != str(output.absolute())]
    found = Proposal({}, Counter(entry.kind for entry in entries if not entry.path.endswith("/")))
    entries = _less_labels(_less_readme(entries))
    entries, fields = _with_fields(entries, found)
    taken = [entry for entry in entries if not entry.why]
    for entry in entries:
        if entry.why:
            found.left_out.setdefault(entry.why, []).append(_shown_path(entry.path, arguments[entry.argument]))
    if not taken:
        raise ConfigurationError(f"nothing to embed in {', '.join(paths)}: {_reasons(found)}", _remedy(found))
    found.taken = Counter(entry.kind for entry in taken)
    found.taken_bytes = sum(entry.size for entry in taken)
    patterns, also = _patterns(entries, arguments, paths)
    if also:
        found.notes.append(
            f"the globs match files that are left out as well; move them away: {', '.join(also[:NAMED])}"
        )
    corpus: dict[str, Any] = {"paths": [_relative(pattern, output) for pattern in patterns], **fields}
    metadata = partition_columns([entry.path for entry in taken], corpus.pop("metadata", {}))
    if metadata:
        corpus["metadata"] = metadata
    home = _home(patterns, output)
    found.values |= {
        "name": _free_name(name, paths[0], output, found),
        "corpus": corpus,
        "chunk": {"max_tokens": 256, "overlap_tokens": 32},
        "encoder": {"model": "all-MiniLM-L6-v2", "precision": "float32"},
        "checkpoint": f"{home}checkpoint",
        "collection": {
            "uri": f"./{home}milvus.db",
            "metric": "COSINE",
            "index": {"type": "HNSW", "M": 16, "efConstruction": 200},
        },
    }
    _show_texts(found, taken, patterns)
    return found


# Files


def _prepare_stores(paths: list[str]) -> None:
    """Gives Beam's filesystems their options, as a run does."""
    if paths:
        from pipelines.run.beam_job import prepare_filesystems

        values = {"name": "init", "corpus": {"paths": paths}, "checkpoint": ".", "collection": {"uri": "./milvus.db"}}
        prepare_filesystems(parse_config(values, source="vecbeam init"))


def _less_readme(entries: list[Entry]) -> list[Entry]:
    """A README beside files of records is about them and none of the corpus."""
    records = {entry.argument for entry in entries if _has_records(entry)}
    return [
        entry.without("about the files of records beside it")
        if not entry.why
        and not _has_records(entry)
        and entry.argument in records
        and _BESIDE.match(posixpath.basename(entry.path))
        else entry
        for entry in entries
    ]


def _has_records(entry: Entry) -> bool:
    return entry.source is not None and entry.source.format in RECORD_FORMATS and not entry.why


def _less_labels(entries: list[Entry]) -> list[Entry]:
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
    # A stem may be an id that a picture elsewhere has by chance: it is a name of the files beside, or in folders below.
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


def _with_fields(entries: list[Entry], found: Proposal) -> tuple[list[Entry], dict[str, Any]]:
    """The entries without those that do not fit, and the keys of `corpus` that the files' fields make."""
    taken = [entry for entry in entries if not entry.why and entry.source is not None]
    looked_at = [entry for entry in taken if _has_records(entry) or _is_markdown(entry)]
    if len(looked_at) > SAMPLED_FILES:
        step = len(looked_at) / SAMPLED_FILES
        found.notes.append(f"the fields are those of {SAMPLED_FILES} of {len(looked_at):,} files, evenly spread")
        looked_at = [looked_at[int(at * step)] for at in range(SAMPLED_FILES)]
    each = min(200, max(20, SAMPLED_RECORDS // max(1, len(looked_at))))
    samples = [sample(entry.source, each) for entry in looked_at if entry.source is not None]
    why = {one.file.uri: f"can't be read: {_printable(one.problem)}" for one in samples if one.problem}
    readable = [one for one in samples if not one.problem]
    records = [one for one in readable if one.file.format in RECORD_FORMATS and one.records]
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
    elif readable and all(one.file.format in RECORD_FORMATS for one in readable) and not _has_documents(taken):
        why |= {one.file.uri: "it holds no record" for one in readable}
    _add_front_matter(fields, [one for one in readable if one.file.format == "markdown"])
    found.notes += fields.notes
    found.fields_left_out = fields.left_out
    return [entry.without(why[entry.path]) if entry.path in why else entry for entry in entries], fields.corpus


def _is_markdown(entry: Entry) -> bool:
    return entry.source is not None and entry.source.format == "markdown"


def _has_documents(entries: Sequence[Entry]) -> bool:
    return any(entry.source is not None and entry.source.format not in RECORD_FORMATS for entry in entries)


def _csv_keys(samples: Sequence[FileSample]) -> dict[str, Any]:
    """How the CSV files are written, where that is not as usual."""
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


def _shown_path(path: str, argument: str) -> str:
    for folder in (argument.rstrip("/"), Glob(argument).root):
        if path.startswith(f"{folder}/"):
            return path[len(folder) + 1 :]
    return path.rsplit("/", 1)[-1]


def _reasons(found: Proposal) -> str:
    said = [
        f"{len(paths):,} {_plural('file', len(paths))} ({paths[0]}): {why}" for why, paths in found.left_out.items()
    ]
    return "; ".join(said) or "there is no file"


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def _remedy(found: Proposal) -> str:
    labels = [path for why, paths in found.left_out.items() if "as labels do" in why for path in paths]
    if labels:
        return f"name a file to embed it all the same, for example {labels[0]}, in a folder of its own"
    return f"name files that end in {' '.join(FORMAT_OF_SUFFIX)}, or write the configuration yourself"


# Paths


def _patterns(entries: Sequence[Entry], arguments: Sequence[str], given: Sequence[str]) -> tuple[list[str], list[str]]:
    """Globs for the files that are taken, and files that they match and that are left out."""
    patterns: list[str] = []
    also: list[str] = []
    for position, argument in enumerate(arguments):
        mine = [entry for entry in entries if entry.argument == position]
        written = str(Path(given[position]).expanduser()) if is_local(given[position]) else given[position]
        taken = [entry.path for entry in mine if not entry.why]
        if not taken:
            continue
        out = [entry.path for entry in mine if entry.why]
        if [entry.path for entry in mine] == [argument]:
            patterns.append(escape(written))
            continue
        if _is_glob(argument, mine):
            if not out:
                patterns.append(written)
                continue
            argument = Glob(argument).root
            written = Glob(written).root
        exact = [escape(written.rstrip("/")) + escape(path[len(argument.rstrip("/")) :]) for path in taken]
        wide = _wide(written.rstrip("/"), argument.rstrip("/"), taken, [])
        narrow = _wide(written.rstrip("/"), argument.rstrip("/"), taken, out)
        best = narrow if len(narrow) <= MOST_PATHS else exact if len(exact) <= MOST_PATHS else wide
        if best is wide and wide != narrow:
            also += [path for path in out if "".join(suffixes(path)) in {"".join(suffixes(one)) for one in taken}]
        patterns += best
    # YAML holds no bytes that are not UTF-8: a ? matches any one of them.
    return list(dict.fromkeys(_NOT_UTF8.sub("?", pattern) for pattern in patterns)), also


def _is_glob(argument: str, entries: Sequence[Entry]) -> bool:
    """Whether a path is a pattern, and no folder whose name has brackets."""
    below = f"{argument.rstrip('/')}/"
    return Glob(argument).has_wildcard and not all(entry.path.startswith(below) for entry in entries)


def _wide(written: str, folder: str, taken: Sequence[str], out: Sequence[str]) -> list[str]:
    """Globs below a folder that match what is taken and nothing of what is out."""
    endings = {path: _ending(path) for path in (*taken, *out) if not path.endswith("/")}
    hidden = [path for path in out if path.endswith("/") and not posixpath.basename(path[:-1]).startswith(".")]
    patterns = []
    for ending in sorted({endings[path] for path in taken}):
        mine = [path for path in taken if endings[path] == ending]
        spoilt = [path for path in out if endings.get(path) == ending and not posixpath.basename(path).startswith(".")]
        nested = any(posixpath.dirname(path) != folder for path in mine)
        inside = nested and any(_holds(path, ending) for path in hidden)
        if not spoilt and not inside:
            patterns.append(f"{escape(written)}/{'**/' if nested else ''}*{escape(ending)}")
            continue
        for parent in sorted({posixpath.dirname(path) for path in mine}):
            there = escape(written + parent[len(folder) :])
            if any(posixpath.dirname(path) == parent for path in spoilt):
                names = [posixpath.basename(path) for path in mine if posixpath.dirname(path) == parent]
                patterns += [f"{there}/{escape(name)}" for name in names]
            else:
                patterns.append(f"{there}/*{escape(ending)}")
    return patterns


def _ending(path: str) -> str:
    """The suffixes as they are written: ".JSONL.gz"."""
    length = len("".join(suffixes(path)))
    return path[len(path) - length :] if length else posixpath.basename(path)


def _holds(folder: str, ending: str) -> bool:
    return is_local(folder) and any(path.name.endswith(ending) for path in islice(Path(folder).rglob("*"), 10_000))


def _relative(pattern: str, output: Path) -> str:
    if not is_local(pattern) or Path(pattern).is_absolute():
        return pattern
    here = output.resolve().parent
    # A link is followed for the folder of the configuration alone, as the loader does.
    absolute = Path(pattern).absolute()
    below = escape(str(here))
    plain = str(absolute)
    if plain.startswith(f"{below}/"):
        return plain[len(below) + 1 :]
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else plain


def _home(patterns: Sequence[str], output: Path) -> str:
    """Where checkpoint and Milvus Lite go: hidden, where the corpus' own globs would match their Parquet files."""
    here = str(output.absolute().parent)
    for pattern in patterns:
        root = str(Path(Glob(pattern).root).absolute())
        if "**" in pattern and pattern.endswith((".parquet", ".pq")) and f"{here}/".startswith(f"{root.rstrip('/')}/"):
            return ".vecbeam/"
    return ""


# Names


def _free_name(name: str | None, path: str, output: Path, found: Proposal) -> str:
    """The alias' name: the one that is asked for, or one from the path that no configuration beside it has.

    Raises:
        ConfigurationError: where the name that is asked for can't be one, or is taken.
    """
    taken = {str(other): where for where, other in _names_beside(output)}
    wanted = name or _name(path)
    free = _name(wanted) if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,199}", wanted) else wanted
    base, number = free, 2
    while free in taken:
        free, number = f"{base}_{number}", number + 1
    if name is not None and free != name:
        why = f"{taken[name]} has it already" if name in taken else "Milvus takes letters, digits and underscores"
        raise ConfigurationError(f"--name {name!r} can't be the alias: {why}", f"write --name {free}")
    if free != base:
        found.notes.append(f"the alias is {free}, as {taken[base]} has the name {base}")
    return free


def _names_beside(output: Path) -> Iterator[tuple[str, Any]]:
    """Names of the configurations in the folder of a new one, and where each stands."""
    folder = output.absolute().parent
    for path in sorted(folder.glob("*.y*ml")) if folder.is_dir() else ():
        if path.suffix not in (".yaml", ".yml") or path == output.absolute():
            continue
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            continue
        if isinstance(values, dict) and "corpus" in values and isinstance(values.get("name"), str):
            yield path.name, values["name"]


def _name(path: str) -> str:
    fixed = re.split(r"[*?]", path, maxsplit=1)[0].rstrip("/") or "corpus"
    stem = Path(fixed).absolute().name.split(".")[0] if is_local(fixed) else fixed.rsplit("/", 1)[-1].split(".")[0]
    cleaned = re.sub(r"[^A-Za-z0-9_]+", "_", stem).strip("_")[:100] or "corpus"
    return f"corpus_{cleaned}" if cleaned[0].isdigit() else cleaned


# What it comes to


def _as_listed(entry: Entry, source: SourceFile, patterns: Sequence[str]) -> SourceFile:
    """A file as a run will list it: where it is an item, its path below the root of its glob is the id."""
    for pattern in patterns:
        glob = Glob(str(Path(pattern).absolute()) if is_local(pattern) else pattern)
        if glob.matches(entry.path):
            return replace(source, path=entry.path[len(glob.root) :].lstrip("/"))
    return source


def _show_texts(found: Proposal, taken: Sequence[Entry], patterns: Sequence[str]) -> None:
    """Reads some items as a run would, shows their texts, and says what of them a run would reject.

    Args:
        patterns: globs of the corpus; local ones as they are from the working directory.
    """
    values = {key: value for key, value in found.corpus.items() if key != "paths"}
    corpus = Corpus.model_validate({"paths": ["."], **values})
    step = max(1, len(taken) // SHOWN_TEXTS)
    read = rejected = 0
    reason = ""
    for entry in list(taken)[::step][:SHOWN_TEXTS]:
        if entry.source is None:
            continue
        wanted = SHOWN_TEXTS if len(taken) < SHOWN_TEXTS else 1
        try:
            source = _as_listed(entry, entry.source, patterns)
            batch = next(read_shard(Shard("sample", 0, (source,), 0, 0), corpus, batch_rows=20), None)
        except VecbeamError as error:
            found.notes.append(f"{entry.path}: {error.message}")
            continue
        if batch is None:
            continue
        read += batch.items_read
        rejected += batch.rejects.num_rows
        if batch.rejects.num_rows:
            reason = reason or str(batch.rejects.column("reason")[0].as_py())
        for item in batch.items.slice(0, min(wanted, SHOWN_TEXTS - len(found.samples))).to_pylist():
            found.samples.append((item["item_id"], _cut(item["@content"])))
    if rejected:
        found.notes.append(f"{rejected} of {read} items that were tried would be rejected: {_printable(reason)}")


def _cut(text: str) -> str:
    shown = " ".join(_CONTROL.sub(" ", text[: 4 * SHOWN_CHARACTERS]).split())
    return shown if len(shown) <= SHOWN_CHARACTERS else f"{shown[:SHOWN_CHARACTERS]}..."


def _printable(text: str) -> str:
    return _CONTROL.sub(" ", text.encode("utf-8", "backslashreplace").decode())


def _check(found: Proposal, config: Config) -> None:
    """Lists the corpus as a run would, and says where that is not what was taken."""
    listed = len(list_corpus(config.corpus))
    if listed != found.taken.total():
        found.notes.append(
            f"the globs match {listed:,} files, {found.taken.total():,} were to be taken; look at corpus.paths"
        )
