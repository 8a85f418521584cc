"""What an engine knows about a model: its files, and how to run them."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.config import EncoderConfig


@dataclass(frozen=True)
class TransformerFiles:
    """A folder that sentence-transformers can load, and what engines need to know about it.

    Attributes:
        config: model name, engine, precision, device and token budget.
        folder: of the whole model.
        transformer_folder: of the Transformer module, with the tokenizer.
        weights: SHA-256 of the weights, hex.
        pooling: how token vectors become one.
        max_tokens: length limit, special tokens included.
        padding_id: token id of padding.
        modules: kinds in modules.json; none if the folder has no such file.
        leaves_prompt_out: whether pooling leaves out tokens of a prompt.
        route: of the library's `Router`: its modules alone; "" for all modules of the folder.
    """

    config: EncoderConfig
    folder: str
    transformer_folder: str
    weights: str
    pooling: str
    max_tokens: int
    padding_id: int = 0
    modules: tuple[str, ...] = ()
    leaves_prompt_out: bool = False
    route: str = ""
