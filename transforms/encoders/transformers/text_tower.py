"""The texts of a model of media and texts, by the tokenizer that the library finds in its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ConfigurationError, EncoderError
from schemas.identity import digest
from transforms.encoders.engines.torch.torchvision_operators import make_importable
from transforms.encoders.media.two_towers import TextTower
from transforms.encoders.model_files import file_digest, read_json, read_tokenizer, tokenizer_digest
from transforms.encoders.transformers.architectures import Padding
from transforms.support.extras import need

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SETTINGS = (
    *("tokenizer_class", "do_lower_case", "model_input_names", "padding_side", "pad_token"),
    *("add_bos_token", "add_eos_token"),
)
"""Of tokenizer_config.json: what changes a text's tokens, whatever tokenizer.json says."""
_FILES = ("spiece.model", "vocab.json", "merges.txt", "vocab.txt")

Floats = NDArray[np.float32]


class ReadsTexts:
    """The part of a model of media and texts that reads the texts of a corpus; see `transforms.chunk.text.Tokenizing`.

    Attributes:
        facts: of its space; `max_tokens` is among them.
        folder: with its files.
    """

    facts: Mapping[str, Any]
    folder: Path

    @property
    def max_tokens(self) -> int:
        """Length limit, special tokens included."""
        return int(self.facts["max_tokens"])

    @property
    def prompt(self) -> str:
        """None: texts are embedded as they are."""
        return ""

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that cuts texts, with neither truncation nor padding."""
        return chunking_tokenizer(self.folder)

    def as_seen(self, text: str, *, query: bool = False) -> str:  # noqa: ARG002 (the protocol's)
        """The text as the tokenizer sees it."""
        return text


def tokenizer_facts(folder: Path) -> str:
    """SHA-256 of what a folder's tokenizer means, hex.

    Raises:
        ConfigurationError: if the folder has none.
    """
    settings = read_json(folder / "tokenizer_config.json")
    parts: list[Any] = [{key: settings[key] for key in _SETTINGS if key in settings}]
    if (folder / "tokenizer.json").exists():
        parts.append(tokenizer_digest(folder))
    parts += [file_digest(folder / name) for name in _read_by_library(folder, settings)]
    if len(parts) == 1:
        raise ConfigurationError(
            f"encoder.model: {folder} holds no tokenizer.json, and the model embeds texts",
            "save the tokenizer in addition to the model: AutoTokenizer.from_pretrained(...).save_pretrained(folder)",
        )
    return digest(parts, 64)


def _read_by_library(folder: Path, settings: Mapping[str, Any]) -> list[str]:
    if (folder / "tokenizer.json").exists():
        return ["spiece.model"] if _needs_sentencepiece(settings) and (folder / "spiece.model").exists() else []
    return [name for name in _FILES if (folder / name).exists()]


def _needs_sentencepiece(settings: Mapping[str, Any]) -> bool:
    return settings.get("tokenizer_class") == "SiglipTokenizer"


def text_tower(folder: Path, limit: int, padding: Padding, run: Callable[..., Floats]) -> TextTower:
    """The tower of texts in a folder.

    Args:
        limit: tokens of a text.
        run: takes token ids int64[n, tokens], and their mask where the tokenizer makes one.

    Raises:
        EncoderError: if the tokenizer can't be loaded.
    """
    tokenizer = _load(folder)

    def count(texts: Sequence[str]) -> list[int]:
        if not texts:
            return []
        return [len(ids) for ids in tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]]

    def tokenize(texts: list[str]) -> list[NDArray[np.int64]]:
        made = tokenizer(
            texts,
            padding="max_length" if padding is Padding.LIMIT else "longest",
            truncation=True,
            max_length=limit,
            return_tensors="np",
        )
        names = [name for name in ("input_ids", "attention_mask") if name in made]
        return [np.ascontiguousarray(made[name], np.int64) for name in names]

    return TextTower(limit, count, tokenize, run)


def chunking_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer that cuts texts, with neither truncation nor padding.

    Raises:
        ConfigurationError: if the folder has none that counts tokens of many texts at once.
        EncoderError: if it can't be loaded.
    """
    from tokenizers import Tokenizer

    inner = getattr(_load(folder), "backend_tokenizer", None)
    if inner is not None:
        found = Tokenizer.from_str(inner.to_str())
        found.no_truncation()
        found.no_padding()
        return found
    if not (folder / "tokenizer.json").exists():
        raise ConfigurationError(
            f"encoder.model: {folder} holds no tokenizer.json, and the corpus is of texts",
            "save it with a fast tokenizer: AutoTokenizer.from_pretrained(...).save_pretrained(folder)",
        )
    return read_tokenizer(folder / "tokenizer.json")


def _load(folder: Path) -> Any:
    if _needs_sentencepiece(read_json(folder / "tokenizer_config.json")):
        need("image", "the tokenizer of a SigLIP model", "sentencepiece")
    make_importable()
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # the library raises errors of many kinds for damaged files
        raise EncoderError(
            f"can't read the tokenizer in {folder}: {error}", "make the model's files readable, or fetch them again"
        ) from error
