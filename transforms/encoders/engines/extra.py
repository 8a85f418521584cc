"""The extra `torch`: whether it is installed, and the error if it is needed and missing."""

from __future__ import annotations

from schemas.errors import MissingExtraError
from transforms.support.extras import is_installed

PACKAGES = ("torch", "sentence_transformers")
INSTALL = "pip install 'vecbeam[torch]'"


def has_torch() -> bool:
    """Whether the extra is installed."""
    return is_installed(*PACKAGES)


def need_torch(what: str) -> None:
    """Raises if the extra is missing.

    Args:
        what: the thing that needs it.

    Raises:
        MissingExtraError: if it is not installed.
    """
    if not has_torch():
        raise MissingExtraError(f"{what} needs the extra torch, which is not installed", INSTALL)
