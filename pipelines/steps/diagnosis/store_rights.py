"""Whether the checkpoint's store lets vecbeam write, read, list and delete, on which conditions, and its clock."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from pipelines.run.jobs.beam_options import prepare_filesystems
from pipelines.steps.diagnosis.check import Check, fail, ok, skipped, warn
from schemas.config import Config
from schemas.errors import VecbeamError
from transforms.support.storage import filesystem
from transforms.support.storage.filesystem import ConditionError, UnconditionalError

CONTENT = b"vecbeam doctor"
MOST_SKEW_S = 60.0
REFUSED_SKEW_S = 900.0
"""S3 refuses requests whose time differs by more: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html"""


def check_store(config: Config, *, offline: bool) -> Iterator[Check]:
    """Writes a small object below the runs of the checkpoint, reads and lists it, and deletes it again."""
    is_local = filesystem.is_local(config.checkpoint)
    if offline and not is_local:
        yield skipped("checkpoint", f"{config.checkpoint} is not on this machine, and --offline is set")
        return
    root = filesystem.join(config.checkpoint, config.name)
    uri = filesystem.join(root, "runs", f"doctor-{uuid.uuid4().hex}")
    step = "write"
    made = _missing_folder(root) if is_local else None
    try:
        prepare_filesystems(config)
        filesystem.write_atomic(uri, CONTENT)
        before = time.time()
        step = "read"
        if filesystem.read_bytes(uri) != CONTENT:
            yield fail("checkpoint", f"{uri} has another content than was written", "repair that store")
            return
        step = "list"
        found = filesystem.find(uri)
        if found is None:
            yield fail("checkpoint", f"{uri} was written, and is not listed", "grant the right to list objects")
            return
        conditional = [] if is_local else [_conditions(uri)]
        step = "delete"
        filesystem.delete([uri])
        if filesystem.exists(uri):
            yield fail("checkpoint", f"{uri} is still there after it was deleted", "grant the right to delete objects")
            return
    except (VecbeamError, OSError, ValueError) as error:
        remedy = error.remedy if isinstance(error, VecbeamError) else f"grant the right to {step} files there"
        message = error.message if isinstance(error, VecbeamError) else str(error)
        yield fail("checkpoint", f"can't {step} in {config.checkpoint}: {message}", remedy)
        return
    finally:
        _clean(uri, made)
    yield ok("checkpoint", f"{config.checkpoint}: writes, reads, lists and deletes")
    yield from conditional
    yield _clock(found.modified - before)


def _missing_folder(root: str) -> Path | None:
    """The folder above those that writing below a root makes."""
    path = Path(root).absolute()
    return None if path.exists() else next(parent for parent in path.parents if parent.exists())


def _clean(uri: str, made: Path | None) -> None:
    """Deletes what is left of a failed check, and folders that it has made."""
    try:
        filesystem.delete([uri])
        if made is not None:
            filesystem.remove_empty_folders(uri.rpartition("/")[0], str(made))
    except (VecbeamError, OSError):
        return  # the check says already what can't be done


def _conditions(uri: str) -> Check:
    try:
        filesystem.write_if(uri, CONTENT, None)
    except ConditionError:
        return ok("conditional writes", "the store refuses to overwrite: two runs exclude each other")
    except UnconditionalError:
        pass
    return warn(
        "conditional writes",
        "the store does not have them: of two runs that start within a second, both may continue",
        "let one scheduler start the runs",
    )


def _clock(skew: float) -> Check:
    found = f"{skew:+.1f} s from this machine's to the store's"
    remedy = "set this machine's clock, for example by NTP"
    if abs(skew) > REFUSED_SKEW_S:
        return fail("clock", f"{found}; stores refuse requests with such a difference", remedy)
    return warn("clock", found, remedy) if abs(skew) > MOST_SKEW_S else ok("clock", found)
