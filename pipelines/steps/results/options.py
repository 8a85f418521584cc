"""Options of a command that take one of a few words."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.errors import ConfigurationError


def check_choice(option: str, word: str, known: Sequence[str]) -> None:
    """Raises unless a word is one of those that an option takes.

    Raises:
        ConfigurationError: with the words.
    """
    if word not in known:
        raise ConfigurationError(
            f"{option}: {word!r} is not one of {', '.join(known)}", f"for example {option} {known[0]}"
        )
