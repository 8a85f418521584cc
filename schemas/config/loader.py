"""From a YAML file, `--set key=value` and the environment to a checked `Config`."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from schemas.allowed_uris import normal_prefix
from schemas.config import Config, EncoderConfig
from schemas.config.encoder import WORD_VECTOR_FILES
from schemas.config.yaml_places import Places, read_yaml
from schemas.errors import ConfigurationError
from schemas.glob import escape

SCHEMA_URL = "https://raw.githubusercontent.com/vecbeam/vecbeam/main/schemas/vecbeam.schema.json"
_SET = "--set "
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SECRETS = ("token", "password", "user", "secret", "api_key")


def load_config(
    path: str | Path, overrides: Sequence[str] = (), *, environment: Mapping[str, str] | None = None
) -> Config:
    """Reads, checks and completes a configuration file.

    Args:
        path: the YAML file; relative local paths in it are relative to its folder.
        overrides: "key.key=value" in YAML syntax, e.g. "encoder.precision=float32".
        environment: what ${NAME} stands for; this process's variables without it.

    Raises:
        ConfigurationError: with file, line and column, the key, the value and the remedy.
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
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"can't read {path}: {error}", "check the file") from None
    values, places = read_yaml(text, str(path))
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path} holds no keys", "start with: vecbeam init PATHS")
    for override in overrides:
        _set(values, override, places)
    return parse_config(values, source=str(path), folder=path.resolve().parent, environment=environment, places=places)


def as_config(config: Config | str) -> Config:
    """A configuration, if it is one or the path of its file."""
    return load_config(config) if isinstance(config, str) else config


def parse_config(
    values: Mapping[str, Any],
    *,
    source: str = "configuration",
    folder: str | Path | None = None,
    environment: Mapping[str, str] | None = None,
    places: Places | None = None,
) -> Config:
    """Checks the values of a configuration and makes its local paths absolute (relative to `folder`).

    Args:
        places: where the values are, as `read_yaml` returns it.

    Raises:
        ConfigurationError: with every mistake found, a line each, with place, key, value and remedy.
    """
    known = {(): source, **(places or {})}
    expanded = _expand(dict(values), (), os.environ if environment is None else environment, known)
    try:
        config = Config.model_validate(expanded)
    except ValidationError as error:
        raise ConfigurationError.listing(_mistakes(error, known)) from None
    return _absolute(config, Path(folder) if folder else Path.cwd())


def _at(path: Sequence[Any], places: Places) -> str:
    """The place of a path, or of the nearest one above it."""
    return places[_known(path, places)]


def _known(path: Sequence[Any], places: Places) -> tuple[str, ...]:
    """A path as far as its place is known; skips parts that pydantic adds for unions."""
    found: tuple[str, ...] = ()
    for part in path:
        if (*found, str(part)) in places:
            found = (*found, str(part))
    return found


def _set(values: dict[str, Any], override: str, places: Places) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigurationError(f"--set {override!r} is not key=value", "write e.g. --set encoder.precision=float32")
    try:
        value = yaml.safe_load(text) if text else ""
    except yaml.YAMLError:
        value = text
    *parents, last = path = key.strip().split(".")
    place: Any = values
    for parent in parents:
        if not isinstance(place.get(parent), dict):
            place[parent] = {}
        # A copy: with an anchor the same mapping may be elsewhere too.
        place[parent] = dict(place[parent])
        place = place[parent]
    place[last] = value
    for known in [known for known in places if known[: len(path)] == tuple(path)]:
        del places[known]
    for length in range(1, len(path)):
        places.setdefault(tuple(path[:length]), f"{_SET}{key.strip()}")
    places[tuple(path)] = f"{_SET}{key.strip()}"


def _expand(value: Any, path: tuple[str, ...], environment: Mapping[str, str], places: Places) -> Any:
    """Replaces ${NAME} by the environment's value, everywhere in the configuration's strings."""
    if isinstance(value, dict):
        return {key: _expand(inner, (*path, str(key)), environment, places) for key, inner in value.items()}
    if isinstance(value, list):
        return [_expand(inner, (*path, str(index)), environment, places) for index, inner in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        if match[1] not in environment:
            raise ConfigurationError(
                f"{_at(path, places)}: {'.'.join(path)}: the environment variable {match[1]} of {value!r} is not set",
                f"export {match[1]}=...",
            )
        return environment[match[1]]

    return _VARIABLE.sub(replace, value)


def _mistakes(error: ValidationError, places: Places) -> Iterable[str]:
    for mistake in error.errors(include_url=False):
        if "literal[False]" in mistake["loc"] and isinstance(mistake.get("input"), dict):
            continue  # the mistakes in the mapping are reported separately
        yield f"{_where(mistake, places)}: {_mistake(mistake)}"


def _where(mistake: Mapping[str, Any], places: Places) -> str:
    """The place of a mistake. A check across keys tells only what they are below: each --set there may be the cause."""
    path = _known(mistake["loc"], places)
    below = [place for key, place in places.items() if key[: len(path)] == path and place.startswith(_SET)]
    if mistake["type"] != "value_error" or places[path].startswith(_SET) or not below:
        return places[path]
    return f"{places[path]} with {', '.join(dict.fromkeys(below))}"


def _is_branch(part: str | int) -> bool:
    """Whether a part of a mistake's place is pydantic's name for a branch of a union, and not a key."""
    branches = ("ChunkConfig", "literal[False]", "FieldId", "HashedId", "Part", "Fields")
    return part in branches or str(part).startswith("function-after[")


def _mistake(mistake: Mapping[str, Any]) -> str:
    path = [str(part) for part in mistake["loc"] if not _is_branch(part)]
    key = ".".join(path)
    if mistake["type"] == "extra_forbidden":
        return f"unknown key {key!r}{_remedy_for_unknown(path)}"
    if mistake["type"] == "missing":
        return f"{key} is missing; add it"
    if mistake["type"] == "value_error":
        return f"{key or 'configuration'}: {str(mistake['ctx']['error']).rstrip('.')}"
    if mistake["type"] == "string_unicode":
        shown = _shortened(mistake.get("input"))
        return f"{key}: {shown} has bytes that are not valid UTF-8; in a glob write ? for each of them"
    said = mistake["msg"][0].lower() + mistake["msg"][1:]
    return f"{key}: {_shortened(mistake.get('input'))} does not fit; {said}"


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _remedy_for_unknown(path: Sequence[str]) -> str:
    if path[-1] in _SECRETS:
        return (
            "; secrets stay in the environment: the token is read from MILVUS_TOKEN, the key of a server from "
            "VECBEAM_EMBEDDINGS_KEY"
        )
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
    """The models in a type, at any depth."""
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
    """A path with the home folder instead of a leading ~; a ~ without such a user is an ordinary character."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def _check_text(key: str, path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(
            f"{key} {path!r}: Milvus Lite does not accept a path with bytes that are not valid UTF-8",
            "name a folder elsewhere, or rename the folder of the configuration",
        ) from None


def _absolute(config: Config, folder: Path) -> Config:
    def resolve(path: str) -> str:
        return path if "://" in path else str((folder / _expanded(path)).absolute())

    paths = [absolute_glob(pattern, folder) for pattern in config.corpus.paths]
    # Normal once here, so that a record's URI is compared with text.
    allowed = [normal_prefix(resolve(prefix)) for prefix in config.corpus.allow_uris]
    collection = resolve(config.collection.uri)
    if config.collection.is_lite and not collection.isascii():
        _check_text("collection.uri", collection)

    def absolute(encoder: EncoderConfig) -> EncoderConfig:
        model = encoder.model
        in_folder = folder / _expanded(model)
        is_file = model.endswith(WORD_VECTOR_FILES) and in_folder.is_file()
        if not (model.startswith((".", "/", "~")) or in_folder.is_dir() or is_file):
            return encoder
        if refusal := config.runner.refusal("encoder.model", str(in_folder.absolute())):
            raise ConfigurationError(refusal)
        return encoder.model_copy(update={"model": str(in_folder.absolute())})

    return config.model_copy(
        update={
            "corpus": config.corpus.model_copy(update={"paths": paths, "allow_uris": allowed}),
            "checkpoint": resolve(config.checkpoint),
            "verify": config.verify.model_copy(
                update={
                    name: resolve(path)
                    for name, path in (("queries", config.verify.queries), ("truth", config.verify.truth))
                    if path is not None
                }
            ),
            "collection": config.collection.model_copy(update={"uri": collection}),
            "encoder": absolute(config.encoder),
            "encoders": {name: absolute(encoder) for name, encoder in config.encoders.items()},
        }
    )
