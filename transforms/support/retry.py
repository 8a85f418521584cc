"""Retries transient errors (network, rate limits) with backoff, and counts the retries. Raises all others at once."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

import tenacity

from transforms.support import metrics, stop

log = logging.getLogger("vecbeam")

# Beam's object stores report some of these as a server's error.
_FOR_GOOD = re.compile(
    r"credential|NoSuchBucket|AccessDenied|access denied|InvalidAccessKeyId|SignatureDoesNotMatch|forbidden",
    re.IGNORECASE,
)
FOR_GOOD = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)


def passes(error: BaseException) -> bool:
    """Whether a filesystem's error is transient: connection errors, time-outs, 408, 429 and 5xx answers."""
    if isinstance(error, FOR_GOOD):
        return False
    if _FOR_GOOD.search(str(error)):
        return False
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    code = getattr(error, "code", None) or getattr(error, "status_code", None)
    if isinstance(code, int):
        return code in (408, 429) or 500 <= code < 600
    return False


def _named_wait(state: tenacity.RetryCallState) -> float:
    """Seconds that a server tells vecbeam to wait; 0 if it does not say."""
    error = state.outcome.exception() if state.outcome else None
    return float(getattr(error, "retry_after", None) or 0.0)


def retrying(
    what: str,
    seconds: float = 60.0,
    passing: Callable[[BaseException], bool] = passes,
    words: Callable[[BaseException], str] = str,
) -> Callable[..., Any]:
    """Returns a caller that retries `function(*args)` while its errors are transient, for at most `seconds`.

    An error may have `retry_after`, seconds that the server tells vecbeam to wait; one that is longer than `seconds` is
    raised at once. Each further attempt adds one to the counter `retries` and a line to the log, with
    the `words` of the error.
    """

    def again(state: tenacity.RetryCallState) -> None:
        metrics.count("retries", 1)
        error = state.outcome.exception() if state.outcome else None
        said = " ".join(words(error).split()) if error is not None else ""
        log.warning("%s failed (%s), attempt %d follows", what, said, state.attempt_number + 1)

    backoff = tenacity.wait_exponential_jitter(initial=0.2, max=10.0)
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(passing),
        wait=lambda state: max(backoff(state), _named_wait(state)),
        stop=lambda state: (state.seconds_since_start or 0.0) >= seconds or _named_wait(state) > seconds,
        before_sleep=again,
        sleep=stop.sleep,
        reraise=True,
    )
