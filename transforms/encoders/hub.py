"""The hub: files of a model at one revision, fetched once per machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from schemas.errors import EncoderError

_LONGEST_CAUSE = 200
HUB_S = 10.0
"""Seconds in which the hub must answer."""
_OFFLINE = ContextVar("_OFFLINE", default=False)


class NotHereError(EncoderError):
    """Files of a model that are not on this machine, within a block of `offline`."""


@contextmanager
def offline() -> Iterator[None]:
    """Fetches nothing within a block: `fetch` finds the files that this machine has, or raises NotHereError."""
    before = _OFFLINE.set(True)
    try:
        yield
    finally:
        _OFFLINE.reset(before)


def fetch(hub_id: str, revision: str, gated: bool = False) -> Path:
    """The folder of a model's files, whose name is the commit.

    Weights are safetensors only.

    Args:
        gated: whether the hub gives them only to those who have accepted the licence.

    Raises:
        EncoderError: if they are not here and can't be fetched.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    files = ["*.json", "*.safetensors", "*.txt", "*.model", "*/config.json"]
    away: Exception | None = None
    try:
        try:
            # The library sends this request first too, without a time limit.
            if _OFFLINE.get():
                raise ConnectionError("offline")
            HfApi().model_info(hub_id, revision=revision, timeout=HUB_S)
        except RepositoryNotFoundError:
            raise
        except Exception as error:  # of the network, of several libraries; a copy kept here needs none
            away = error
        folder = snapshot_download(hub_id, revision=revision, allow_patterns=files, local_files_only=away is not None)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        if _OFFLINE.get():
            raise NotHereError(
                f"the files of {hub_id} at revision {revision} are not on this machine",
                "run a command that embeds while this machine has network, or name a folder that holds the model",
            ) from error
        raise EncoderError(
            f"can't fetch {hub_id} at revision {revision} from the hub: {_first_cause(away or error)}",
            (f"accept the licence at https://huggingface.co/{hub_id} and export HF_TOKEN; " if gated else "")
            + "check name, revision, network and HF_TOKEN, or name a folder that holds the model",
        ) from error
    return Path(folder)


def _first_cause(error: BaseException) -> str:
    """The first cause of an error, in a line: the hub adds its own advice, a sentence for each attempt."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:_LONGEST_CAUSE]
