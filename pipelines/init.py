"""`vecbeam init PATHS`: looks at a corpus and writes a configuration that runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from pipelines.steps.proposal.columns import partition_columns
from pipelines.steps.proposal.entries import (
    less_labels,
    less_readme,
    of_one_modality,
    reasons_of,
    remedy,
    shown_path,
    with_fields,
    with_media,
    with_tars,
)
from pipelines.steps.proposal.patterns import find_home, find_patterns, relative
from pipelines.steps.proposal.proposal import CONTROL, NAMED, Proposal, printable
from schemas import locator
from schemas.config import Config, Corpus, template
from schemas.config.loader import parse_config
from schemas.errors import ConfigurationError, VecbeamError
from schemas.glob import Glob
from schemas.layout import LOCATOR
from schemas.modality import Modality
from transforms.read import Shard, SourceFile, list_corpus, read_shard
from transforms.read.formats.charset import OTHER_ENCODING
from transforms.read.listing.inventory import Entry, inventory
from transforms.support.storage import filesystem
from transforms.support.storage.filesystem import is_local

SHOWN_TEXTS = 3
SHOWN_CHARACTERS = 100


def write_configuration(paths: list[str], output: Path, name: str | None) -> Proposal:
    """Writes a configuration for some files, folders or globs.

    Returns:
        What was found, which is text for people by `str`.

    Raises:
        ConfigurationError: if nothing is found, `output` exists, or no field is text.
    """
    if output.is_dir():
        raise ConfigurationError(f"{output} is a folder", f"name a file in it: --output {output / 'vecbeam.yaml'}")
    if output.exists():
        raise ConfigurationError(f"{output} already exists", "name another file with --output, or move it away")
    found = look(paths, output, name)
    config = parse_config(found.values, source="vecbeam init", folder=output.resolve().parent)
    _check(found, config)
    if not output.parent.exists():
        found.notes.append(f"{output.parent} did not exist: it is a new folder")
    output.parent.mkdir(parents=True, exist_ok=True)
    filesystem.write_atomic(str(output.absolute()), template.commented(found.values).encode())
    found.path = str(output)
    return found


def propose(paths: list[str], output: Path, name: str | None) -> tuple[dict[str, Any], list[str]]:
    """A configuration for some files, folders or globs, and what was found, a line each.

    Args:
        output: its path; local paths below its folder become relative.
    """
    found = look(paths, output, name)
    return found.values, found.lines()


_ENCODING: dict[Modality, dict[str, Any]] = {
    Modality.TEXT: {
        "chunk": {"max_tokens": 256, "overlap_tokens": 32},
        "encoder": {"model": "all-MiniLM-L6-v2", "precision": "float32"},
    },
    Modality.IMAGE: {"encoder": {"model": "conse", "precision": "float32"}},
    # Windows are as long as the model takes.
    Modality.AUDIO: {"encoder": {"model": "whisper-base", "precision": "float32"}},
    Modality.VIDEO: {
        "chunk": {"seconds": 10, "overlap_seconds": 1},
        "encoder": {"model": "conse", "precision": "float32", "frames": 8},
    },
}
"""What the embedded model of each modality needs in a configuration."""


def write_values(output: Path, values: dict[str, Any]) -> None:
    """Writes a configuration, with the line that lets editors complete and check it."""
    filesystem.write_atomic(str(output.absolute()), template.plain(values).encode())


def look(paths: list[str], output: Path, name: str | None) -> Proposal:
    """Looks at files, folders or globs and proposes a configuration; nothing is written."""
    arguments = [path if not is_local(path) else str(Path(path).expanduser().absolute()) for path in paths]
    _prepare_stores([path for path in arguments if not is_local(path)])
    entries = [entry for entry in inventory(arguments) if entry.path != str(output.absolute())]
    found = Proposal({}, Counter(entry.kind for entry in entries if not entry.path.endswith("/")))
    entries, modality = of_one_modality(less_labels(less_readme(entries)))
    entries, modality, of_tars = with_tars(entries, modality, found)
    entries, of_media, fields = with_media(entries, found) if of_tars is None else (entries, None, of_tars)
    if of_media is not None:
        modality = of_media
    elif of_tars is None:
        entries, fields = with_fields(entries, found)
    taken = [entry for entry in entries if not entry.why]
    for entry in entries:
        if entry.why:
            found.left_out.setdefault(entry.why, []).append(shown_path(entry.path, arguments[entry.argument]))
    if not taken:
        raise ConfigurationError(f"nothing to embed in {', '.join(paths)}: {reasons_of(found)}", remedy(found))
    found.taken = Counter(entry.kind for entry in taken)
    found.taken_bytes = sum(entry.size for entry in taken)
    patterns, also = find_patterns(entries, arguments, paths)
    if also:
        found.notes.append(
            f"the globs match files that are left out as well; move them away: {', '.join(also[:NAMED])}"
        )
    kind = {} if modality is Modality.TEXT or "media" in fields or of_tars is not None else {"format": str(modality)}
    corpus: dict[str, Any] = {"paths": [relative(pattern, output) for pattern in patterns], **kind, **fields}
    metadata = partition_columns([entry.path for entry in taken], corpus.pop("metadata", {}))
    if metadata:
        corpus["metadata"] = metadata
    home = find_home(patterns, output)
    found.values |= {
        "name": _free_name(name, paths[0], output, found),
        "corpus": corpus,
        **_ENCODING[modality],
        "checkpoint": f"{home}checkpoint",
        "collection": {
            "uri": f"./{home}milvus.db",
            "metric": "COSINE",
            "index": {"type": "HNSW", "M": 16, "efConstruction": 200},
        },
    }
    _show_texts(found, taken, patterns)
    return found


def _prepare_stores(paths: list[str]) -> None:
    """Gives Beam's filesystems their options, as a run does."""
    if paths:
        from pipelines.run.jobs.beam_options import prepare_filesystems

        values = {"name": "init", "corpus": {"paths": paths}, "checkpoint": ".", "collection": {"uri": "./milvus.db"}}
        prepare_filesystems(parse_config(values, source="vecbeam init"))


def _free_name(name: str | None, path: str, output: Path, found: Proposal) -> str:
    """The alias' name: the given one, or one from the path that no configuration in the same folder has.

    Raises:
        ConfigurationError: if the given name is not valid, or is taken.
    """
    taken = {str(other): where for where, other in _names_beside(output)}
    wanted = name or _name(path)
    free = _name(wanted) if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,199}", wanted) else wanted
    base, number = free, 2
    while free in taken:
        free, number = f"{base}_{number}", number + 1
    if name is not None and free != name:
        why = f"{taken[name]} already has it" if name in taken else "Milvus accepts letters, digits and underscores"
        raise ConfigurationError(f"--name {name!r} can't be the alias: {why}", f"write --name {free}")
    if free != base:
        found.notes.append(f"the alias is {free}, as {taken[base]} has the name {base}")
    return free


def _names_beside(output: Path) -> Iterator[tuple[str, Any]]:
    """Names of the configurations in the folder of a new one, and the file of each."""
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
            first = batch.rejects.slice(0, 1).to_pylist()[0]
            hint = f"; {OTHER_ENCODING}" if first["error"] == "InvalidUtf8" else ""
            reason = reason or f"{first['reason']}{hint}"
        for item in batch.items.slice(0, min(wanted, SHOWN_TEXTS - len(found.samples))).to_pylist():
            shown = item["@content"]
            if corpus.modality.is_media:
                shown = locator.shown(locator.address(item["@uri"], item[LOCATOR]))
            found.shown_as = "file" if corpus.modality.is_media else "text"
            found.samples.append((item["item_id"], _cut(shown)))
    if rejected:
        found.notes.append(f"{rejected} of {read} items that were tried would be rejected: {printable(reason)}")


def _cut(text: str) -> str:
    shown = " ".join(CONTROL.sub(" ", text[: 4 * SHOWN_CHARACTERS]).split())
    return shown if len(shown) <= SHOWN_CHARACTERS else f"{shown[:SHOWN_CHARACTERS]}..."


def _check(found: Proposal, config: Config) -> None:
    """Lists the corpus as a run would, and says where that is not what was taken."""
    listed = len(list_corpus(config.corpus))
    if listed != found.taken.total():
        found.notes.append(
            f"the globs match {listed:,} files, {found.taken.total():,} were to be taken; look at corpus.paths"
        )
