"""Ids as numbers: eight bytes of memory each, however long they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def fingerprints(ids: Sequence[str]) -> NDArray[np.int64]:
    """The interpreter's own hash of each id, int64[n]: the same for the length of this process alone."""
    return np.fromiter(map(hash, ids), np.int64, len(ids))
