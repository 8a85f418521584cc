"""Models of the sentence-transformers library: the space that their files define, before weights are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.config import Config, EncoderConfig
from schemas.errors import ConfigurationError
from schemas.modality import Modality
from transforms.chunk.text import TextChunker
from transforms.encoders.engines.choice import check_engine, check_runnable
from transforms.encoders.engines.extra import need_torch
from transforms.encoders.engines.transformer_files import TransformerFiles
from transforms.encoders.model_files import lowered, own_token_limit, read_json, read_tokenizer
from transforms.encoders.model_source import ModelSource
from transforms.encoders.static_embedding import StaticModel, describe_static
from transforms.encoders.text_encoder import TextEncoder
from transforms.encoders.text_facts import FactedText, TextFacts
from transforms.encoders.transformer_text import check_tokenizer, facts_of_transformer, files_of_transformer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_MODULES = ("Transformer", "Pooling", "Dense", "Normalize")


@dataclass(frozen=True)
class SentenceTransformersModel(FactedText):
    """A folder that SentenceTransformer can load, and the space that its files define.

    Attributes:
        files: what engines load.
        lower: whether texts are lower-cased before the tokenizer sees them.
    """

    files: TransformerFiles
    lower: bool = False

    @property
    def config(self) -> EncoderConfig:
        return self.files.config

    def tokenizer(self) -> Tokenizer:
        return read_tokenizer(Path(self.files.transformer_folder) / "tokenizer.json")

    def as_seen(self, text: str, *, query: bool = False) -> str:
        whole = super().as_seen(text, query=query)
        return whole.lower() if self.lower else whole

    def chunker(self, config: Config, modality: Modality) -> TextChunker:  # noqa: ARG002 (it has one)
        return TextChunker(config, self)

    def check_runnable(self) -> None:
        """See `transforms.encoders.models.Models.check_runnable`."""
        check_runnable(self.files)

    def load(self, sample: Sequence[str] = ()) -> TextEncoder:
        return TextEncoder(self, self.files, sample)


@dataclass(frozen=True)
class TorchModel(SentenceTransformersModel):
    """One that runs on torch alone."""

    def check_runnable(self) -> None:
        """See `transforms.encoders.models.Models.check_runnable`."""
        need_torch(f"encoder.model: {self.config.model}")


def describe(config: EncoderConfig, source: ModelSource) -> SentenceTransformersModel | StaticModel:
    """Reads a model's files and fingerprints its space.

    Raises:
        ConfigurationError: if the folder is incomplete, or the model can't do what the configuration says.
        EncoderError: if the weights are not the pinned ones.
    """
    folder = source.folder()
    return describe_modules(config, source, folder, listed_modules(folder))


def describe_modules(
    config: EncoderConfig, source: ModelSource, folder: Path, listed: Sequence[tuple[str, str]], route: str = ""
) -> SentenceTransformersModel | StaticModel:
    """The model that some modules of a folder are.

    Args:
        listed: kinds and paths of the modules, in order.
        route: of a `Router`, to which the modules belong.

    Raises:
        ConfigurationError, EncoderError: as `describe`.
    """
    modules = _by_kind(folder, listed)
    if modules.get("StaticEmbedding"):
        root = folder / modules["StaticEmbedding"][0]
        return describe_static(config, source, folder, root, normalize="Normalize" in modules)
    root = folder / modules["Transformer"][0] if modules.get("Transformer") else folder
    settings = read_json(root / "config.json")
    if not settings:
        raise ConfigurationError(
            f"encoder.model: {folder} holds no config.json", "name the folder that save_pretrained wrote"
        )
    check_tokenizer(root, folder)
    pooling, pooled_dimensions = _pooling(folder, modules)
    own_dimensions = _dense_dimensions(folder, modules) or pooled_dimensions or int(settings["hidden_size"])
    lower = bool(read_json(root / "sentence_bert_config.json").get("do_lower_case"))
    found = facts_of_transformer(
        config,
        source,
        folder,
        root,
        settings=settings,
        lower=lower,
        dimensions=own_dimensions,
        own_tokens=own_token_limit(root, settings),
        dense=modules.get("Dense", ()),
    )
    facts = TextFacts(
        **found,
        pooling=pooling,
        dimensions=lowered(config, "dimensions", own_dimensions),
        normalize=config.normalize or "Normalize" in modules,
    )
    files = files_of_transformer(config, folder, root, facts, settings, modules, route)
    check_engine(files)
    return SentenceTransformersModel(facts, files, lower)


def listed_modules(folder: Path) -> list[tuple[str, str]]:
    """The kind (Transformer, Pooling, Dense, Normalize, ...) and the path of each module of modules.json, in order."""
    modules = read_json(folder / "modules.json").get("", [])
    return [(kind_of(str(module["type"])), str(module["path"])) for module in modules]


def kind_of(module: str) -> str:
    """The kind of a module, from the name of its class.

    >>> kind_of("sentence_transformers.models.Pooling")
    'Pooling'
    """
    return module.rsplit(".", 1)[-1]


def _by_kind(folder: Path, listed: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """The paths of the modules of each kind."""
    modules: dict[str, list[str]] = {}
    for kind, path in listed:
        modules.setdefault(kind, []).append(path)
    known = {"StaticEmbedding", "Normalize"} if "StaticEmbedding" in modules else {*_MODULES}
    unknown = set(modules) - known
    if "SpladePooling" in unknown:
        raise ConfigurationError(
            f"encoder.model: {folder} holds a SPLADE model, whose vectors are sparse",
            "set encoder.family: splade",
        )
    if unknown:
        raise ConfigurationError(
            f"encoder.model: {folder} has modules that are not supported: {', '.join(sorted(unknown))}",
            f"use a model of {', '.join(_MODULES)}, or of StaticEmbedding and Normalize",
        )
    return modules


def _pooling(folder: Path, modules: dict[str, list[str]]) -> tuple[str, int | None]:
    if not modules.get("Pooling"):
        return "mean", None  # what the library adds to a transformer alone
    settings = read_json(folder / modules["Pooling"][0] / "config.json")
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
    return int(read_json(folder / modules["Dense"][-1] / "config.json")["out_features"])
