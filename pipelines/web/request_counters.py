"""What a server tells of itself to monitoring, in OpenMetrics."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0)


class RequestCounters:
    """Counters of one server."""

    def __init__(self, name: str) -> None:
        self._registry = CollectorRegistry()
        keys: dict[str, Any] = {"registry": self._registry}
        self.requests = Counter("vecbeam_requests", "Requests answered", ["path", "status"], **keys)
        self.seconds = Histogram("vecbeam_request_seconds", "Seconds of a request", ["path"], buckets=_SECONDS, **keys)
        info = Gauge("vecbeam_served", "The alias that this server searches", ["alias"], **keys)
        info.labels(name).set(1)

    def observe(self, path: str, status: int, seconds: float) -> None:
        """Counts a request."""
        self.requests.labels(path, str(status)).inc()
        self.seconds.labels(path).observe(seconds)

    def text(self) -> bytes:
        """All numbers, in the format of OpenMetrics."""
        data: bytes = generate_latest(self._registry)  # type: ignore[no-untyped-call]
        return data
