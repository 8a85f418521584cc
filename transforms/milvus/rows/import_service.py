"""What can import files into a collection: a server's bulk import, or Zilliz Cloud's REST API."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from schemas.errors import CollectionError


class JobStage(StrEnum):
    """How far an import job is."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class ImportState(NamedTuple):
    """State of an import job.

    Attributes:
        progress: anything that changes while the job makes progress.
        reason: why it failed.
        files: those that failed, as the service names them; empty where it does not say.
    """

    stage: JobStage
    progress: object = None
    reason: str = ""
    files: tuple[str, ...] = ()


class ListedJob(NamedTuple):
    """An import job of a list.

    Attributes:
        files: that it imports; empty where the service does not list them.
    """

    id: str
    stage: JobStage
    files: tuple[str, ...] = ()


class QueueFullError(CollectionError):
    """The service takes no further job until others have ended. No job was created."""


class LostAnswerError(CollectionError):
    """The answer to the creation of a job was lost: the job may exist, or not."""


class ImportService(Protocol):
    """Imports files into one collection.

    Attributes:
        place: what it is and where, for messages.
        files_per_job: most files of a job.
        jobs_at_once: most jobs that vecbeam has under way.
    """

    place: str
    files_per_job: int
    jobs_at_once: int

    def path_of(self, uri: str) -> str:
        """How the service names a file of the checkpoint."""
        ...

    def create(self, files: Sequence[str], key: str) -> str:
        """Starts a job and returns its id.

        Args:
            files: as `path_of` names them.
            key: the same for each attempt at one job; a service that knows idempotency keys starts one job for it.

        Raises:
            QueueFullError, LostAnswerError: see there.
            CollectionError: if the service refuses the job.
        """
        ...

    def state(self, job: str) -> ImportState:
        """Returns the state of a job.

        Raises:
            CollectionError: if the service does not answer, or does not know the job.
        """
        ...

    def jobs(self) -> list[ListedJob]:
        """Lists the jobs of the collection's name, ended ones too.

        Raises:
            CollectionError: if the service does not answer.
        """
        ...
