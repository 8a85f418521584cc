"""Errors of vecbeam. Each message names the place, the value and the remedy, in one line.

VecbeamError             exit code 1
├── ConfigurationError   exit code 2   a mistake in the configuration or the command; nothing was read or written
├── CorpusError                        the corpus can't be read as configured (duplicate ids, a file that vanished)
├── EncoderError                       a model can't be found, loaded or run
│   └── MissingExtraError exit code 2  it needs packages that are not installed
├── CheckpointError                    the checkpoint can't be read or written
│   └── LockedError                    another run is at work on it
├── StorageError                       a store does not answer, or refuses: also an OSError
├── CollectionError                    Milvus does not answer, refuses, or holds something else
│   └── SpaceMismatchError             vectors of two spaces would be mixed
├── JobEndedError                      somebody cancelled, drained or replaced the job on other machines
├── VersionMismatchError               a worker has another vecbeam than the machine that starts the run, or none
├── GateError            exit code 3   a check before publication failed; the alias was not moved
├── RejectsError         exit code 4   more rejects or dropped tokens than the configuration allows
└── InterruptedRunError  exit code 130 stopped by Ctrl-C; the same command continues
    └── JobLeftError     exit code 0 or 130  the command ends, and its job on other machines runs on
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any


class VecbeamError(Exception):
    """Base of all errors that a user can act on.

    Args:
        message: what is wrong, with the place and the value.
        remedy: what to do about it.
    """

    exit_code = 1
    report: Any = None
    """The report of the run that it ended, if there is one."""

    def __init__(self, message: str, remedy: str = "") -> None:
        self.message = " ".join(message.split())
        self.remedy = " ".join(remedy.split())
        # As two arguments, so that message and remedy stay apart where Beam adds a step's name to the first of them.
        super().__init__(*([self.message, self.remedy] if self.remedy else [self.message]))

    def __str__(self) -> str:
        return f"{self.message.rstrip('.')}. {self.remedy}".strip() if self.remedy else self.message

    def __reduce__(self) -> tuple[type[VecbeamError], tuple[str, str]]:
        return type(self), (self.message, self.remedy)

    def facts(self) -> dict[str, str]:
        """The error as `error` of a report and of every JSON has it: class, message and remedy."""
        return {"class": type(self).__name__, "message": self.message, "remedy": self.remedy}


class ConfigurationError(VecbeamError):
    exit_code = 2
    lines: tuple[str, ...] = ()
    """Each mistake as a line of its own, where there may be several."""

    @classmethod
    def listing(cls, lines: Iterable[str]) -> ConfigurationError:
        """The error of several mistakes, each complete with place, value and remedy."""
        taken = tuple(" ".join(line.split()) for line in lines)
        error = cls("; ".join(taken))
        error.lines = taken
        return error


class CorpusError(VecbeamError):
    pass


class EncoderError(VecbeamError):
    pass


class MissingExtraError(EncoderError):
    exit_code = 2


class CheckpointError(VecbeamError):
    pass


class LockedError(CheckpointError):
    job: Any = None
    """The job (`transforms.support.job.Job`) that still runs, although the process that started it is gone."""
    run_id: str = ""
    """The run that the job is of."""


class StorageError(VecbeamError, OSError):
    """A fault of the store or of the way to it, never of the file: nothing there needs to be deleted for it."""


class CollectionError(VecbeamError):
    pass


class SpaceMismatchError(CollectionError):
    pass


NEW_VERSION = (
    "if the change is intended, set encoder.revision to a name for the new version and run vecbeam reindex; else serve "
    "the earlier model again"
)
"""The remedy where a server's model was changed under its name."""


class VersionMismatchError(VecbeamError):
    pass


class JobEndedError(VecbeamError):
    pass


class GateError(VecbeamError):
    exit_code = 3


class RejectsError(VecbeamError):
    exit_code = 4


class InterruptedRunError(VecbeamError):
    exit_code = 130


class JobLeftError(InterruptedRunError):
    """Ends a run whose job on other machines runs on: with exit code 0 where nobody wanted to wait for it."""


_ERRORS = {
    error.__name__: error
    for error in (
        VecbeamError,
        ConfigurationError,
        CorpusError,
        EncoderError,
        MissingExtraError,
        CheckpointError,
        LockedError,
        StorageError,
        CollectionError,
        SpaceMismatchError,
        VersionMismatchError,
        GateError,
        RejectsError,
        InterruptedRunError,
    )
}
_LABEL = re.compile(r"( \[while running .*\])+$")
_NOT_IMPORTED = re.compile(
    r"ModuleNotFoundError: No module named '((?:schemas|transforms|pipelines)(?:\.[\w.]+)?)'"
    r"|ImportError: cannot import name '(\w+)' from '((?:schemas|transforms|pipelines)(?:\.[\w.]+)?)' \((.+?)\)"
)
# Beam puts the names of steps behind the message, and so before the remedy.
_IN_TRACEBACK = re.compile(
    r"schemas\.errors\.(\w+): (.*?)(?:(?: \[while running '[^']*'\])+(?:\. (.*))?)?$", re.MULTILINE
)


def without_label(error: VecbeamError) -> VecbeamError:
    """An error without the name of the step that Beam puts behind its message."""
    return type(error)(_LABEL.sub("", error.message), _LABEL.sub("", error.remedy))


def from_traceback(text: str) -> VecbeamError | None:
    """The last of vecbeam's errors named in a worker's traceback, or None.

    Beam's runners hand a worker's exception to the main process as text.

    >>> from_traceback("schemas.errors.CorpusError: no id [while running 'Read']")
    CorpusError('no id')
    >>> from_traceback("schemas.errors.StorageError: can't read a [while running 'Read']. check the bucket").remedy
    'check the bucket'
    """
    found = [(name, *parts) for name, *parts in _IN_TRACEBACK.findall(text) if name in _ERRORS]
    if not found:
        return _hidden_on_worker(text)
    name, message, remedy = found[-1]
    return _ERRORS[name](message, remedy)


def _hidden_on_worker(text: str) -> VecbeamError | None:
    """The error of a worker that can't import vecbeam's own packages: it has no class of vecbeam's to raise."""
    found = _NOT_IMPORTED.findall(text)
    if not found:
        return None
    missing, name, module, place = found[-1]
    what = missing or f"{name} from {module} ({place})"
    package = (missing or module).partition(".")[0]
    return VersionMismatchError(
        f"a worker can't import {what}: it has another package named {package}, which hides that of vecbeam, or it "
        "does not have this version of vecbeam",
        "start workers in an image with the launcher's version of vecbeam, an empty working directory and "
        "PYTHONSAFEPATH=1 (runner.sdk_container_image)",
    )
