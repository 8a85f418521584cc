"""A configuration as YAML for people: what is set, and, as comments, what could be set."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from schemas.config import Config
from schemas.config.loader import SCHEMA_URL

HEADER = f"# yaml-language-server: $schema={SCHEMA_URL}\n"
_WIDTH = 110


def plain(values: Mapping[str, Any]) -> str:
    """The values alone, with the line that lets editors complete and check them."""
    return HEADER + _dump(dict(values))


def commented(values: Mapping[str, Any]) -> str:
    """The values, and each key that is not set as a comment: `## what it is`, and `# key: its default`."""
    lines = [
        HEADER.rstrip(),
        "## Lines that begin with # and a key are keys with their defaults; remove the # to set one.",
        "",
    ]
    for name, field in Config.model_fields.items():
        model = _model_of(field)
        if name in values:
            lines += _set(name, values[name], model)
        elif model is not None:
            lines += [*_described(field, ""), f"# {name}:", *_optional(model, {}, "#   ", "#   ## ")]
        else:
            lines += [*_described(field, ""), f"# {name}: {_default(field)}"]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _set(name: str, value: Any, model: type[BaseModel] | None) -> Iterator[str]:
    yield from _dump({name: value}).rstrip().splitlines()
    if model is not None and isinstance(value, Mapping):
        yield from _optional(model, value, "  # ", "  ## ")


def _optional(model: type[BaseModel], values: Mapping[str, Any], indent: str, comment: str) -> Iterator[str]:
    """The keys of a section that are not set and have a default of one line."""
    for name, field in model.model_fields.items():
        key = field.alias or name
        if key in values or field.is_required():
            continue
        default = _default(field)
        yield from textwrap.wrap(field.description or "", _WIDTH, initial_indent=comment, subsequent_indent=comment)
        yield f"{indent}{key}: {default}"


def _described(field: FieldInfo, indent: str) -> list[str]:
    comment = f"{indent}## "
    return textwrap.wrap(field.description or "", _WIDTH, initial_indent=comment, subsequent_indent=comment)


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_none=True, by_alias=True)
    return value if isinstance(value, str) and value.isidentifier() else json.dumps(value)


def _model_of(field: FieldInfo) -> type[BaseModel] | None:
    if get_origin(field.annotation) is dict:
        return None
    kinds = (field.annotation, *getattr(field.annotation, "__args__", ()))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _dump(values: dict[str, Any]) -> str:
    return str(yaml.dump(values, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=_WIDTH))


class _Plain(yaml.SafeDumper):
    """Writes a list that is in two places twice, without an anchor: people change one of them."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True
