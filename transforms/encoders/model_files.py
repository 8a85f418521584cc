"""Contents of a model's files for any reader: settings, prompts, the tokenizer, and the weights' digests."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError, EncoderError
from schemas.identity import digest, digest_bytes
from transforms.encoders.model_source import Prompts

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_DOCUMENT_PROMPTS = ("document", "passage", "corpus")
# Settings that change vectors though the weights stay the same; the rest of config.json is bookkeeping.
_ARCHITECTURE_KEYS = (
    "model_type",
    "hidden_act",
    "hidden_activation",
    "num_attention_heads",
    "position_embedding_type",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "rms_norm_eps",
    "rope_theta",
    "sliding_window",
)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; {} where there is no such file, and any other value under ""."""
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigurationError(f"encoder.model: {path} is not valid JSON: {error}", "fetch the model again") from None
    return value if isinstance(value, dict) else {"": value}


def prompts_of(folder: Path) -> Prompts:
    """The prompts that a model's files name."""
    named = read_json(folder / "config_sentence_transformers.json").get("prompts") or {}
    return Prompts(_first(named, _DOCUMENT_PROMPTS), _first(named, ("query",)))


def _first(prompts: Mapping[str, str], names: Sequence[str]) -> str:
    return next((prompts[name] for name in names if prompts.get(name)), "")


def lowered(config: EncoderConfig, name: str, own: int) -> int:
    """A number that the configuration may lower and not raise.

    Args:
        name: of the key.
        own: the model's.
    """
    wanted: int | None = getattr(config, name)
    if wanted and wanted > own:
        raise ConfigurationError(f"encoder.{name}: {wanted} is more than the model's {own}", "lower it")
    return wanted or own


def architecture_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a transformer that change vectors for the same weights.

    Args:
        settings: its config.json.
    """
    return {key: settings[key] for key in _ARCHITECTURE_KEYS if settings.get(key) is not None}


def own_token_limit(root: Path, settings: Mapping[str, Any]) -> int:
    """A transformer's own length limit, special tokens included, as the sentence-transformers library finds it.

    Args:
        root: folder of the transformer.
        settings: its config.json.
    """
    named = read_json(root / "sentence_bert_config.json").get("max_seq_length")
    if named and named < 1_000_000:
        return int(named)
    limits = [
        read_json(root / "tokenizer_config.json").get("model_max_length"),
        settings.get("max_position_embeddings"),
    ]
    return min((int(limit) for limit in limits if limit and limit < 1_000_000), default=512)


def tokenizer_digest(root: Path, *, lower: bool = False) -> str:
    """SHA-256 of what tokenizer.json means, hex.

    Truncation and padding are settings of a call, saved by accident; the length limit is in the space itself.

    Args:
        lower: whether texts are lowered before.
    """
    meaning = {
        key: value for key, value in read_json(root / "tokenizer.json").items() if key not in ("truncation", "padding")
    }
    return digest([meaning, lower], 64)


def read_tokenizer(path: Path, *, special_tokens: bool = True) -> Tokenizer:
    """A tokenizer with neither truncation nor padding.

    Args:
        path: its tokenizer.json.
        special_tokens: whether it adds those of the model.

    Raises:
        EncoderError: if it can't be read.
    """
    from tokenizers import Tokenizer

    try:
        if special_tokens:
            tokenizer = Tokenizer.from_file(str(path))
        else:
            tokenizer = Tokenizer.from_str(json.dumps({**read_json(path), "post_processor": None}))
    except Exception as error:  # the library raises nothing narrower
        raise EncoderError(
            f"can't read the tokenizer {path}: {error}", "make the model's files readable, or install them again"
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def weights_digest(folders: Sequence[Path], pinned: str) -> str:
    """SHA-256 over the weights in some folders, hex.

    Args:
        pinned: what that of the first file must be; "" for whatever it is.

    Raises:
        ConfigurationError: if a folder holds no safetensors.
        EncoderError: if the first file is another one than the pinned.
    """
    hashes = []
    for place in folders:
        files = sorted(place.glob("*.safetensors"))
        if not files:
            raise ConfigurationError(
                f"encoder.model: {place} holds no safetensors weights",
                "convert the model: model.save_pretrained(folder, safe_serialization=True)",
            )
        hashes += [file_digest(file) for file in files]
    check_pinned(folders[0], hashes[0], pinned)
    return hashes[0] if len(hashes) == 1 else digest(hashes, 64)


def weight_names(folder: Path) -> set[str]:
    """The names of the weights in a folder, from the headers of its safetensors files.

    The format: https://github.com/huggingface/safetensors#format.

    Raises:
        EncoderError: if a file is damaged.
    """
    names: set[str] = set()
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with file.open("rb") as stream:
                names |= json.loads(stream.read(int.from_bytes(stream.read(8), "little"))).keys()
        except (ValueError, AttributeError, OverflowError) as error:
            raise EncoderError(f"can't read the weights {file}: {error}", "fetch the model again") from error
    return names - {"__metadata__"}


def check_pinned(place: Path, found: str, pinned: str, what: str = "weights") -> None:
    """Refuses other weights than the pinned ones.

    Args:
        found: SHA-256 of the weights in `place`, hex.
        pinned: what it must be; "" for whatever it is.
        what: the files, in the plural.

    Raises:
        EncoderError: if they differ.
    """
    if pinned and found != pinned:
        raise EncoderError(
            f"the {what} in {place} have SHA-256 {found}, pinned is {pinned}",
            "install the package again; the file is damaged or another model",
        )


def file_digest(file: Path) -> str:
    """SHA-256 of a file, hex; computed once in a process for each version of it."""
    status = file.stat()
    return _digest_of_version(file, status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _digest_of_version(file: Path, *_version: int) -> str:
    """The SHA-256 of a file, once in a process for each version: a pipeline resolves a model once a transform."""
    return digest_bytes(_blocks(file))


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            yield block
