"""A check of a set-up: what was looked at, whether it is right, and what to do if it is not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum


class CheckOutcome(StrEnum):
    OK = "ok"
    WARN = "warn"
    """It works, but slower or less safely than it could."""
    FAIL = "fail"
    """A run would fail."""
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: what was looked at.
        message: what was found.
        remedy: what to do; "" where nothing is to be done.
    """

    name: str
    outcome: CheckOutcome
    message: str
    remedy: str = ""

    def as_json(self) -> dict[str, str]:
        return asdict(self)


def ok(name: str, message: str) -> Check:
    """A check whose result is right."""
    return Check(name, CheckOutcome.OK, message)


def warn(name: str, message: str, remedy: str) -> Check:
    """A check that found something a user should know."""
    return Check(name, CheckOutcome.WARN, message, remedy)


def fail(name: str, message: str, remedy: str) -> Check:
    """A check that found what would make a run fail."""
    return Check(name, CheckOutcome.FAIL, message, remedy)


def skipped(name: str, message: str) -> Check:
    """A check that was not made, and why."""
    return Check(name, CheckOutcome.SKIPPED, message)
