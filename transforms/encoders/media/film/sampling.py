"""Which frames of a segment of a film a model gets."""

from __future__ import annotations

from typing import Any, NamedTuple

from transforms.encoders.media.film.film import MAX_SECONDS


class Sampling(NamedTuple):
    """How many frames of a segment, by time: a film may have frames of different lengths.

    Attributes:
        frames: of each segment; with `per_second` the most that it may have.
        per_second: frames per second; None for the same number of frames for each segment.
    """

    frames: int
    per_second: float | None = None

    @property
    def longest(self) -> float:
        """The longest segment, in seconds; what is over it is dropped and counted."""
        return float(MAX_SECONDS) if self.per_second is None else self.frames / self.per_second

    @property
    def facts(self) -> dict[str, Any]:
        """Facts of a space."""
        each = {} if self.per_second is None else {"frames_per_second": self.per_second}
        return {"frames": self.frames, **each, "at": "the middles of equal parts"}

    def times(self, start: float, end: float) -> list[float]:
        """The times at which frames are taken: the middles of equal parts of a segment.

        >>> Sampling(4).times(10.0, 18.0)
        [11.0, 13.0, 15.0, 17.0]
        >>> Sampling(32, 0.5).times(0.0, 5.0)
        [1.0, 3.0]
        """
        if self.per_second is None:
            count, part = self.frames, (end - start) / self.frames
        else:
            count = max(1, min(self.frames, int((end - start) * self.per_second + 1e-6)))
            part = min(1 / self.per_second, end - start)
        return [start + (number + 0.5) * part for number in range(count)]
