"""Images by models of the timm library: the last layer is left out, and what it would classify is the vector.

https://github.com/huggingface/pytorch-image-models
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError, EncoderError
from transforms.encoders.media.image import decoding_fact
from transforms.encoders.media.image_model import ImageModel
from transforms.encoders.media.media_encoder import MediaEncoder
from transforms.encoders.media.media_model import refuse_text_settings
from transforms.encoders.media.preparation import by_torchvision
from transforms.encoders.model_files import lowered, read_json, weights_digest
from transforms.encoders.model_source import ModelSource
from transforms.support.extras import need, version_of

if TYPE_CHECKING:
    pass

PACKAGES = ("torch", "torchvision", "timm", "PIL")
_SEEN = ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")
"""Of the settings of a folder's `pretrained_cfg`: what determines the pixels that the model gets."""


def describe(config: EncoderConfig, source: ModelSource) -> ImageModel:
    """Reads the settings of a folder that timm's `save_for_hf` wrote; see `transforms.encoders.families`.

    Raises:
        ConfigurationError: if the folder is incomplete, or the configuration asks for what an image model has not.
        EncoderError: if the weights are not the pinned ones.
    """
    refuse_text_settings(config)
    folder = source.folder()
    settings = read_json(folder / "config.json")
    architecture, seen = settings.get("architecture"), settings.get("pretrained_cfg") or settings
    if not architecture:
        raise ConfigurationError(
            f"encoder.model: {folder} has no config.json with the architecture of a timm model",
            "name a folder that timm.models.push_to_hf_hub or save_for_hf wrote, or a hub id of such a model",
        )
    own = int(settings.get("num_features") or seen.get("num_features") or 0)
    if not own:
        raise ConfigurationError(
            f"encoder.model: {folder / 'config.json'} does not say num_features", "save the model again with timm"
        )
    source.compare_dimensions(own)
    facts = {
        "family": "timm",
        "weights": source.unpacked_weights or weights_digest([folder], source.weights_sha256),
        "architecture": architecture,
        "model_args": settings.get("model_args") or {},
        "pooling": settings.get("global_pool") or "the architecture's own",
        "layer": "before the classifier",
        "image": {key: seen[key] for key in _SEEN if key in seen},
        "decoding": decoding_fact(config),
        "dimensions": lowered(config, "dimensions", own),
        "normalize": config.normalize,
    }
    return ImageModel(config, facts, partial(_load, config, folder, facts), PACKAGES)


def _load(config: EncoderConfig, folder: Path, facts: dict[str, Any]) -> MediaEncoder:
    model, compose = load(folder)
    from transforms.encoders.engines.torch.forward import forward

    images = by_torchvision(compose)
    ready = forward(model, config, images.before(_features), timm=version_of("timm") or "")
    return images.encoder(config, facts, ready)


def load(folder: Path) -> tuple[Any, Any]:
    """The model in a folder, in float32, and the transform that it was trained with.

    Raises:
        EncoderError: if the files are damaged.
    """
    need("image", "a timm model", *PACKAGES)
    from transforms.encoders.engines.torch.torchvision_operators import make_importable

    make_importable()
    import timm
    from timm.data import create_transform, resolve_model_data_config

    try:
        model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    except Exception as error:  # the library raises errors of many kinds for damaged files
        raise EncoderError(f"can't load the model in {folder}: {error}", "check the folder's files") from error
    return model, create_transform(**resolve_model_data_config(model), is_training=False)


def _features(model: Any, images: Any) -> Any:
    return model.forward_head(model.forward_features(images), pre_logits=True)
