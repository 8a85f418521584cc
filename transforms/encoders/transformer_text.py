"""What text models that are transformers share: the facts and files of a folder, and what torch alone can run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError
from transforms.encoders.engines.transformer_files import TransformerFiles
from transforms.encoders.model_files import architecture_of, lowered, prompts_of, tokenizer_digest, weights_digest
from transforms.encoders.model_source import ModelSource
from transforms.encoders.text_facts import TextFacts


def check_tokenizer(root: Path, folder: Path) -> None:
    """Refuses a transformer without the file of a fast tokenizer.

    Args:
        root: where its files are.
        folder: the model's, for the message.

    Raises:
        ConfigurationError: with the remedy.
    """
    if not (root / "tokenizer.json").exists():
        raise ConfigurationError(
            f"encoder.model: {folder} holds no tokenizer.json",
            "save it with a fast tokenizer: AutoTokenizer.from_pretrained(...).save_pretrained(folder)",
        )


def facts_of_transformer(
    config: EncoderConfig,
    source: ModelSource,
    folder: Path,
    root: Path,
    *,
    settings: Mapping[str, Any],
    lower: bool,
    dimensions: int,
    own_tokens: int,
    dense: Iterable[str] = (),
) -> dict[str, Any]:
    """The facts of `TextFacts` that a transformer's files and the configuration give, whatever is made of its tokens.

    Args:
        folder: of the whole model.
        root: of the transformer.
        settings: its config.json.
        lower: whether texts are lower-cased before the tokenizer sees them.
        dimensions, own_tokens: the model's own, which are compared with the catalogue's.
        dense: folders of projections, relative to `folder`.

    Raises:
        ConfigurationError: if the configuration raises the length limit, or the folder has no weights.
        EncoderError: if the files are not those of the catalogue.
    """
    in_files = prompts_of(folder)
    source.compare(dimensions, own_tokens, in_files)
    prompts = source.own_prompts(in_files)
    return {
        "weights": weights_digest([root, *(folder / path for path in dense)], source.weights_sha256),
        "tokenizer": tokenizer_digest(root, lower=lower),
        "architecture": architecture_of(settings),
        "prompt": prompts.item if config.prompt is None else config.prompt,
        "query_prompt": prompts.query if config.query_prompt is None else config.query_prompt,
        "max_tokens": lowered(config, "max_tokens", own_tokens),
    }


def files_of_transformer(
    config: EncoderConfig,
    folder: Path,
    root: Path,
    facts: TextFacts,
    settings: Mapping[str, Any],
    modules: Iterable[str] = (),
    route: str = "",
) -> TransformerFiles:
    """What engines load; arguments as those of `facts_of_transformer`.

    Args:
        modules: kinds in modules.json.
        route: see `TransformerFiles`.
    """
    return TransformerFiles(
        config,
        str(folder),
        str(root),
        weights=facts.weights,
        pooling=facts.pooling,
        max_tokens=facts.max_tokens,
        padding_id=int(settings.get("pad_token_id") or 0),
        modules=tuple(modules),
        leaves_prompt_out=facts.leaves_prompt_out,
        route=route,
    )


def check_runs_on_torch(config: EncoderConfig, models: str) -> None:
    """Refuses other engines for models that run on torch alone.

    Args:
        models: what they are called, in the plural.

    Raises:
        ConfigurationError: names the key.
    """
    if config.precision == "int8" or config.engine not in ("auto", "torch"):
        key = "precision" if config.precision == "int8" else "engine"
        raise ConfigurationError(
            f"encoder.{key}: {getattr(config, key)} can't run {config.model}: {models} run on torch alone",
            "set encoder.engine: torch and encoder.precision: float32 or bfloat16",
        )
