"""The section `chunk`: how items become chunks."""

from __future__ import annotations

from pydantic import Field, model_validator

from schemas.config.base import Section


class ChunkConfig(Section):
    max_tokens: int = Field(
        256, ge=8, description="Most tokens per chunk, special tokens included; the model's own limit also applies"
    )
    overlap_tokens: int = Field(32, ge=0, description="Most tokens that a chunk shares with the previous one")
    seconds: float | None = Field(
        None,
        ge=0.1,
        le=86400,
        description="Of recordings and films: seconds per window. If not set, the most that the model takes of a "
        "recording, and 10 of a film",
    )
    overlap_seconds: float | None = Field(
        None, ge=0, description="Seconds that a window shares with the previous one; 0 where `seconds` is set alone"
    )

    scenes: bool = Field(
        False,
        description="Of films: segments begin where scenes do, and `seconds` cuts longer ones. vecbeam decodes the "
        "whole film to find them",
    )

    @model_validator(mode="after")
    def _one_kind(self) -> ChunkConfig:
        if (tokens := self.of_tokens) and self.of_seconds:
            raise ValueError(
                f"{tokens[0]} and {self.of_seconds[0]} are both set; tokens are for texts, and seconds for "
                "recordings and films: remove one"
            )
        if self.overlap_seconds is not None and self.seconds is None:
            raise ValueError("overlap_seconds is set without seconds; set seconds, or remove it")
        return self

    @property
    def of_tokens(self) -> list[str]:
        """The keys of texts that are set."""
        return [key for key in ("max_tokens", "overlap_tokens") if key in self.model_fields_set]

    @property
    def of_seconds(self) -> list[str]:
        """The keys of recordings and films that are set."""
        return [key for key in ("seconds", "overlap_seconds", "scenes") if getattr(self, key) not in (None, False)]

    @model_validator(mode="after")
    def _overlap_fits(self) -> ChunkConfig:
        for over, whole in (("overlap_tokens", "max_tokens"), ("overlap_seconds", "seconds")):
            most, length = getattr(self, over), getattr(self, whole)
            if most is not None and length is not None and most * 2 > length:
                raise ValueError(f"{over} {most:g} is more than half of {whole} {length:g}; lower it")
        return self
