"""From a YAML file, `--set key=value` and the environment to a checked `Config`."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from schemas.config import Config
from schemas.errors import ConfigurationError
from schemas.globs import escape

SCHEMA_URL = "https://raw.githubusercontent.com/vecbeam/vecbeam/main/schemas/vecbeam.schema.json"
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SECRETS = ("token", "password", "user", "secret", "api_key")


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads, checks and completes a configuration file.

    Args:
        path: the YAML file; relative local paths in it are relative to its folder.
        overrides: "key.key=value" in YAML syntax, e.g. "encoder.precision=float32".

    Raises:
        ConfigurationError: with the key, the value and the remedy.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigurationError(
            f"there is no configuration file {path}", "write one with: vecbeam init PATHS"
        ) from None
    except IsADirectoryError:
        raise ConfigurationError(f"{path} is a folder", "name the YAML file in it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"can't read {path}: {error}", "check the file") from None
    try:
        values = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is no YAML: {error}", "mend the line it names") from None
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path} holds no keys", "start with: vecbeam init PATHS")
    for override in overrides:
        _set(values, override)
    return parse_config(values, source=str(path), folder=path.resolve().parent)


def parse_config(
    values: Mapping[str, Any],
    *,
    source: str = "configuration",
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Config:
    """Checks the values of a configuration and makes its local paths absolute (relative to `folder`).

    Raises:
        ConfigurationError: with every mistake found, each with key, value and remedy.
    """
    expanded = _expand(dict(values), "", os.environ if environment is None else environment)
    try:
        config = Config.model_validate(expanded)
    except ValidationError as error:
        raise ConfigurationError(f"{source}: " + "; ".join(_mistakes(error))) from None
    return _absolute(config, folder or Path.cwd())


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice instead of keeping the last."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(None, None, "a key is a list or a mapping", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _set(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigurationError(f"--set {override!r} is not key=value", "write e.g. --set encoder.precision=float32")
    try:
        value = yaml.safe_load(text) if text else ""
    except yaml.YAMLError:
        value = text
    *parents, last = key.strip().split(".")
    place: Any = values
    for parent in parents:
        if not isinstance(place.get(parent), dict):
            place[parent] = {}
        place = place[parent]
    place[last] = value


def _expand(value: Any, key: str, environment: Mapping[str, str]) -> Any:
    """Replaces ${NAME} by the environment's value, everywhere in the configuration's strings."""
    if isinstance(value, dict):
        return {k: _expand(v, f"{key}.{k}".lstrip("."), environment) for k, v in value.items()}
    if isinstance(value, list):
        return [_expand(v, f"{key}[{i}]", environment) for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        if match[1] not in environment:
            raise ConfigurationError(
                f"{key}: the environment variable {match[1]} of {value!r} is not set", f"export {match[1]}=..."
            )
        return environment[match[1]]

    return _VARIABLE.sub(replace, value)


def _mistakes(error: ValidationError) -> Iterable[str]:
    for mistake in error.errors(include_url=False):
        path = [
            str(p)
            for p in mistake["loc"]
            if p not in ("Chunk", "literal[False]", "function-after[_overlap_fits(), Chunk]", "FieldId", "HashedId")
        ]
        key = ".".join(path)
        value = mistake.get("input")
        if mistake["type"] == "extra_forbidden":
            yield f"unknown key {key!r}{_remedy_for_unknown(path)}"
        elif mistake["type"] == "missing":
            yield f"{key} is missing; add it"
        elif mistake["type"] == "value_error":
            yield f"{key or 'configuration'}: {str(mistake['ctx']['error']).rstrip('.')}"
        else:
            yield f"{key}: {_shortened(value)} does not fit; {mistake['msg'][0].lower()}{mistake['msg'][1:]}"


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _remedy_for_unknown(path: Sequence[str]) -> str:
    if path[-1] in _SECRETS:
        return "; secrets stay in the environment: the token is read from MILVUS_TOKEN"
    known = sorted(_keys_beside(path))
    close = difflib.get_close_matches(path[-1], known, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; known here: {', '.join(known)}"


def _keys_beside(path: Sequence[str]) -> Iterable[str]:
    model: type[BaseModel] = Config
    for name in path[:-1]:
        field = model.model_fields.get(name)
        if field is None:
            break
        model = next(_models(field.annotation), model)
    return [field.alias or name for name, field in model.model_fields.items()]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in a type, however deep they stand in it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def absolute_glob(pattern: str, folder: Path) -> str:
    """A local glob from the root of the disk on; the letters of the folder stand for themselves. URIs stay."""
    if "://" in pattern:
        return pattern
    if pattern.startswith("~"):
        home, slash, rest = pattern.partition("/")
        pattern = escape(str(_expanded(home))) + slash + rest
    return str(Path(escape(str(folder.absolute()))) / pattern)


def _expanded(path: str) -> Path:
    """A path with the home folder in place of a leading ~; one that is nobody's is a letter of a name."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def _absolute(config: Config, folder: Path) -> Config:
    def resolve(path: str) -> str:
        return path if "://" in path else str((folder / _expanded(path)).absolute())

    paths = [absolute_glob(pattern, folder) for pattern in config.corpus.paths]
    model = config.encoder.model
    in_folder = folder / _expanded(model)
    looks_local = model.startswith((".", "/", "~")) or in_folder.is_dir()
    if looks_local and (refusal := config.runner.refusal("encoder.model", str(in_folder.absolute()))):
        raise ConfigurationError(refusal)
    return config.model_copy(
        update={
            "corpus": config.corpus.model_copy(update={"paths": paths}),
            "checkpoint": resolve(config.checkpoint),
            "collection": config.collection.model_copy(update={"uri": resolve(config.collection.uri)}),
            "encoder": config.encoder.model_copy(update={"model": str(in_folder.absolute()) if looks_local else model}),
        }
    )
