"""A lease on an object store: a small object that says who holds a checkpoint.

It is created on the condition that none exists, and replaced on the condition that it is the one that was read, each
in one step of the store: of two runs that start at the same moment, exactly one continues. It expires a minute after
the last renewal, by the store's clock alone: the clocks of two machines may be hours apart.

On a store without such conditions, a run that has written the lease waits a moment and checks whether it is still its
own. Two runs that start within that moment may both continue there.
"""

from __future__ import annotations

import contextlib
import json
import logging
from functools import partial
from typing import Any, NamedTuple

from schemas.errors import CheckpointError
from transforms.checkpoint.holder import check_jobs, is_over, refused
from transforms.support import stop
from transforms.support.storage import filesystem
from transforms.support.storage.filesystem import ConditionError, ObjectFacts, UnconditionalError

log = logging.getLogger("vecbeam")
SETTLE_S = 1.0
TRIES = 5
"""How often a lease is looked at again that went away, or that an answer got lost of."""


class _Found(NamedTuple):
    holder: dict[str, Any]
    facts: ObjectFacts


class StoreLease:
    """The lease of one run on one checkpoint. One thread uses it at a time."""

    def __init__(self, root: str, run_id: str) -> None:
        self._root = root
        self._run_id = run_id
        self.uri = filesystem.join(root, "runs", "lock.json")
        self._facts: ObjectFacts | None = None
        self._conditional = True

    def take(self, data: bytes) -> None:
        """Takes the lease.

        Args:
            data: JSON of the holder, with its `run_id`.

        Raises:
            LockedError: if another run holds it, or a job of a run that is gone.
            CheckpointError: if the store fails.
        """
        for _ in range(TRIES):
            found = self._read()
            if found is not None:
                if not is_over(found.holder, partial(self._age, found.facts)):
                    raise refused(found.holder, self._root)
                check_jobs(found.holder, self._root, self.uri)
            before = found.facts if found is not None else None
            try:
                self._facts = self._written(data, before)
            except UnconditionalError:
                self._take_unconditionally(data)
                return
            if self._facts is None:  # the blocking lease no longer exists
                continue
            if not self._is_kept(data, before):
                self._take_unconditionally(data)
            return
        raise CheckpointError(
            f"{self.uri} comes and goes: other runs begin and end all the time", "run the same command again"
        )

    def _age(self, facts: ObjectFacts) -> float:
        return filesystem.store_time(self._root, self._run_id) - facts.modified

    def _is_kept(self, data: bytes, before: ObjectFacts | None) -> bool:
        """Whether the store obeys conditions: it must refuse the same request the second time."""
        try:
            filesystem.write_if(self.uri, data, before)
        except ConditionError:
            return True
        return False

    def _take_unconditionally(self, data: bytes) -> None:
        self._conditional = False
        log.warning(
            "%s: the store has no conditional writes; of two runs that start within a second both may continue",
            self.uri,
        )
        filesystem.write_atomic(self.uri, data)
        stop.sleep(SETTLE_S)
        self._check_own()

    def write(self, data: bytes) -> None:
        """Writes the lease again.

        Raises:
            LockedError: if another run has taken it.
            CheckpointError: if the store fails.
        """
        if not self._conditional:
            self._check_own()
            filesystem.write_atomic(self.uri, data)
            return
        for _ in range(TRIES):
            if (facts := self._written(data, self._facts)) is not None:
                self._facts = facts
                return
            # Someone deleted it manually: then nobody holds it, and it may be created again.
            self._facts = None
        raise CheckpointError(f"{self.uri} comes and goes", "let no other program delete it, and run the command again")

    def _written(self, data: bytes, before: ObjectFacts | None) -> ObjectFacts | None:
        """Writes on the condition that the lease is what it was; None if it is gone.

        Raises:
            LockedError: if another run has it.
        """
        for _ in range(TRIES):
            with contextlib.suppress(ConditionError):
                return filesystem.write_if(self.uri, data, before)
            found = self._read()
            if found is None:
                return None
            if found.holder.get("run_id") != self._run_id:
                raise refused(found.holder, self._root)
            if found.holder == json.loads(data):  # the first try has written, and its answer got lost
                return found.facts
            before = found.facts
        raise CheckpointError(f"{self.uri} can't be written on a condition", "run the same command again")

    def _check_own(self) -> None:
        found = self._read()
        if found is not None and found.holder.get("run_id") != self._run_id:
            raise refused(found.holder, self._root)

    def _read(self) -> _Found | None:
        with contextlib.suppress(FileNotFoundError):
            data, facts = filesystem.read_with_facts(self.uri)
            try:
                return _Found(json.loads(data), facts)
            except ValueError:  # written manually, or cut
                return _Found({}, facts)
        return None
