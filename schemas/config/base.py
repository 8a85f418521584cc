"""Base of each section of the configuration, and types of values that several sections have."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, StringConstraints


class Section(BaseModel):
    """Strict base: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _known_encoding(value: str) -> str:
    try:
        "".encode(value)
        if not isinstance(b"".decode(value), str):
            raise LookupError
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f"{value!r} is not a text encoding that Python knows; write e.g. utf-8, windows-1252, utf-16, shift_jis"
        ) from error
    return value


Text = Annotated[str, StringConstraints(min_length=1)]
Texts = Annotated[list[Text], BeforeValidator(_as_list)]
"""Several texts; one alone is short for a list of it."""
Encoding = Annotated[Text, AfterValidator(_known_encoding)]


def check_each_once(names: list[str]) -> None:
    """Raises ValueError for a field that is named more than once."""
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"names {twice[0]!r} more than once; name each field once")
