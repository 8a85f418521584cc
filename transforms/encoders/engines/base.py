"""The protocol of an engine: runs a model's tensors on one kind of hardware."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from transforms.encoders.engines.tokens import TokenTable

Finished = Callable[[NDArray[np.int64], NDArray[np.float32]], None]
"""Takes the places of texts in their table (int64[n]) and their vectors (float32[n, own dimensions])."""


class Ran(NamedTuple):
    """The work of embedding a table.

    Attributes:
        padded: padding tokens that went through the model.
        busy_seconds: for which the device computed; of several devices their mean.
    """

    padded: int
    busy_seconds: float


class Engine(Protocol):
    """A model, loaded, that turns tokens into vectors. Several threads may call `run` at once."""

    def run(self, tokens: TokenTable, finished: Finished) -> Ran:
        """Puts a table through the model in batches of its own choice.

        Args:
            finished: called for each batch, in any order, by one thread at a time; each text is in one call.

        Raises:
            Exception: whatever the model raises; some batches may have been finished.
        """
        ...

    def runtime(self) -> dict[str, str]:
        """Engine, device, the precision that is really used, processor and library versions."""
        ...
