"""Which of a checkpoint's fitted models a configuration uses."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from schemas.errors import EncoderError
from schemas.layout import VECTORS, Space
from transforms.encoders.fitted.fitted_files import FOLDER, MANIFEST, Fitted, folder_of, open_fitted
from transforms.support.storage import filesystem

log = logging.getLogger("vecbeam")


def _none() -> Iterable[Space]:
    return ()


@dataclass(frozen=True)
class KeptFits:
    """The fitted models of a checkpoint, for one vector.

    Attributes:
        root: the corpus' folder in the checkpoint; "" for none.
        spaces: gives spaces of rows that name fitted models, the first that fits counts: what is served, then what
            the snapshots have. Called only for a model that is fitted.
        vector: name of the vector, in a space of several.
        any_whole: whether a model that no space names counts too: that of a run which ended before its snapshot.
    """

    root: str = ""
    spaces: Callable[[], Iterable[Space]] = _none
    vector: str = ""
    any_whole: bool = True

    def find(self, settings: Mapping[str, Any]) -> Fitted | None:
        """The model that was fitted with some settings; None if there is none.

        Args:
            settings: see `TermModel.fit_facts`.

        Raises:
            EncoderError: if a space names one that is missing or damaged.
        """
        if not self.root:
            return None
        for space in self.spaces():
            facts = space.facts.get(VECTORS, {}).get(self.vector, {}) if VECTORS in space.facts else space.facts
            if all(facts.get(name) == value for name, value in settings.items()):
                return open_fitted(folder_of(self.root, str(facts["weights"])))
        return self._unnamed(settings) if self.any_whole else None

    def _unnamed(self, settings: Mapping[str, Any]) -> Fitted | None:
        for file in filesystem.list_files(filesystem.join(self.root, FOLDER), f"*/{MANIFEST}"):
            try:
                found = open_fitted(file.uri.rpartition("/")[0])
                if found.manifest["settings"] == settings:
                    found.read()
                    return found
            except EncoderError as error:
                log.warning("%s; vecbeam fits it again", error.message)
        return None


def fits_of(space: Space) -> set[str]:
    """Names of the folders of the fitted models that a space may name."""
    vectors = space.facts[VECTORS].values() if VECTORS in space.facts else [space.facts]
    return {folder_of("", str(facts["weights"])).rpartition("/")[2] for facts in vectors if "weights" in facts}


NO_FITS = KeptFits()
"""Of no checkpoint."""
