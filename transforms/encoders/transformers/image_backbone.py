"""Images by a model without its last layer: ViT, DINOv2, ResNet, Perceiver and others of `architectures.BACKBONES`."""

from __future__ import annotations

from functools import partial
from typing import Any

from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError, EncoderError
from transforms.encoders.media.image import decoding_fact
from transforms.encoders.media.image_model import ImageModel
from transforms.encoders.media.media_encoder import MediaEncoder
from transforms.encoders.model_files import lowered, weights_digest
from transforms.encoders.model_source import ModelSource
from transforms.encoders.transformers.architectures import BACKBONES, Pooling
from transforms.encoders.transformers.model_folder import ModelFolder
from transforms.encoders.transformers.pixels import packages, preparation, resampling
from transforms.support.extras import version_of

_CLASSIFIER = "perceiver.decoder.decoder.final_layer."


def describe_backbone(config: EncoderConfig, source: ModelSource, files: ModelFolder) -> ImageModel:
    """The model in a folder.

    Raises:
        ConfigurationError: if a file does not exist, does not say the model's dimensions, or is of a model of another
            task.
        EncoderError: if the weights are not the pinned ones.
    """
    backbone = BACKBONES[files.model_type]
    own = _last(files.settings.get(backbone.dimensions))
    if not own:
        raise ConfigurationError(
            f"encoder.model: {files.folder / 'config.json'} does not say {backbone.dimensions}",
            "save the model again with save_pretrained",
        )
    kind = _class(files, backbone.classes)
    processing = files.processing("image_processor")
    source.compare_dimensions(own)
    resampled_by = resampling(processing)
    facts = {
        "family": "transformers",
        "weights": weights_digest([files.folder], source.weights_sha256),
        "architecture": files.architecture,
        "pooling": str(backbone.pooling),
        "image": processing,
        "resampling": resampled_by,
        "decoding": decoding_fact(config),
        "dimensions": lowered(config, "dimensions", own),
        "normalize": config.normalize,
    }
    return ImageModel(config, facts, partial(_load, config, files, facts, own, kind), packages(resampled_by))


def _class(files: ModelFolder, classes: tuple[str, ...]) -> str:
    """The library's class that loads a folder."""
    named = files.settings.get("architectures") or []
    if not classes:
        return "AutoModel"
    for name in classes:
        if name in named:
            return name
    raise ConfigurationError(
        f"encoder.model: {files.folder / 'config.json'} is of {' and '.join(map(str, named)) or 'no class'}, which "
        "does not classify images",
        f"name a model of one of these architectures: {', '.join(classes)}",
    )


def _load(config: EncoderConfig, files: ModelFolder, facts: dict[str, Any], own: int, kind: str) -> MediaEncoder:
    import torch

    from transforms.encoders.engines.torch.forward import forward

    pooling = Pooling(facts["pooling"])
    unused = () if pooling is Pooling.POOLER else ("pooler.", _CLASSIFIER)
    images = preparation(files.folder, facts["resampling"])
    call = images.before(partial(_pooled, pooling, own))
    model = files.load(*unused, kind=kind)
    if pooling is Pooling.DECODER:
        model.perceiver.decoder.decoder.final_layer = torch.nn.Identity()
    ready = forward(model, config, call, transformers=version_of("transformers") or "")
    return images.encoder(config, facts, ready)


def _pooled(pooling: Pooling, own: int, model: Any, images: Any) -> Any:
    found = model(pixel_values=images)
    match pooling:
        case Pooling.FIRST:
            vectors = found.last_hidden_state[:, 0]
        case Pooling.MEAN:
            vectors = found.last_hidden_state.mean(dim=1)
        case Pooling.DECODER:
            vectors = found.logits
        case Pooling.POOLER:
            vectors = found.pooler_output.flatten(1)
    if vectors.shape[1] != own:
        raise EncoderError(
            f"the model makes vectors of {vectors.shape[1]} numbers, and its config.json says {own}",
            "save the model again with save_pretrained",
        )
    return vectors


def _last(value: Any) -> int:
    found = value[-1] if isinstance(value, list) and value else value
    return found if isinstance(found, int) else 0
