"""What makes two vectors of text models comparable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from schemas.layout import Space, VectorKind
from schemas.modality import Modality
from transforms.encoders.base import text_inputs


@dataclass(frozen=True)
class TextFacts:
    """The facts of a text model's space. Their names and order determine the ids of spaces: never rename them.

    Attributes:
        weights: SHA-256 over the weight files' bytes, hex.
        tokenizer: SHA-256 over the tokenizer's canonical JSON (without truncation and padding), hex.
        architecture: the settings of the model that change vectors for the same weights.
        pooling: how token vectors become one: mean, cls, max, ...
        prompt, query_prompt: texts put before items and before queries.
        max_tokens: length limit, special tokens included.
        dimensions: numbers of a vector, after truncation.
        normalize: whether vectors have length 1.
    """

    weights: str
    tokenizer: str
    architecture: Mapping[str, Any] = field(default_factory=dict)
    pooling: str = "mean"
    prompt: str = ""
    query_prompt: str = ""
    max_tokens: int = 512
    dimensions: int = 384
    normalize: bool = True

    @property
    def space(self) -> Space:
        """The space that they define."""
        return Space(asdict(self))

    @property
    def leaves_prompt_out(self) -> bool:
        """Whether pooling leaves out tokens of a prompt that there is."""
        return "without prompt" in self.pooling and bool(self.prompt or self.query_prompt)


@dataclass(frozen=True)
class FactedText:
    """The part of a text model that its facts determine, whatever reads its files."""

    facts: TextFacts

    kind: ClassVar = VectorKind.DENSE
    modalities: ClassVar = frozenset({Modality.TEXT})

    @property
    def space(self) -> Space:
        return self.facts.space

    @property
    def dimensions(self) -> int:
        return self.facts.dimensions

    @property
    def max_tokens(self) -> int:
        return self.facts.max_tokens

    @property
    def prompt(self) -> str:
        return self.facts.prompt

    @property
    def probe(self) -> pa.Table:
        return text_inputs(["a short sentence that every encoder can embed"])

    def as_seen(self, text: str, *, query: bool = False) -> str:
        """The text as the tokenizer sees it."""
        return (self.facts.query_prompt if query else self.facts.prompt) + text
