"""A model of media before it is loaded: what its facts determine, whatever reads its files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError
from schemas.layout import Space, VectorKind
from transforms.encoders.base import Encoder
from transforms.support.extras import need

_TEXT_KEYS = ("prompt", "query_prompt", "max_tokens", "batch_tokens")


@dataclass(frozen=True)
class MediaModel:
    """What models of images, recordings and films share.

    Attributes:
        facts: of its space; `dimensions` and `normalize` are among them.
        loader: loads the weights.
        packages: that it needs.
    """

    config: EncoderConfig
    facts: Mapping[str, Any]
    loader: Callable[[], Encoder]
    packages: Sequence[str]

    kind: ClassVar = VectorKind.DENSE
    extra: ClassVar[str]
    """The extra of vecbeam that installs the packages."""

    @cached_property
    def space(self) -> Space:
        return Space(self.facts)

    @property
    def dimensions(self) -> int:
        return int(self.facts["dimensions"])

    def check_runnable(self) -> None:
        """See `transforms.encoders.models.Models.check_runnable`."""
        need(self.extra, self.config.model, *self.packages)

    def load(self, sample: Sequence[str] = ()) -> Encoder:  # noqa: ARG002 (the protocol's)
        self.check_runnable()
        return self.loader()


def refuse_text_settings(config: EncoderConfig) -> None:
    """Refuses what a configuration sets for texts, and what only text engines have.

    Raises:
        ConfigurationError: names the key.
    """
    for key in _TEXT_KEYS:
        if getattr(config, key) is not None:
            raise ConfigurationError(
                f"encoder.{key} is for text models, and {config.model} is not one", f"remove encoder.{key}"
            )
    if config.precision == "int8":
        raise ConfigurationError(
            f"encoder.precision: int8 is for text models, and {config.model} is not one",
            "set encoder.precision: float32, or bfloat16",
        )
    if config.engine not in ("auto", "torch"):
        raise ConfigurationError(
            f"encoder.engine: {config.engine} is for text models, and {config.model} is not one",
            "set encoder.engine: auto",
        )
