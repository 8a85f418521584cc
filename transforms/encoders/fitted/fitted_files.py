"""A fitted model as files: terms as JSON, arrays as safetensors, and a manifest that names both by their SHA-256.

The digest of the manifest is the name of the folder, and the weights of the space. The manifest is written last, so
that a folder with a manifest is whole. No file can run code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import EncoderError, StorageError
from schemas.identity import digest, digest_bytes
from transforms.support.storage import filesystem

FORMAT = 1
FOLDER = "fitted"
"""Of a corpus' folder in the checkpoint: the fitted models, each in a folder named by its digest."""
MANIFEST = "manifest.json"
_TERMS = "terms.json"
_ARRAYS = "arrays.safetensors"
_DIGITS = 32
REFIT = (
    "restore that folder from a copy, or run vecbeam reindex --refit: it fits a model on the corpus as it is now, and "
    "embeds everything with it"
)
Arrays = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Learned:
    """The result of a fit.

    Attributes:
        terms: that the model knows; the rows of its arrays belong to them.
        arrays: float32, by name.
    """

    terms: Sequence[str]
    arrays: Arrays

    @cached_property
    def places(self) -> Mapping[str, int]:
        """The row of each term."""
        return {term: row for row, term in enumerate(self.terms)}


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fitted model: in memory, or in the folder of a checkpoint.

    Attributes:
        manifest: see `manifest_of`.
        folder: uri; "" in memory.
        contents: the files' bytes, by name, of a model in memory.
    """

    manifest: Mapping[str, Any]
    folder: str = ""
    contents: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the manifest, hex: the weights of the space."""
        return digest(dict(self.manifest), 64)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fitted) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def items(self) -> int:
        """How many items it was fitted on."""
        return int(self.manifest["items"])

    @property
    def dimensions(self) -> int:
        """Numbers of its vectors."""
        return int(self.manifest["dimensions"])

    def read(self) -> Learned:
        """Terms and arrays; read once in a process.

        Raises:
            EncoderError: if a file is missing or damaged.
        """
        return _read(self)

    def write(self, root: str) -> Fitted:
        """Writes the files into the checkpoint's folder; one that exists is written again, with the same bytes.

        Args:
            root: the corpus' folder in the checkpoint.

        Raises:
            CheckpointError: if they can't be written.
        """
        folder = folder_of(root, self.digest)
        for name, data in self.contents.items():
            filesystem.write_atomic(filesystem.join(folder, name), data)
        filesystem.write_atomic(filesystem.join(folder, MANIFEST), _json(dict(self.manifest)))
        return Fitted(self.manifest, folder)

    def _file(self, name: str) -> bytes:
        data = self.contents[name] if self.contents else _bytes(filesystem.join(self.folder, name))
        if digest_bytes([data]) != self.manifest["files"][name]:
            raise EncoderError(f"the fitted model in {self.folder} is damaged: {name} is not what was written", REFIT)
        return data


@lru_cache(maxsize=4)
def _read(fitted: Fitted) -> Learned:
    from safetensors.numpy import load

    terms: list[str] = json.loads(fitted._file(_TERMS))
    return Learned(terms, load(fitted._file(_ARRAYS)))


def in_memory(learned: Learned, settings: Mapping[str, Any], items: int, dimensions: int) -> Fitted:
    """A model that was just fitted.

    Args:
        settings: what the model was fitted with, as plain JSON; see `TermModel.fit_facts`.
        items: how many items it was fitted on.
    """
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in learned.arrays.items()}
    contents = {_TERMS: _json(list(learned.terms)), _ARRAYS: save(arrays)}
    manifest = {
        "format": FORMAT,
        "settings": dict(settings),
        "items": items,
        "dimensions": dimensions,
        "files": {name: digest_bytes([data]) for name, data in contents.items()},
    }
    return Fitted(manifest, contents=contents)


def folder_of(root: str, model: str) -> str:
    """The folder of a fitted model.

    Args:
        root: the corpus' folder in the checkpoint.
        model: its digest.
    """
    return filesystem.join(root, FOLDER, model[:_DIGITS])


def open_fitted(folder: str) -> Fitted:
    """The model in a folder. Its manifest is checked against the folder's name, its other files when they are read.

    Raises:
        EncoderError: if the manifest is missing, damaged or of a newer format.
    """
    try:
        manifest = json.loads(_bytes(filesystem.join(folder, MANIFEST)))
    except ValueError as error:
        raise EncoderError(f"the fitted model in {folder} is damaged: {MANIFEST}: {error}", REFIT) from error
    if isinstance(manifest, dict) and manifest.get("format", 0) > FORMAT:
        raise EncoderError(
            f"the fitted model in {folder} has format {manifest['format']}; this vecbeam reads format {FORMAT}",
            "use the vecbeam that made it, or a newer one",
        )
    if digest(manifest, 64)[:_DIGITS] != folder.rpartition("/")[2]:
        raise EncoderError(f"the fitted model in {folder} is damaged: {MANIFEST} is not what was written", REFIT)
    return Fitted(manifest, folder)


def _bytes(uri: str) -> bytes:
    try:
        return filesystem.read_bytes(uri)
    except StorageError:
        raise
    except FileNotFoundError as error:
        folder, _, name = uri.rpartition("/")
        raise EncoderError(f"the fitted model in {folder} is incomplete: there is no {name}", REFIT) from error
    except OSError as error:
        raise EncoderError(
            f"can't read {uri} of the fitted model: {error.strerror or error}", "make it readable for this user"
        ) from error


def _json(value: Any) -> bytes:
    return (json.dumps(value, sort_keys=True, ensure_ascii=False, indent=1) + "\n").encode()
