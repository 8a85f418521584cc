"""`corpus.id`: a field of the record, or an id that is made from the item's content."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, field_validator

from schemas.config.base import Section, Text, Texts, check_each_once


class HashedId(Section):
    """An id made from the item's content: the same fields with the same values have the same id."""

    hash: Texts = Field(
        min_length=1,
        description="Fields whose values the id is made from. Two records in which all of them are equal are one item",
    )

    @field_validator("hash")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        check_each_once(value)
        return value


def _kind_of_id(value: Any) -> str:
    return "HashedId" if isinstance(value, (dict, HashedId)) else "FieldId"


Id = Annotated[Annotated[Text, Tag("FieldId")] | Annotated[HashedId, Tag("HashedId")], Discriminator(_kind_of_id)]
