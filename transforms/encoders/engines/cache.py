"""Results for a model, kept on disk once per machine by fingerprint: conversions, and comparisons with torch.

Each is a folder `<cache>/<fingerprint>` with manifest.json, which names its files with their SHA-256. It is made next
to and renamed into place, so that it is whole or does not exist; a damaged one is made again. The cache is the folder
`VECBEAM_CACHE` names, or `vecbeam` in the user's cache folder; it may be deleted at any time, and is shared by the
workers of a machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from schemas.errors import EncoderError
from schemas.identity import digest
from transforms.encoders.engines.transformer_files import TransformerFiles
from transforms.support.extras import version_of

log = logging.getLogger("vecbeam")
FORMAT = 1
_MANIFEST = "manifest.json"
_ORIGIN = "origin.json"
_SETTINGS = ("modules.json", "config.json", "sentence_bert_config.json", "router_config.json")


def cache_folder() -> Path:
    """The folder of the cache."""
    named = os.environ.get("VECBEAM_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vecbeam"


class Origin(NamedTuple):
    """What determines an entry of the cache.

    Attributes:
        model: digest of the model's files.
        versions: of the packages that make it; None for one that is not installed here.
        more: what else there is.
    """

    model: str
    versions: dict[str, str | None]
    more: tuple[str, ...]
    fingerprint: str

    @classmethod
    def of(cls, model: TransformerFiles, packages: Sequence[str], *more: str) -> Origin:
        """The origin of an entry that is made from a model's files.

        Args:
            packages: the packages that make it.
        """
        settings = [
            path.read_text(encoding="utf-8")
            for path in sorted(Path(model.folder).rglob("*.json"))
            if path.name in _SETTINGS
        ]
        graph = [model.weights, settings, *([model.route] if model.route else [])]
        versions = {name: version_of(name) for name in packages}
        return cls(digest(graph, 32), versions, more, digest([FORMAT, graph, [*versions.values()], *more], 32))

    @classmethod
    def named(cls, name: str, *more: str) -> Origin:
        """The origin of an entry that its name and some facts determine."""
        return cls(name, {}, more, digest([FORMAT, name, *more], 32))

    def followed(self, *by: str) -> Origin:
        """The origin of an entry that is made from this entry."""
        return Origin(self.model, self.versions, (*self.more, *by), digest([self.fingerprint, *by], 32))

    def allows(self, kept: object) -> bool:
        """Whether what is kept was made of the same, by the same versions of those packages that are installed here."""
        if not isinstance(kept, dict) or kept.get("model") != self.model or kept.get("more") != [*self.more]:
            return False
        versions = kept.get("versions")
        return isinstance(versions, dict) and all(
            name in versions and here in (None, versions[name]) for name, here in self.versions.items()
        )


def kept(origin: Origin, make: Callable[[Path], None]) -> Path:
    """The folder of an entry; makes a missing or damaged one.

    If a package that makes it is not installed, an entry of another machine or environment counts too: a cache folder
    can be copied.

    Args:
        make: writes files into the given folder.

    Raises:
        EncoderError: if the cache can't be written.
    """
    found = find(origin)
    if found is not None:
        return found
    folder = cache_folder() / origin.fingerprint
    if folder.exists():
        log.warning("the cached model in %s is damaged; making it again", folder)
        _remove(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{origin.fingerprint}-", dir=folder.parent))
    except OSError as error:
        raise EncoderError(
            f"can't write the cache of models to {folder.parent}: {error.strerror}",
            "name a folder that can be written with VECBEAM_CACHE; a transformer needs none with encoder.engine: torch",
        ) from error
    try:
        make(beside)
        with contextlib.suppress(OSError):  # an error of the disk is the seal's to report
            (beside / _ORIGIN).write_text(json.dumps(origin._asdict()))
        _seal(beside)
        # Another worker may have been faster; its folder is as good.
        with contextlib.suppress(OSError):
            beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def find(origin: Origin) -> Path | None:
    """The folder of an existing, whole entry; None if there is none."""
    folder = cache_folder() / origin.fingerprint
    if folder.exists() and _is_whole(folder):
        return folder
    if None not in origin.versions.values():
        return None
    for other in sorted(cache_folder().glob(f"*/{_ORIGIN}")):
        try:
            fits = origin.allows(json.loads(other.read_text()))
        except (OSError, ValueError):
            continue
        if fits and not other.parent.name.startswith(".") and _is_whole(other.parent):
            return other.parent
    return None


def _remove(folder: Path) -> None:
    # Out of the way in one step, so that no other worker meets half of it.
    away = Path(tempfile.mkdtemp(prefix=".damaged-", dir=folder.parent))
    with contextlib.suppress(FileNotFoundError):
        folder.rename(away / folder.name)
    shutil.rmtree(away, ignore_errors=True)


def _seal(folder: Path) -> None:
    try:
        files = {file.name: _sha256(file) for file in sorted(folder.iterdir())}
        (folder / _MANIFEST).write_text(json.dumps(files))
    except OSError as error:
        raise cant_write(folder, error) from error


def cant_write(folder: Path, error: Exception) -> EncoderError:
    """For what fails while a folder is being made."""
    return EncoderError(
        f"can't write the cache of models to {folder.parent}: {error}",
        "free some space, or name another folder with VECBEAM_CACHE",
    )


def _is_whole(folder: Path) -> bool:
    try:
        files = json.loads((folder / _MANIFEST).read_text())
        return bool(files) and all(_sha256(folder / name) == found for name, found in files.items())
    except (OSError, ValueError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
