"""An estimate of a text's tokens, for a model whose tokenizer is on the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_TOKEN = r"[A-Za-z0-9]{1,4}|[^\sA-Za-z0-9]"


def estimating_tokenizer() -> Tokenizer:
    """A tokenizer that counts one token for up to four ASCII letters or digits, and one for each other character.

    Subword tokenizers give fewer tokens for most texts, so a chunk that fits this estimate fits the model.
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokens = pre_tokenizers.Split(Regex(_TOKEN), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), tokens])
    return tokenizer
