"""What is seen of a job on other machines while it runs: when its first worker answered, and its counters."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from apache_beam.metrics import MetricsFilter

from transforms.support import metrics

LOOK_S = 5.0
"""Seconds between two looks at the counters of a job."""


def counters_of(result: Any) -> Counter[str]:
    """vecbeam's counters of a pipeline, so far: committed ones, else those that workers report as they go."""
    found: Counter[str] = Counter()
    query = MetricsFilter().with_namespace(metrics.NAMESPACE)
    for metric in result.metrics().query(query)["counters"]:
        found[metric.key.metric.name] += metric.result or 0
    return found


def fresh_counters_of(result: Any) -> Counter[str]:
    """The counters of a job that still runs."""
    try:
        return counters_of(result)
    finally:
        # A portable job's result keeps its first answer: the counters at the end would be those of the first look.
        if getattr(result, "_metrics", None) is not None:
            result._metrics = None


class JobWatch:
    """Looks at a running job every few seconds, in a thread of its own: an answer may take long.

    Args:
        result: of the pipeline.
        seen: receives the counters of each look.
    """

    def __init__(self, result: Any, seen: Callable[[Mapping[str, int]], None]) -> None:
        self._result = result
        self._seen = seen
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="job counters", daemon=True)
        self.start_seconds: float | None = None
        """Seconds until a worker had counted something; None if none has."""

    def __enter__(self) -> JobWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(LOOK_S)  # then nobody asks for counters while the last ones are read

    @property
    def seconds(self) -> float:
        """Wall time since the job was submitted."""
        return time.monotonic() - self._began

    def _watch(self) -> None:
        wait = 0.5  # soon at first: this tells when the first worker answered
        while not self._ended.wait(wait):
            # A runner that does not tell counters of a running job, or a network that fails, is not a fault of the job.
            with contextlib.suppress(Exception):
                if found := fresh_counters_of(self._result):
                    self.note_start()
                    self._seen(found)
            wait = min(LOOK_S, wait * 1.5)

    def note_start(self) -> None:
        """Notes that a worker has counted something."""
        if self.start_seconds is None:
            self.start_seconds = round(self.seconds, 1)


def wall_times(counters: Mapping[str, int], seconds: float) -> Counter[str]:
    """Counters of a job whose times are wall time: the sums over all workers, scaled down to the length of the job.

    >>> wall_times({"read_us": 30_000_000, "embed_us": 90_000_000, "items_done": 7}, 12.0)
    Counter({'embed_us': 9000000, 'read_us': 3000000, 'items_done': 7})
    >>> wall_times({"load_us": 30_000_000, "index_us": 8_000_000, "verify_us": 10_000_000}, 12.0)
    Counter({'index_us': 8000000, 'load_us': 3000000, 'verify_us': 1000000})
    """
    alone = counters.get(ALONE, 0)
    total = sum(value for name, value in counters.items() if _is_summed(name))
    scale = min(1.0, max(0.0, seconds * 1e6 - alone) / total) if total else 1.0
    return Counter(
        {name: round(value * scale) if _is_summed(name) or name == BUSY else value for name, value in counters.items()}
    )


def _is_summed(name: str) -> bool:
    return name.endswith("_us") and name not in (BUSY, ALONE)


BUSY = "encoder_busy_us"
"""Is a part of `embed_us`."""
ALONE = "index_us"
"""Of one worker, while no other works on the job."""
