"""Where the files of a model are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError
from transforms.encoders import hub
from transforms.encoders.catalogue import CATALOGUE, CatalogueEntry

_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")


@dataclass(frozen=True)
class ModelSource:
    """The files of a configuration's model: of the catalogue, in a folder, or on the hub.

    Nothing is looked for or fetched before `folder` is called. No model brings code of its own.
    """

    config: EncoderConfig

    @cached_property
    def entry(self) -> CatalogueEntry | None:
        """What the catalogue has under the model's name or hub id, at the configured revision."""
        name, revision = self.config.model, self.config.revision
        entry = CATALOGUE.get(name) or next((each for each in CATALOGUE.values() if each.hub_id == name), None)
        return entry if entry is not None and revision in (None, entry.revision) else None

    @property
    def weights_sha256(self) -> str:
        """What the SHA-256 of the weights must be; "" where it is not pinned."""
        return self.entry.weights_sha256 if self.entry is not None else ""

    def folder(self) -> Path:
        """The folder that holds the files on this machine.

        Raises:
            ConfigurationError: where the name means nothing.
            EncoderError: where files can't be fetched.
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


def _catalogue_folder(entry: CatalogueEntry) -> Path:
    if entry.package:
        from importlib.util import find_spec

        spec = find_spec(entry.package)
        if spec is not None and spec.origin is not None:
            return Path(spec.origin).parent / "model"
    return hub.fetch(entry.hub_id, entry.revision)
