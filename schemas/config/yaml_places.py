"""Reads YAML with the place of each key, so that a message can name the line."""

from __future__ import annotations

from typing import Any

import yaml

from schemas.errors import ConfigurationError

Places = dict[tuple[str, ...], str]
"""The place of each key of a configuration, by its path: "vecbeam.yaml:4:3", or "--set key"."""


_MOST_NODES = 100_000


def read_yaml(text: str, source: str) -> tuple[Any, Places]:
    """The values of a YAML text as `yaml.safe_load` has them, merge keys included, and the place of each key.

    Raises:
        ConfigurationError: if it is not YAML, or a mapping has a key twice.
    """
    places: Places = {}
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None, places
        _visit(loader, node, (), source, places, [0])
        return loader.construct_document(node), places
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark is not None else source
        said = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigurationError(f"{place}: not valid YAML: {said}", "correct that line") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigurationError(f"{source}: not valid YAML: {error}", "correct the file") from None


def _visit(
    loader: yaml.SafeLoader, node: yaml.Node, path: tuple[str, ...], source: str, places: Places, seen: list[int]
) -> None:
    """Records the places of the keys below a node, and refuses a duplicate key, of which safe_load keeps the last."""
    seen[0] += 1
    if seen[0] > _MOST_NODES:
        raise yaml.constructor.ConstructorError(None, None, "it refers to itself, or is far too large", node.start_mark)
    if isinstance(node, yaml.SequenceNode):
        for index, entry in enumerate(node.value):
            places.setdefault((*path, str(index)), _place(source, entry))
            _visit(loader, entry, (*path, str(index)), source, places, seen)
    if not isinstance(node, yaml.MappingNode):
        return
    keys: set[Any] = set()
    merged: list[yaml.Node] = []
    for key_node, value in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "a key is a list or a mapping", key_node.start_mark)
        is_merge = key_node.tag == _MERGE
        key = _MERGE if is_merge else loader.construct_object(key_node)
        if key in keys:
            raise yaml.constructor.ConstructorError(
                None, None, f"duplicate key {key_node.value!r}", key_node.start_mark
            )
        keys.add(key)
        if is_merge:
            merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
            continue
        places.setdefault((*path, str(key)), _place(source, key_node))
        _visit(loader, value, (*path, str(key)), source, places, seen)
    for other in merged:  # after the mapping's own keys, which win
        _visit(loader, other, path, source, places, seen)


_MERGE = "tag:yaml.org,2002:merge"


def _place(source: str, node: yaml.Node) -> str:
    return f"{source}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"
