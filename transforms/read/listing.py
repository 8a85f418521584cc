"""Which files are the corpus: globs to files with a format, in corpus order. Nothing is opened here."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from schemas.config import Corpus
from schemas.errors import ConfigurationError, CorpusError
from schemas.globs import Glob
from transforms import filesystem
from transforms.walking import FileInfo, walk

FORMAT_OF_SUFFIX = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".txt": "text",
    ".text": "text",
    ".rst": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".pdf": "pdf",
}
COMPRESSION_OF_SUFFIX = {".gz": "gzip", ".zst": "zstd", ".bz2": "bzip2"}
RECORD_FORMATS = frozenset({"jsonl", "csv", "parquet"})
"""Formats whose files hold many items; in the others a file is an item."""


@dataclass(frozen=True)
class SourceFile:
    """A file of the corpus.

    `path` is relative to its glob's root, with forward slashes, and so the same wherever the corpus is moved; `size` is
    bytes as they lie in storage; `modified` is seconds since the epoch; `compression` is "", gzip, zstd or bzip2.
    """

    uri: str
    path: str
    size: int
    modified: float
    format: str
    compression: str

    @property
    def shown(self) -> str:
        """The uri as valid text: bytes of a file name that are no UTF-8 are escaped."""
        return self.uri.encode("utf-8", "backslashreplace").decode()

    @property
    def delimiter(self) -> str:
        """The delimiter of a CSV file: a tab where the suffix is .tsv."""
        return "\t" if _suffixes(self.path)[0] == ".tsv" else ","


def list_corpus(corpus: Corpus) -> list[SourceFile]:
    """All files of the corpus in corpus order: by glob, then by uri. A file that two globs match counts once.

    Args:
        corpus: its paths are absolute, or URIs.

    Raises:
        ConfigurationError: a glob that matches no file, a folder in place of a file, a suffix that tells no format.
        CorpusError: a listing that fails; a part of a corpus is never taken for the whole.
    """
    found: dict[str, SourceFile] = {}
    for pattern in corpus.paths:
        root, files = _matches(pattern)
        for file in files:
            if file.uri not in found:
                found[file.uri] = _source_file(file, root, corpus)
    return list(found.values())


def _matches(pattern: str) -> tuple[str, list[FileInfo]]:
    """The root of a glob, and the files that it matches."""
    glob = Glob(pattern)
    root, files, folders = _listed(pattern, glob)
    for folder in folders:
        # A folder such as docs.parquet/ of parts, which would be left out.
        if not glob.has_wildcard or folder in _spelled(glob) or _suffixes(folder)[0] in FORMAT_OF_SUFFIX:
            raise ConfigurationError(
                f"corpus.paths {pattern!r}: {folder!r} is a folder where a file is expected",
                f"write {_glob_for(folder)!r}",
            )
    if not files:
        raise ConfigurationError(f"corpus.paths {pattern!r} matches no file", _remedy_for_nothing(glob))
    return root, files


def _listed(pattern: str, glob: Glob) -> tuple[str, list[FileInfo], list[str]]:
    """Root and files of a glob, and folders in place of files."""
    seen = filesystem.Seen()
    try:
        files = [file for file in filesystem.glob(pattern, seen) if not file.uri.endswith("/")]
        if not glob.has_wildcard or (files and not filesystem.is_local(pattern)):
            return glob.root, files, seen.folders
        for path in _spelled(glob):
            named = filesystem.glob(filesystem.escape(path), seen)
            if not named or named[0] in files:
                continue
            if files:
                raise ConfigurationError(
                    f"corpus.paths {pattern!r} is the name of a file, and as a glob it matches {files[0].uri!r}",
                    f"write {filesystem.escape(path)!r} for the file of that name, and rename it otherwise",
                )
            return path.rpartition("/")[0], named, []
    except ValueError as error:  # Beam knows no filesystem of that scheme
        scheme = pattern.split("://")[0]
        raise ConfigurationError(
            f"corpus.paths {pattern!r}: there is no filesystem for {scheme}://: {error}",
            "write gs:// or s3:// and install vecbeam[gcp] or vecbeam[s3], or give a local path",
        ) from error
    except OSError as error:
        raise CorpusError(
            f"corpus.paths {pattern!r} could not be listed to the end: {error}",
            "make every folder below it readable, or name only those that are; nothing was read",
        ) from error
    return glob.root, files, [folder for folder in seen.folders if "**" not in pattern or folder in _spelled(glob)]


def _spelled(glob: Glob) -> list[str]:
    """The paths that a glob is if none of its letters is a wildcard."""
    return list(dict.fromkeys([glob.pattern, glob.spelled]))


def _source_file(file: FileInfo, root: str, corpus: Corpus) -> SourceFile:
    suffix, compression = _suffixes(file.uri)
    format = corpus.format or FORMAT_OF_SUFFIX.get(suffix)
    if format is None:
        known = ", ".join(FORMAT_OF_SUFFIX)
        raise ConfigurationError(
            f"corpus.paths: the suffix of {file.uri!r} tells no format",
            f"set corpus.format, or let the globs match only files that end in {known} (and then .gz, .zst or .bz2)",
        )
    path = file.uri[len(root) :].removeprefix("/")
    if filesystem.is_local(file.uri):
        path = path.replace(os.sep, "/")  # only Windows has another; elsewhere a backslash is a letter of a name
    return SourceFile(file.uri, path, file.size, file.modified, format, COMPRESSION_OF_SUFFIX.get(compression, ""))


def _suffixes(path: str) -> tuple[str, str]:
    """Suffix of the format and of the compression, lower case: ("docs.jsonl.gz") -> (".jsonl", ".gz")."""
    stem, suffix = posixpath.splitext(posixpath.basename(path.lower()))
    if suffix in COMPRESSION_OF_SUFFIX:
        return posixpath.splitext(stem)[1], suffix
    return suffix, ""


def _glob_for(folder: str) -> str:
    """A glob that matches what a local folder holds: of its most frequent known suffix, across folders if need be."""
    for depth in ("*", "**/*"):
        counts: dict[str, int] = {}
        for path in _some_files(folder, depth):
            suffix, compression = _suffixes(path)
            if suffix in FORMAT_OF_SUFFIX:
                counts[suffix + compression] = counts.get(suffix + compression, 0) + 1
        if counts:
            best = max(sorted(counts), key=lambda suffix: counts[suffix])
            return f"{filesystem.escape(folder)}/{depth}{best}"
    return f"{filesystem.escape(folder)}/*.jsonl"


def _some_files(folder: str, depth: str, limit: int = 1000) -> Iterator[str]:
    found = walk(Glob(filesystem.join(filesystem.escape(folder), depth)), filesystem.Seen())
    return (file.uri for file in islice(found, limit))


def _remedy_for_nothing(glob: Glob) -> str:
    root = glob.root
    if filesystem.is_local(glob.pattern) and root and not Path(root).is_dir():
        return f"the folder {root!r} does not exist; local paths are relative to the configuration file"
    if filesystem.is_local(glob.pattern) and root and any(_some_files(root, "**/*")):
        return f"correct it; with what is there, {_glob_for(root)!r} would match"
    return "correct the path or glob; ** crosses folders, and names that begin with a dot need one in the glob"
