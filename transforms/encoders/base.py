"""What an encoder is, and what is known of a model before its weights are loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from schemas.config import Encoder as EncoderConfig
from schemas.identity import Space

if TYPE_CHECKING:
    from tokenizers import Tokenizer


TokenIds = NDArray[np.int32]
"""Ids of a text's tokens, special tokens included."""


class Encoded(NamedTuple):
    """Texts as vectors, in the order of the texts.

    Attributes:
        vectors: float32[n, dimensions]
        tokens: int64[n], tokens that went through the model for each text, special tokens and prompt included
        tokens_dropped: int64[n], tokens over the length limit
        tokens_padded: padding tokens that went through the model for all texts together
        busy_seconds: for which the device computed
        operations: floating point operations of the model's matrices for these tokens, padding left out
        possible_operations: what the device's matrix units do in the time that all of it took; 0 where not known
    """

    vectors: NDArray[np.float32]
    tokens: NDArray[np.int64]
    tokens_dropped: NDArray[np.int64]
    tokens_padded: int
    busy_seconds: float = 0.0
    operations: float = 0.0
    possible_operations: float = 0.0


class Encoder(Protocol):
    """A model, loaded and ready. One lives in each worker process; several threads may use it at once."""

    def encode(
        self,
        texts: Sequence[str],
        *,
        query: bool = False,
        token_ids: Sequence[TokenIds | None] | None = None,
        advance: Callable[[int], None] | None = None,
    ) -> Encoded:
        """Embeds texts.

        Args:
            query: takes the prompt for queries instead of the one for items.
            token_ids: of each text as `TextModel.as_seen` has it, none over the length limit; None where it is not
                known and the text is to be tokenized.
            advance: is told how many tokens have gone through the model, after each batch of tokens.

        Raises:
            Exception: whatever the model raises; the caller tries smaller tables, then item by item.
        """
        ...

    def runtime(self) -> dict[str, str]:
        """Engine, device, precision and library versions, recorded beside the space."""
        ...


class TextModel(Protocol):
    """A model before it is loaded: cheap to make.

    It may hold paths of the machine that made it, so it does not travel: each worker finds its own from the
    configuration and checks the space id.
    """

    @property
    def config(self) -> EncoderConfig: ...

    @property
    def space(self) -> Space: ...

    def tokenizer(self) -> Tokenizer:
        """The model's own tokenizer, with neither truncation nor padding."""
        ...

    def as_seen(self, text: str, *, query: bool = False) -> str:
        """The text as the tokenizer sees it: behind its prompt, lowered where the model wants that."""
        ...

    def load(self, sample: Sequence[str] = ()) -> Encoder:
        """Loads the weights.

        Args:
            sample: texts that int8 takes its ranges from.

        Raises:
            EncoderError: where they can't be loaded.
        """
        ...
