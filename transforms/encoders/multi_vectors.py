"""What models of several vectors per row share, before they are loaded."""

from __future__ import annotations

from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError


def refuse_single_vector_settings(config: EncoderConfig, piece: str) -> None:
    """Refuses settings of a row's only vector.

    Args:
        piece: what has a vector: a token, or a patch.

    Raises:
        ConfigurationError: names the key.
    """
    if config.dimensions is not None:
        raise ConfigurationError(
            f"encoder.dimensions: {config.model} has a vector for each {piece}, which can't be cut",
            "remove encoder.dimensions",
        )
    given = [key for key in ("metric", "index") if getattr(config, key) is not None]
    if given:
        raise ConfigurationError(
            f"encoder.{given[0]}: {config.model} has a vector for each {piece}, which Milvus does not hold",
            f"remove encoder.{given[0]}",
        )
