"""Extras and packages: whether they are installed, and the error if an extra is needed and missing."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from schemas.errors import MissingExtraError


def is_installed(*names: str) -> bool:
    """Whether all of some modules can be imported, by their names; imports none of them."""
    try:
        return all(find_spec(name) is not None for name in names)
    except ImportError:  # of somebody's finder that keeps a module out
        return False


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
