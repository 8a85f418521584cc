"""The extra `torch`: whether it is installed, and the error if it is needed and missing."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from schemas.errors import MissingExtraError

PACKAGES = ("torch", "sentence_transformers")
INSTALL = "pip install 'vecbeam[torch]'"


def is_installed(*names: str) -> bool:
    """Whether all of some modules can be imported, by their names; imports none of them."""
    try:
        return all(find_spec(name) is not None for name in names)
    except ImportError:  # of somebody's finder that keeps a module out
        return False


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


def need(extra: str, what: str, *modules: str) -> None:
    """Raises if an extra is missing.

    Args:
        extra: its name.
        what: the thing that needs it.
        modules: that it brings.

    Raises:
        MissingExtraError: if one of them is not installed.
    """
    missing = [name for name in modules if not is_installed(name)]
    if missing:
        raise MissingExtraError(
            f"{what} needs the extra {extra}, of which {', '.join(missing)} is not installed",
            f"pip install 'vecbeam[{extra}]'",
        )


def version_of(package: str) -> str | None:
    """The version of a package whose module has the same name; None if it is not installed."""
    if not is_installed(package):
        return None
    try:
        return version(package)
    except PackageNotFoundError:
        return None
