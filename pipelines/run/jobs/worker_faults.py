"""What the failure of a job means: a worker's own error, or a job that its runner gave up."""

from __future__ import annotations

import re

from schemas.errors import VecbeamError, from_traceback
from schemas.rejects import shortened

_LONGEST = 500
_LABEL = re.compile(r"( \[while running .*\])+$")
_ACCELERATOR = re.compile(r"guestAccelerators|acceleratorTypes?\b|accelerator type", re.IGNORECASE)
_FAILED = re.compile(r"Pipeline \S+ failed in state (\w+):?|Dataflow pipeline failed\. State: (\w+)")


def worker_fault(text: str) -> VecbeamError | None:
    """The error behind the text of a runner's exception; None if it is none that a user can act on.

    >>> worker_fault("schemas.errors.CorpusError: no id [while running 'Read']")
    CorpusError('no id')
    """
    return from_traceback(text) or _failed_job(text)


def _failed_job(text: str) -> VecbeamError | None:
    """A job that its runner gave up: for a worker that was lost, or an error that is not one of vecbeam's."""
    found = _FAILED.search(text)
    if found is None:
        return None
    lines = [line.strip() for line in text[found.end() :].splitlines() if line.strip()]
    reason = shortened(_LABEL.sub("", lines[-1]), _LONGEST) if lines else "its runner gives no reason"
    remedy = ""
    if _ACCELERATOR.search(text):
        remedy = (
            "if the region or zone does not have the accelerator (gcloud compute accelerator-types list shows which "
            "do), change runner.region, runner.worker_zone or encoder.accelerator; else "
        )
    return VecbeamError(
        f"the job on other machines ended as {found[1] or found[2]}: {reason}",
        f"{remedy}see the logs of the job and its workers; what was written is kept, and the same command continues "
        "from there",
    )
