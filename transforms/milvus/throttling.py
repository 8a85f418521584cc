"""Which answers of Milvus ask a client to slow down, and which say that it is of no use to wait.

The codes are those of Milvus' `pkg/util/merr/errors.go`
(https://github.com/milvus-io/milvus/blob/master/pkg/util/merr/errors.go) and, for servers up to 2.3, those of
`ErrorCode` in `common.proto` of https://github.com/milvus-io/milvus-proto, which pymilvus has as `compatible_code`.
"""

from __future__ import annotations

import re

THROTTLED_CODES = frozenset({4, 8, 9, 11, 1807})
"""Queue full, rate limit, quota exceeded (the memory high-water mark among others), time tick delay, HTTP limiter."""
THROTTLED_OLD_CODES = frozenset({48, 49, 53, 55})
"""ForceDeny, RateLimit, MemoryQuotaExhausted, TimeTickLongDelay."""
_THROTTLED = re.compile(
    r"rate limit|too many (concurrent )?requests|queue is full|rejected by (the )?(rate )?limiter|memory quota"
    r"|quota (exceeded|exhausted)|force ?deny|deny to write|time ?tick (long )?delay"
    r"|number of jobs has reached the limit|import task queue max size",
    re.IGNORECASE,
)
_IN_VAIN = re.compile(r"disk quota|disk limit|disabled by the administrator", re.IGNORECASE)


def is_throttling(code: int, old_code: int, text: str) -> bool:
    """Whether an answer asks to slow down.

    Args:
        code: of the answer; 0 if it has none.
        old_code: as servers up to 2.3 number it; 0 if it has none.
        text: of the answer.

    >>> is_throttling(8, 0, "rate limit exceeded[rate=0.5]"), is_throttling(9, 0, "quota exceeded: disk quota exceeded")
    (True, False)
    """
    if is_in_vain(text):
        return False
    return code in THROTTLED_CODES or old_code in THROTTLED_OLD_CODES or bool(_THROTTLED.search(text))


def is_in_vain(text: str) -> bool:
    """Whether writing stays refused until a person does something: a full disk, or a database that was closed."""
    return bool(_IN_VAIN.search(text))
