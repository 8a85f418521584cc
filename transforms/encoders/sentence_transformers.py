"""Models of the sentence-transformers library: what their files say of the space, before weights are loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.config import Config, EncoderConfig
from schemas.errors import ConfigurationError, EncoderError
from schemas.identity import digest, digest_bytes
from transforms.chunk.text import TextChunker
from transforms.encoders.engines.choice import check_engine, check_runnable
from transforms.encoders.engines.transformer_files import TransformerFiles
from transforms.encoders.model_source import ModelSource
from transforms.encoders.text_encoder import TextEncoder
from transforms.encoders.text_facts import FactedText, TextFacts

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
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")


@dataclass(frozen=True)
class SentenceTransformersModel(FactedText):
    """A folder that SentenceTransformer can load, and the space that its files define.

    Attributes:
        files: what engines load.
        lower: whether texts are lowered before the tokenizer sees them.
    """

    files: TransformerFiles
    lower: bool = False

    @property
    def config(self) -> EncoderConfig:
        return self.files.config

    def tokenizer(self) -> Tokenizer:
        from tokenizers import Tokenizer

        path = Path(self.files.transformer_folder) / "tokenizer.json"
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise EncoderError(
                f"can't read the tokenizer {path}: {error}", "make the model's files readable, or install them again"
            ) from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    def as_seen(self, text: str, *, query: bool = False) -> str:
        whole = super().as_seen(text, query=query)
        return whole.lower() if self.lower else whole

    def chunker(self, config: Config) -> TextChunker:
        return TextChunker(config, self)

    def check_runnable(self) -> None:
        """See `transforms.encoders.models.Models.check_runnable`."""
        check_runnable(self.files)

    def load(self, sample: Sequence[str] = ()) -> TextEncoder:
        return TextEncoder(self, self.files, sample)


def describe(config: EncoderConfig, source: ModelSource) -> SentenceTransformersModel:
    """Reads a model's files and fingerprints its space.

    Raises:
        ConfigurationError: where the folder lacks what is needed, or the configuration asks for what the model can't.
        EncoderError: where the weights are not the pinned ones.
    """
    folder = source.folder()
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
    facts = TextFacts(
        weights=_weights(folder, root, modules, source.weights_sha256),
        tokenizer=_tokenizer_digest(root),
        architecture={key: settings[key] for key in _ARCHITECTURE_KEYS if settings.get(key) is not None},
        pooling=pooling,
        prompt=_own_prompt(prompts, _DOCUMENT_PROMPTS) if config.prompt is None else config.prompt,
        query_prompt=_own_prompt(prompts, ("query",)) if config.query_prompt is None else config.query_prompt,
        max_tokens=_max_tokens(config, root, settings),
        dimensions=config.dimensions or own_dimensions,
        normalize=config.normalize or "Normalize" in modules,
    )
    files = TransformerFiles(
        config,
        str(folder),
        str(root),
        weights=facts.weights,
        pooling=facts.pooling,
        max_tokens=facts.max_tokens,
        padding_id=int(settings.get("pad_token_id") or 0),
        modules=tuple(modules),
        leaves_prompt_out=facts.leaves_prompt_out,
    )
    check_engine(files)
    lower = bool(_json(root / "sentence_bert_config.json").get("do_lower_case"))
    return SentenceTransformersModel(facts, files, lower)


def _json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigurationError(f"encoder.model: {path} is not valid JSON: {error}", "fetch the model again") from None
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
            "use a model of Transformer, Pooling, Dense and Normalize",
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
