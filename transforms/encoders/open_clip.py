"""Images and texts in one space, by models of the open_clip library (CLIP, SigLIP and others).

https://github.com/mlfoundations/open_clip
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from schemas.config import Config, EncoderConfig
from schemas.errors import ConfigurationError, EncoderError
from schemas.modality import Modality
from transforms.chunk.base import Chunker
from transforms.chunk.text import CountedTokens, TextChunker
from transforms.encoders.media.image import decoding_fact
from transforms.encoders.media.image_model import ImageModel
from transforms.encoders.media.media_model import refuse_text_settings
from transforms.encoders.media.preparation import by_torchvision
from transforms.encoders.media.two_towers import TextTower, TwoTowerEncoder
from transforms.encoders.model_files import lowered, read_json, weights_digest
from transforms.encoders.model_source import ModelSource
from transforms.support.extras import need, version_of

if TYPE_CHECKING:
    pass

PACKAGES = ("torch", "torchvision", "open_clip", "PIL")
SETTINGS = "open_clip_config.json"
"""The file that tells a folder of this library."""


@dataclass(frozen=True)
class OpenCLIPModel(ImageModel):
    """A folder that open_clip loads as `local-dir:`: images and texts, of a corpus and as queries."""

    folder: Path

    modalities: ClassVar = frozenset({Modality.IMAGE, Modality.TEXT})
    prompt: ClassVar = ""

    @property
    def max_tokens(self) -> int:
        """Length limit of a text, special tokens included; open_clip's own default is that of CLIP."""
        return int((self.facts["architecture"].get("text_cfg") or {}).get("context_length", 77))

    def as_seen(self, text: str, *, query: bool = False) -> str:  # noqa: ARG002 (the protocol's)
        """See `transforms.chunk.text.Tokenizing`."""
        return text

    def tokenizer(self) -> CountedTokens:
        """See `transforms.chunk.text.Tokenizing`."""
        return CountedTokens(partial(_counts, _library().get_tokenizer(f"local-dir:{self.folder}")))

    def chunker(self, config: Config, modality: Modality) -> Chunker:
        return TextChunker(config, self) if modality is Modality.TEXT else super().chunker(config, modality)


def describe(config: EncoderConfig, source: ModelSource) -> OpenCLIPModel:
    """Reads the settings of a folder; see `transforms.encoders.families`.

    Raises:
        ConfigurationError: if the folder is incomplete, or the configuration sets what such a model does not have.
        EncoderError: if the weights are not the pinned ones.
    """
    refuse_text_settings(config)
    folder = source.folder()
    settings = read_json(folder / SETTINGS)
    model = settings.get("model_cfg") or {}
    if not model.get("embed_dim"):
        raise ConfigurationError(
            f"encoder.model: {folder} has no {SETTINGS} with the settings of an open_clip model",
            "name a folder that open_clip.push_to_hf_hub wrote, or a hub id of such a model",
        )
    facts = {
        "family": "open_clip",
        "weights": weights_digest([folder], source.weights_sha256),
        "architecture": model,
        "image": settings.get("preprocess_cfg") or {},
        "decoding": decoding_fact(config),
        "dimensions": lowered(config, "dimensions", int(model["embed_dim"])),
        "normalize": config.normalize,
    }
    return OpenCLIPModel(config, facts, partial(_load, config, folder, facts), PACKAGES, folder)


def _library() -> Any:
    need("image", "an open_clip model", *PACKAGES)
    from transforms.encoders.engines.torch.torchvision_operators import make_importable

    make_importable()
    import open_clip

    return open_clip


def load_library_model(folder: Path) -> tuple[Any, Any, Any]:
    """The library's own model of a folder in float32, its transform of images, and its tokenizer.

    Raises:
        EncoderError: if its files are damaged.
        MissingExtraError: if the library is not installed.
    """
    library = _library()
    name = f"local-dir:{folder}"
    try:
        model, _, transform = library.create_model_and_transforms(name, weights_only=True)
        tokenizer = library.get_tokenizer(name)
    except Exception as error:  # the library raises errors of many kinds for damaged files
        raise EncoderError(f"can't load the model in {folder}: {error}", "check the folder's files") from error
    return model, transform, tokenizer


def _load(config: EncoderConfig, folder: Path, facts: dict[str, Any]) -> TwoTowerEncoder:
    model, transform, tokenizer = load_library_model(folder)
    import torch

    from transforms.encoders.engines.torch.forward import forward

    towers = torch.nn.ModuleDict({"model": model})
    preparing = by_torchvision(transform)
    images = forward(towers, config, preparing.before(_of_images), open_clip=version_of("open_clip") or "")
    texts = forward(towers, config, _of_texts)
    limit = tokenizer([""]).shape[1]
    tower = TextTower(limit, partial(_counts, tokenizer), lambda some: [tokenizer(some).numpy()], texts.run)
    return TwoTowerEncoder(preparing.encoder(config, facts, images), tower)


def _of_images(towers: Any, images: Any) -> Any:
    return towers["model"].encode_image(images)


def _of_texts(towers: Any, tokens: Any) -> Any:
    return towers["model"].encode_text(tokens)


def _counts(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """Tokens of each text, those at its ends included."""
    inner = getattr(tokenizer, "tokenizer", None)
    if inner is not None:  # of the transformers library
        return [len(inner(text, truncation=False)["input_ids"]) for text in texts]
    return [len(tokenizer.encode(text)) + 2 for text in texts]
