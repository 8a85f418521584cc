"""Which files are the corpus: globs to files with a format, in corpus order. Nothing is opened here."""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from schemas.config import Corpus
from schemas.errors import ConfigurationError, CorpusError, StorageError
from schemas.formats import COMPRESSED, COMPRESSION_OF_SUFFIX, format_of_suffix, holds_records, suffixes
from schemas.glob import Glob
from schemas.modality import Modality
from transforms.read.listing.files import FILE_ROWS, FileRows, SourceFile, name_bytes, name_of
from transforms.read.listing.own_files import Own, looks_written
from transforms.support.storage import filesystem, spill
from transforms.support.storage.filesystem import FileInfo
from transforms.support.storage.walk import walk

_MARKER = re.compile(r"_(?:SUCCESS|(?:started|committed)_\w+|(?:common_)?metadata)")
"""Files that programs such as Spark and Hadoop leave next to the parts that they write."""
_LISTED = pa.schema(
    [("uri", pa.large_binary()), ("size", pa.int64()), ("modified", pa.float64()), ("version", pa.string())]
)


def list_corpus(corpus: Corpus, own: Own | None = None, notes: list[str] | None = None) -> list[SourceFile]:
    """The files of `list_files` as objects: for a corpus that is known to be small."""
    return list(list_files(corpus, own, notes))


def list_files(corpus: Corpus, own: Own | None = None, notes: list[str] | None = None) -> FileRows:
    """All files of the corpus in corpus order: by glob, then by uri. A file that two globs match counts once.

    Args:
        corpus: its paths are absolute, or URIs.
        own: where the configuration's own files are, which are left out.
        notes: receives a line for each kind of file that was left out.

    Raises:
        ConfigurationError: a glob that matches no file, a folder instead of a file, an unknown suffix.
        CorpusError: a listing that fails; a part of a corpus never counts as the whole.
    """
    tables: list[pa.Table] = []
    modalities = corpus.modalities
    for pattern in corpus.paths:
        root, found = _Listing(pattern, corpus, own or Own(), [] if notes is None else notes).matches()
        rows = (_row(file, root, corpus, modalities) for file in _infos(found))
        tables.append(spill.spilled(spill.in_chunks(rows, FILE_ROWS), FILE_ROWS))
    return FileRows(tables[0] if len(tables) == 1 else _once(pa.concat_tables(tables)))


def _once(files: pa.Table) -> pa.Table:
    """The files without those that are in an earlier row already."""
    first = np.ones(files.num_rows, bool)
    for _, later in spill.repeats(files, "uri"):
        first[later] = False
    return spill.filtered(files, first)


def _gathered(files: Iterable[FileInfo]) -> pa.Table:
    """Table of `_LISTED`, by uri."""
    rows = ((name_bytes(file.uri), file.size, file.modified, file.version) for file in files)
    return spill.spilled(spill.sorted_pieces(spill.in_chunks(rows, _LISTED), ["uri"]), _LISTED)


def _infos(listed: pa.Table) -> Iterator[FileInfo]:
    for piece in spill.pieces(listed):
        columns = (column.to_pylist() for column in piece.columns)
        yield from (FileInfo(name_of(uri), *facts) for uri, *facts in zip(*columns, strict=True))


class _Listing:
    """What one glob of a corpus matches."""

    def __init__(self, pattern: str, corpus: Corpus, own: Own, notes: list[str]) -> None:
        self._pattern = pattern
        self._glob = Glob(pattern)
        self._corpus = corpus
        self._own = own
        self._notes = notes
        self._seen = filesystem.Seen()
        # The paths that the glob spells if none of its characters is a wildcard.
        self._spelled = list(dict.fromkeys([pattern, self._glob.spelled]))

    def matches(self) -> tuple[str, pa.Table]:
        """Root and files, a table of `_LISTED`."""
        root, found = self._listed()
        self._refuse_folders(found)
        own, markers = filesystem.Names(), filesystem.Names()
        is_own = self._own.test(root)

        def is_item(uri: str) -> bool:
            if is_own(uri):
                own.add(uri)
                return False
            if self._glob.has_wildcard and self._is_marker(uri):
                markers.add(uri)
                return False
            return True

        taken = np.fromiter((is_item(file.uri) for file in _infos(found)), bool, found.num_rows)
        files = spill.filtered(found, taken)
        if not files.num_rows:
            raise self._nothing(own)
        self._note("files of a checkpoint or of Milvus Lite", own)
        self._note("markers of other programs' jobs", markers)
        self._note("objects whose keys end in a slash", self._seen.markers)
        self._note("hidden files or folders (a name that begins with a dot needs one in the glob)", self._seen.hidden)
        return root, files

    def _note(self, what: str, names: filesystem.Names) -> None:
        if names.count:
            shown = ", ".join(map(repr, names.first)) + (", ..." if names.count > len(names.first) else "")
            self._notes.append(f"corpus.paths {self._pattern!r}: left out {names.count:,} {what}: {shown}")

    def _is_marker(self, uri: str) -> bool:
        name = posixpath.basename(uri)
        if name.startswith("_") and _MARKER.fullmatch(name):
            return self._corpus.format in (None, "parquet") or "metadata" not in name
        return False

    def _listed(self) -> tuple[str, pa.Table]:
        try:
            return self._find()
        except ValueError as error:
            if filesystem.is_local(self._pattern):
                raise ConfigurationError(f"corpus.paths {self._pattern!r}: {error}", "correct the path") from error
            scheme = self._pattern.split("://")[0]  # Beam knows no filesystem of that scheme
            raise ConfigurationError(
                f"corpus.paths {self._pattern!r}: there is no filesystem for {scheme}://: {error}",
                "write s3://, gs:// or az:// and install vecbeam[s3] or vecbeam[gcp], or give a local path",
            ) from error
        except StorageError as error:
            raise CorpusError(f"corpus.paths {self._pattern!r}: {error.message}", error.remedy) from error
        except OSError as error:
            raise CorpusError(
                f"corpus.paths {self._pattern!r} could not be listed to the end: {error}",
                "make every folder below it readable, or name only those that are; nothing was read",
            ) from error

    def _find(self) -> tuple[str, pa.Table]:
        glob = self._glob
        files = _gathered(filesystem.iterate(self._pattern, self._seen))
        if not glob.has_wildcard and files.num_rows and filesystem.is_local(self._pattern):
            self._refuse_special(glob.prefix)
        if not glob.has_wildcard or (files.num_rows and not filesystem.is_local(self._pattern)):
            return glob.root, files
        for path in self._spelled:
            beside = filesystem.Seen()
            named = filesystem.glob(filesystem.escape(path), beside)
            if beside.folders and not files.num_rows:
                raise self._is_folder(path)
            if not named or _first_from(named[0].uri, files) == named[0].uri:
                continue
            if files.num_rows:
                first = _first_from("", files)
                raise ConfigurationError(
                    f"corpus.paths {self._pattern!r} is the name of a file, and as a glob it matches {first!r}",
                    f"write {filesystem.escape(path)!r} for the file of that name; for the others rename it",
                )
            return path.rpartition("/")[0], _gathered(named)
        return glob.root, files

    def _refuse_special(self, path: str) -> None:
        try:
            mode = os.stat(path).st_mode
        except OSError:  # a dangling link is a reject, as any file that can't be opened
            return
        if not stat.S_ISREG(mode):
            raise ConfigurationError(
                f"corpus.paths {self._pattern!r} is {filesystem.kind_of(mode)}; only regular files are read",
                "write what it gives to a file, and name that",
            )

    def _refuse_folders(self, files: pa.Table) -> None:
        """Refuses a folder such as docs.parquet/ of parts instead of a file: it would be left out."""
        empty = filesystem.Names()
        for folder in self._seen.folders:
            known = suffixes(folder)[0] in format_of_suffix()
            if not self._glob.has_wildcard or (known and "**" not in self._pattern):
                raise self._is_folder(folder)
            if known and not _any_below(folder, files):
                empty.add(folder)
        self._note("folders in which the glob matches no file", empty)

    def _is_folder(self, folder: str) -> ConfigurationError:
        better = _glob_for(folder) or f"{filesystem.escape(folder.rstrip('/'))}/*.jsonl"
        return ConfigurationError(
            f"corpus.paths {self._pattern!r}: {folder!r} is a folder where a file is expected", f"write {better!r}"
        )

    def _nothing(self, own: filesystem.Names) -> ConfigurationError:
        text = f"corpus.paths {self._pattern!r} matches no file"
        if own.count:
            text += f" but {own.count:,} of a checkpoint or of Milvus Lite, such as {own.first[0]!r}"
        return ConfigurationError(text, _remedy_for_nothing(self._glob))


def _any_below(folder: str, files: pa.Table) -> bool:
    return (_first_from(f"{folder}/", files) or "").startswith(f"{folder}/")


def _first_from(uri: str, files: pa.Table) -> str | None:
    """The first uri of a table of `_LISTED` that is not less than this one."""
    at = spill.find(files.column("uri"), name_bytes(uri))
    return name_of(files.column("uri")[at].as_py()) if at < files.num_rows else None


def _row(
    file: FileInfo, root: str, corpus: Corpus, modalities: frozenset[Modality]
) -> tuple[bytes, bytes, int, float, str, str]:
    """A row of `FILE_ROWS`."""
    suffix, compression = suffixes(file.uri)
    format = corpus.format or format_of_suffix().get(suffix)
    if format is None:
        known = ", ".join(format_of_suffix())
        raise ConfigurationError(
            f"corpus.paths: the suffix of {file.uri!r} does not tell the format",
            f"set corpus.format, or let the globs match only files that end in {known} (and then "
            f"{', '.join(sorted(COMPRESSED))})",
        )
    if (modality := corpus.modality_of(format)) not in modalities:
        known = " and ".join(sorted(modalities))
        raise ConfigurationError(
            f"corpus.paths: {file.uri!r} is of the format {format} ({modality}); the corpus is {known}",
            f"let each glob end in a suffix, such as *{suffix}, which tells the modality of its files; for a corpus of "
            f"{modality} alone, set corpus.format: {format}",
        )
    if corpus.inputs and not holds_records(format):
        raise ConfigurationError(
            f"corpus.paths: {file.uri!r} is of the format {format}, in which a file is an item without fields, and "
            f"encoders embed fields ({', '.join(map(str, corpus.inputs.values()))})",
            "let the globs match files of records only",
        )
    path = file.uri[len(root) :].removeprefix("/")
    if filesystem.is_local(file.uri):
        path = path.replace(os.sep, "/")  # only Windows has another; elsewhere names may have backslashes
    kind = f"{format} {COMPRESSION_OF_SUFFIX.get(compression, '')}"
    return name_bytes(file.uri), name_bytes(path), file.size, file.modified, kind, file.version


def _glob_for(folder: str) -> str | None:
    """A glob that matches files of a folder: with its most frequent known suffix, across folders if necessary."""
    for depth in ("*", "**/*"):
        counts: Counter[str] = Counter()
        for path in _some_files(folder, depth):
            suffix, compression = suffixes(path)
            if suffix in format_of_suffix():
                counts[suffix + compression] += 1
        if counts:
            best = max(sorted(counts), key=lambda suffix: counts[suffix])
            return filesystem.join(filesystem.escape(folder), depth) + best
    return None


def _some_files(folder: str, depth: str, limit: int = 1000) -> list[str]:
    """Some files below a folder, except for those that vecbeam wrote."""
    try:
        found = filesystem.some_files(folder, depth, limit)
    except (OSError, ValueError):
        return []
    return [uri for uri in found if not looks_written(uri)]


def _remedy_for_nothing(glob: Glob) -> str:
    root = glob.root
    if filesystem.is_local(glob.pattern) and root and not Path(root).is_dir():
        return f"the folder {root!r} does not exist; local paths are relative to the configuration file"
    if escaped := _with_brackets_as_letters(glob.pattern):
        return f"write {escaped!r}, where [ and ] are letters; unescaped they stand for one of the letters in them"
    if root and (better := _glob_for(root)):
        return f"correct it; {better!r} would match existing files"
    if root and (there := _some_files(root, "**/*", 3)):
        return f"correct it; the folder holds {', '.join(map(repr, sorted(there)))}, whose suffixes are not known"
    return "correct the path or glob; ** crosses folders, and names that begin with a dot need one in the glob"


def _with_brackets_as_letters(pattern: str) -> str | None:
    """The glob with its brackets escaped, where that matches a local file."""
    escaped = re.sub(r"\[(?![*?\[]\])", "[[]", pattern)
    if escaped == pattern or not filesystem.is_local(pattern):
        return None
    try:
        return escaped if next(walk(Glob(escaped), filesystem.Seen()), None) else None
    except OSError:
        return None
