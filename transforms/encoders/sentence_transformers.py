"""Text encoders of the sentence-transformers library, embedded in batches of tokens instead of batches of texts.

Vectors are those of `SentenceTransformer.encode`; what this adds is that texts are tokenized once, sorted by tokens,
put through the model under a token budget, and that dropped tokens are counted instead of cut without a word.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from schemas.config import Encoder as EncoderConfig
from schemas.errors import ConfigurationError, EncoderError
from schemas.identity import Space, digest, digest_bytes
from transforms.encoders.base import Encoded

if TYPE_CHECKING:
    from tokenizers import Tokenizer

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
SHAPE_STEP = 8
"""Padded lengths are multiples of this."""

_DOCUMENT_PROMPTS = ("document", "passage", "corpus")


@dataclass(frozen=True)
class SentenceTransformersModel:
    """A folder that SentenceTransformer can load, and the space that its files define."""

    config: EncoderConfig
    folder: str
    transformer_folder: str
    space: Space

    def tokenizer(self) -> Tokenizer:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(Path(self.transformer_folder) / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    def load(self) -> SentenceTransformersEncoder:
        return SentenceTransformersEncoder(self)


def describe(config: EncoderConfig, folder: Path, weights_sha256: str = "") -> SentenceTransformersModel:
    """Reads a model's files and fingerprints its space.

    Args:
        weights_sha256: what the SHA-256 of model.safetensors must be; "" where it is not pinned.

    Raises:
        ConfigurationError: where the folder lacks what is needed, or the configuration asks for what the model can't.
        EncoderError: where the weights are not the pinned ones.
    """
    modules = _modules(folder)
    root = folder / modules["Transformer"][0] if modules.get("Transformer") else folder
    settings = _json(root / "config.json")
    if not settings:
        raise ConfigurationError(
            f"encoder.model: {folder} holds no config.json", "name the folder that save_pretrained wrote"
        )
    if not (root / "tokenizer.json").exists():
        raise ConfigurationError(
            f"encoder.model: {folder} holds no tokenizer.json",
            "save it with a fast tokenizer: AutoTokenizer.from_pretrained(...).save_pretrained(folder)",
        )
    pooling, pooled_dimensions = _pooling(folder, modules)
    own_dimensions = _dense_dimensions(folder, modules) or pooled_dimensions or int(settings["hidden_size"])
    if config.dimensions and config.dimensions > own_dimensions:
        raise ConfigurationError(
            f"encoder.dimensions: {config.dimensions} is more than the model's {own_dimensions}", "lower it"
        )
    prompts = _json(folder / "config_sentence_transformers.json").get("prompts") or {}
    space = Space(
        weights=_weights(folder, root, modules, weights_sha256),
        tokenizer=_tokenizer_digest(root),
        architecture={key: settings[key] for key in _ARCHITECTURE_KEYS if settings.get(key) is not None},
        pooling=pooling,
        prompt=_own_prompt(prompts, _DOCUMENT_PROMPTS) if config.prompt is None else config.prompt,
        query_prompt=_own_prompt(prompts, ("query",)) if config.query_prompt is None else config.query_prompt,
        max_tokens=_max_tokens(config, root, settings),
        dimensions=config.dimensions or own_dimensions,
        normalize=config.normalize or "Normalize" in modules,
    )
    return SentenceTransformersModel(config, str(folder), str(root), space)


def _json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigurationError(f"encoder.model: {path} is no JSON: {error}", "fetch the model again") from None
    return value if isinstance(value, dict) else {"": value}


def _modules(folder: Path) -> dict[str, list[str]]:
    """Module kinds of modules.json (Transformer, Pooling, Dense, Normalize) with their folders, in order."""
    modules: dict[str, list[str]] = {}
    for module in _json(folder / "modules.json").get("", []):
        modules.setdefault(str(module["type"]).rsplit(".", 1)[-1], []).append(str(module["path"]))
    unknown = set(modules) - {"Transformer", "Pooling", "Dense", "Normalize"}
    if unknown:
        raise ConfigurationError(
            f"encoder.model: {folder} has modules that are not supported: {', '.join(sorted(unknown))}",
            "take a model of Transformer, Pooling, Dense and Normalize",
        )
    return modules


def _pooling(folder: Path, modules: dict[str, list[str]]) -> tuple[str, int | None]:
    if not modules.get("Pooling"):
        return "mean", None  # what the library adds to a bare transformer
    settings = _json(folder / modules["Pooling"][0] / "config.json")
    modes = settings.get("pooling_mode") or [
        key.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
        for key, value in settings.items()
        if key.startswith("pooling_mode_") and value is True
    ]
    names = [modes] if isinstance(modes, str) else sorted(modes)
    text = "+".join(names) or "mean"
    dimensions = settings.get("embedding_dimension") or settings.get("word_embedding_dimension")
    without_prompt = "" if settings.get("include_prompt", True) else " without prompt"
    return text + without_prompt, int(dimensions) * len(names) if dimensions else None


def _dense_dimensions(folder: Path, modules: dict[str, list[str]]) -> int | None:
    if not modules.get("Dense"):
        return None
    return int(_json(folder / modules["Dense"][-1] / "config.json")["out_features"])


def _own_prompt(prompts: dict[str, str], names: Sequence[str]) -> str:
    return next((prompts[name] for name in names if prompts.get(name)), "")


def _max_tokens(config: EncoderConfig, root: Path, settings: dict[str, Any]) -> int:
    limits = [
        _json(root / "sentence_bert_config.json").get("max_seq_length"),
        _json(root / "tokenizer_config.json").get("model_max_length"),
        settings.get("max_position_embeddings"),
    ]
    own = next((int(limit) for limit in limits if limit and limit < 1_000_000), 512)
    if config.max_tokens and config.max_tokens > own:
        raise ConfigurationError(f"encoder.max_tokens: {config.max_tokens} is more than the model's {own}", "lower it")
    return config.max_tokens or own


def _tokenizer_digest(root: Path) -> str:
    # Truncation and padding are settings of a call, saved by accident; the length limit is in the space itself.
    tokenizer = _json(root / "tokenizer.json")
    meaning = {key: value for key, value in tokenizer.items() if key not in ("truncation", "padding")}
    lower = bool(_json(root / "sentence_bert_config.json").get("do_lower_case"))
    return digest([meaning, lower], 64)


def _weights(folder: Path, root: Path, modules: dict[str, list[str]], pinned: str) -> str:
    folders = [root, *(folder / path for path in modules.get("Dense", []))]
    hashes = []
    for place in folders:
        files = sorted(place.glob("*.safetensors"))
        if not files:
            raise ConfigurationError(
                f"encoder.model: {place} holds no safetensors weights",
                "convert the model: model.save_pretrained(folder, safe_serialization=True)",
            )
        for file in files:
            hashes.append(digest_bytes(_blocks(file)))
    if pinned and hashes[0] != pinned:
        raise EncoderError(
            f"the weights in {folder} have SHA-256 {hashes[0]}, pinned is {pinned}",
            "install the package again; the file is damaged or another model",
        )
    return hashes[0] if len(hashes) == 1 else digest(hashes, 64)


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            yield block


class SentenceTransformersEncoder:
    """See the module. One thread at a time."""

    def __init__(self, model: SentenceTransformersModel) -> None:
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()
        config = model.config
        if config.device == "cuda" and not torch.cuda.is_available():
            raise EncoderError("encoder.device is cuda, but this worker has no CUDA device", "set it to auto or cpu")
        self._device = "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"
        try:
            self._modules = SentenceTransformer(
                model.folder,
                device=self._device,
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"use_safetensors": True},
            ).eval()
        except Exception as error:  # the libraries raise errors of many kinds for damaged files
            raise EncoderError(
                f"can't load the model in {model.folder}: {error}", "check the folder's files"
            ) from error
        self._model = model
        self._tokenizer = model.tokenizer()
        self._cutting = model.tokenizer()
        self._cutting.enable_truncation(model.space.max_tokens)
        self._lower = bool(_json(Path(model.transformer_folder) / "sentence_bert_config.json").get("do_lower_case"))

    def encode(
        self, texts: Sequence[str], *, query: bool = False, advance: Callable[[int], None] | None = None
    ) -> Encoded:
        import torch

        space = self._model.space
        prompt = space.query_prompt if query else space.prompt
        ids, dropped = self._tokenize([prompt + text for text in texts])
        lengths = np.array([len(row) for row in ids], np.int64)
        vectors = np.empty((len(texts), space.dimensions), np.float32)
        padded = 0
        bfloat16 = self._model.config.precision == "bfloat16"
        with torch.inference_mode(), torch.autocast(self._device, torch.bfloat16, enabled=bfloat16):
            for rows in _token_batches(lengths, self._model.config.batch_tokens, space.max_tokens):
                tokens = int(lengths[rows].sum())
                padded += _padded(int(lengths[rows].max()), space.max_tokens) * len(rows) - tokens
                vectors[rows] = self._forward([ids[row] for row in rows], prompt)
                if advance is not None:
                    advance(tokens)
        return Encoded(vectors, lengths, dropped, padded)

    def runtime(self) -> dict[str, str]:
        import sentence_transformers
        import torch
        import transformers

        return {
            "engine": "torch",
            "device": self._device,
            "precision": self._model.config.precision,
            "processor": torch.cuda.get_device_name() if self._device == "cuda" else platform.machine(),
            "torch": str(torch.__version__),
            "transformers": transformers.__version__,
            "sentence-transformers": sentence_transformers.__version__,
        }

    def _tokenize(self, texts: list[str]) -> tuple[list[list[int]], NDArray[np.int64]]:
        if self._lower:
            texts = [text.lower() for text in texts]
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]
        dropped = np.zeros(len(texts), np.int64)
        for row, tokens in enumerate(ids):
            if len(tokens) > self._model.space.max_tokens:
                ids[row] = self._cutting.encode(texts[row]).ids
                dropped[row] = len(tokens) - len(ids[row])
        return ids, dropped

    def _forward(self, ids: list[list[int]], prompt: str) -> NDArray[np.float32]:
        import torch

        longest = _padded(max(map(len, ids)), self._model.space.max_tokens)
        input_ids = np.zeros((len(ids), longest), np.int64)
        attention_mask = np.zeros((len(ids), longest), np.int64)
        for row, tokens in enumerate(ids):
            input_ids[row, : len(tokens)] = tokens
            attention_mask[row, : len(tokens)] = 1
        features: dict[str, Any] = {
            "input_ids": torch.from_numpy(input_ids).to(self._device),
            "attention_mask": torch.from_numpy(attention_mask).to(self._device),
        }
        if prompt and "without prompt" in self._model.space.pooling:
            features["prompt_length"] = self._prompt_length(prompt)
        out = self._modules(features)["sentence_embedding"].float()[:, : self._model.space.dimensions]
        if self._model.space.normalize:
            out = torch.nn.functional.normalize(out, dim=1)
        vectors: NDArray[np.float32] = out.cpu().numpy()
        return vectors

    def _prompt_length(self, prompt: str) -> int:
        # As the library counts it: the closing special token does not belong to the prompt.
        encoding = self._tokenizer.encode(prompt)
        return len(encoding.ids) - (1 if encoding.special_tokens_mask[-1] else 0)


def _padded(length: int, limit: int) -> int:
    """Tokens that a row of a batch takes when `length` is the longest: rounded up, within the model's limit.

    The CPU kernels keep a compiled primitive for each shape that they meet, and memory would grow with every new one.
    """
    return max(length, min(limit, -(-length // SHAPE_STEP) * SHAPE_STEP))


def _token_batches(lengths: NDArray[np.int64], budget: int, limit: int) -> Iterator[NDArray[np.int64]]:
    """Rows in batches of near-equal lengths, longest first: padded size at most `budget` tokens (or one row)."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        rows = max(1, budget // max(1, _padded(int(lengths[order[start]]), limit)))
        yield order[start : start + rows]
        start += rows
