"""Which configuration a command line means, and its other words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.run.terminal import environment, output

if TYPE_CHECKING:
    from typer import Context

    from schemas.config import Config

CONFIGURATION = Path("vecbeam.yaml")
ENVIRONMENT = "VECBEAM_CONFIG"


def configuration(path: Path | str, overrides: Sequence[str] | None) -> Config:
    """The configuration of a command, with the variables that the process was started with."""
    from schemas.config.loader import load_config

    return load_config(path, overrides or (), environment=environment.given())


def config_and_query(words: Sequence[str], named: str = "") -> tuple[Path, str]:
    """Parses the words of `search`: one word is the query; the first of two is the configuration.

    Args:
        named: the option that names the query; then the only word is the configuration, and "" is returned.

    Raises:
        ConfigurationError: for another number of words, a query that is missing, two, or one that is not UTF-8.
    """
    from schemas.errors import ConfigurationError

    if named:
        if len(words) > 1 or (words and not _is_configuration(words[0])):
            raise ConfigurationError(f"{named} and {output.clean(words[-1])!r} are both queries", "name one query")
        return Path(words[0]) if words else _default_configuration(), ""
    if not words:
        raise ConfigurationError("there is no query", 'write: vecbeam search "what to look for"')
    if len(words) > 2:
        raise ConfigurationError(
            f"{len(words)} words where CONFIG and QUERY are expected",
            'put the query in quotes: vecbeam search "two words"',
        )
    query = words[-1]
    if len(words) == 1 and _is_configuration(query):
        raise ConfigurationError(
            f"{query} is a configuration, and there is no query", f'write: vecbeam search {query} "what to look for"'
        )
    try:
        query.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(
            f"the query {output.clean(query)} is not valid UTF-8", "type it in a terminal whose encoding is UTF-8"
        ) from None
    return (Path(words[0]) if len(words) == 2 else _default_configuration()), query


def config_and_run(words: Sequence[str]) -> tuple[Path, str | None]:
    """Parses the words of `report`: the configuration ends in .yaml or .yml, or is the first of two words.

    Raises:
        ConfigurationError: for more than two words.
    """
    from schemas.errors import ConfigurationError

    if len(words) > 2:
        raise ConfigurationError(f"{len(words)} words where CONFIG and RUN are expected", "name one run")
    if len(words) == 2:
        return Path(words[0]), words[1]
    if words and not _is_configuration(words[0]):
        return _default_configuration(), words[0]
    return (Path(words[0]) if words else _default_configuration()), None


def config_and_words(words: Sequence[str]) -> tuple[Path, list[str]]:
    """Parses words of which the first is the configuration if it ends in .yaml or .yml."""
    if words and _is_configuration(words[0]):
        return Path(words[0]), list(words[1:])
    return _default_configuration(), list(words)


def compared_and_configurations(
    old: str, new: str, named: Sequence[Path]
) -> tuple[tuple[Path | str, Path | str], list[Path]]:
    """Parses the words of `compare`: one that ends in .yaml or .yml is a configuration, any other a collection.

    Args:
        named: the configurations given with -c.

    Returns:
        Both sides, and the configurations that built the collections among them. A single word that is a configuration
        is one of these.
    """
    if _is_configuration(old) and not new:
        return ("", ""), [Path(old), *named]
    first, second = (Path(one) if _is_configuration(one) else one for one in (old, new))
    if isinstance(first, Path) and isinstance(second, Path):
        return (first, second), []
    if isinstance(first, Path) or isinstance(second, Path):
        return (first, second), list(named)
    return (first, second), list(named) or [_default_configuration()]


def refuse_given(context: Context, names: Sequence[str], reason: str) -> None:
    """Raises ConfigurationError if the command line has an option or argument that the command would not use.

    Args:
        names: parameters of the command's function.
        reason: why it is not used.
    """
    from schemas.errors import ConfigurationError

    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in names and source is not None and source.name == "COMMANDLINE":
            option = parameter.opts[0] if parameter.param_type_name == "option" else parameter.metavar
            raise ConfigurationError(f"{option}: {reason}", "leave it out")


def _default_configuration() -> Path:
    return Path(environment.given().get(ENVIRONMENT) or CONFIGURATION)


def _is_configuration(word: str) -> bool:
    return word.lower().endswith((".yaml", ".yml"))
