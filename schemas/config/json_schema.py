"""The JSON Schema of the configuration, for editors: `python -m schemas.config.json_schema` writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from schemas.config import Config

PATH = Path(__file__).parents[1] / "vecbeam.schema.json"


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a configuration file, its short forms included."""
    schema = Config.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "vecbeam configuration"
    definitions = schema["$defs"]
    field = definitions.pop("MetadataField")
    types = field["properties"]["type"]["enum"]
    short = {"enum": types, "description": "Short for {type: ...}"}
    definitions["MetadataField"] = {"anyOf": [short, field]}
    checkpoint = schema["properties"]["checkpoint"]
    described = {name: checkpoint.pop(name) for name in ("description",)}
    with_settings = {
        "type": "object",
        "additionalProperties": False,
        "properties": {"folder": {"type": "string", "minLength": 1}, "thumbnails": {"type": "boolean"}},
        "required": ["folder"],
    }
    schema["properties"]["checkpoint"] = {"anyOf": [checkpoint, with_settings], **described}
    for key in ("paths", "content"):
        property_ = definitions["Corpus"]["properties"][key]
        described = {name: property_.pop(name) for name in ("description", "default") if name in property_}
        definitions["Corpus"]["properties"][key] = {"anyOf": [{"type": "string"}, property_], **described}
    return schema


def text() -> str:
    return json.dumps(json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    PATH.write_text(text())
