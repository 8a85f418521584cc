"""The architectures of the transformers library that embed media: how each is pooled, and where its dimensions are.

Plain data, by the `model_type` of config.json. Pooling is what the library's own classifier of the architecture reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple


class Pooling(StrEnum):
    """How hidden states become one vector."""

    FIRST = "first token"
    """The class token, after the last layer norm."""
    POOLER = "pooler"
    """The library's `pooler_output`."""
    MEAN = "mean of tokens"
    DECODER = "decoder before its last layer"
    """What the last layer of a Perceiver's decoder of classes reads."""


class Backbone(NamedTuple):
    """A model of images without its last layer.

    Attributes:
        pooling: of its hidden states.
        dimensions: key of config.json; of a list the last number counts.
        classes: of the library, of which config.json names one: where `AutoModel` leaves out what the pooling needs.
    """

    pooling: Pooling
    dimensions: str = "hidden_size"
    classes: tuple[str, ...] = ()


BACKBONES: Mapping[str, Backbone] = {
    "beit": Backbone(Pooling.POOLER),
    "clip_vision_model": Backbone(Pooling.POOLER),
    "convnext": Backbone(Pooling.POOLER, "hidden_sizes"),
    "convnextv2": Backbone(Pooling.POOLER, "hidden_sizes"),
    "deit": Backbone(Pooling.FIRST),
    "dinov2": Backbone(Pooling.FIRST),
    "dinov2_with_registers": Backbone(Pooling.FIRST),
    "dinov3_convnext": Backbone(Pooling.POOLER, "hidden_sizes"),
    "dinov3_vit": Backbone(Pooling.POOLER),
    "efficientnet": Backbone(Pooling.POOLER, "hidden_dim"),
    "ijepa": Backbone(Pooling.MEAN),
    "perceiver": Backbone(
        Pooling.DECODER,
        "d_latents",
        tuple(f"PerceiverForImageClassification{kind}" for kind in ("Learned", "Fourier", "ConvProcessing")),
    ),
    "regnet": Backbone(Pooling.POOLER, "hidden_sizes"),
    "resnet": Backbone(Pooling.POOLER, "hidden_sizes"),
    "siglip_vision_model": Backbone(Pooling.POOLER),
    "swin": Backbone(Pooling.POOLER),
    "swinv2": Backbone(Pooling.POOLER),
    "vit": Backbone(Pooling.FIRST),
    "vit_msn": Backbone(Pooling.FIRST),
}


class Padding(StrEnum):
    """How the texts of a batch get one length."""

    LONGEST = "to the longest text"
    """The model masks what is padded."""
    LIMIT = "to the length limit"
    """The model was trained so, and padding counts."""


class TwoTowers(NamedTuple):
    """A model of media and texts in one space.

    Attributes:
        padding: of its texts.
        tokens: its length limit, where config.json does not say it.
        dimensions: of its space, where config.json does not say it.
        in_patches: whether images keep their proportions, as patches; see `naflex`.
    """

    padding: Padding
    tokens: int
    dimensions: int
    in_patches: bool = False


IMAGE_TEXT: Mapping[str, TwoTowers] = {
    "clip": TwoTowers(Padding.LONGEST, 77, 512),
    "siglip": TwoTowers(Padding.LIMIT, 64, 768),
    "siglip2": TwoTowers(Padding.LIMIT, 64, 768, in_patches=True),
}
"""Of images and texts."""


SOUND_TEXT: Mapping[str, TwoTowers] = {"clap": TwoTowers(Padding.LONGEST, 512, 512)}
"""Of recordings and texts."""
WAVEFORMS = frozenset(["data2vec-audio", "hubert", "unispeech", "unispeech-sat", "wav2vec2", "wavlm"])
"""Of recordings, whose input is the samples themselves."""


PATCHES: Mapping[str, str] = {
    "colmodernvbert": "ColModernVBertProcessor",
    "colpali": "ColPaliProcessor",
    "colqwen2": "ColQwen2Processor",
}
"""Of late interaction with pictures: the library's class that makes their inputs."""
WITHOUT_PROJECTION: Mapping[str, str] = {
    "modernvbert": "colmodernvbert",
    "paligemma": "colpali",
    "qwen2_vl": "colqwen2",
}
"""What those are made from."""


class FilmBackbone(NamedTuple):
    """A model of films without its last layer.

    Attributes:
        pooling: of its hidden states.
        frames: of a segment, where config.json does not say it.
    """

    pooling: Pooling
    frames: int


FILM_BACKBONES: Mapping[str, FilmBackbone] = {
    "timesformer": FilmBackbone(Pooling.FIRST, 8),
    "videomae": FilmBackbone(Pooling.MEAN, 16),
    "vivit": FilmBackbone(Pooling.FIRST, 32),
}

FILM_TEXT: Mapping[str, TwoTowers] = {"xclip": TwoTowers(Padding.LONGEST, 77, 512)}
"""Of films and texts."""

ARCHITECTURES = frozenset([*BACKBONES, *IMAGE_TEXT, *SOUND_TEXT, *WAVEFORMS, *FILM_BACKBONES, *FILM_TEXT, *PATCHES])


def projected_dimensions(model_type: str, settings: Mapping[str, Any]) -> int:
    """The dimensions that both towers of a model project to.

    Args:
        model_type: of `IMAGE_TEXT`, `SOUND_TEXT` or `FILM_TEXT`.
        settings: its config.json; sections that are missing there have the library's own values.
    """
    known = {**IMAGE_TEXT, **SOUND_TEXT, **FILM_TEXT}[model_type].dimensions
    if model_type in ("siglip", "siglip2"):
        # Its images are not projected, and its texts are to their size.
        return int((settings.get("vision_config") or {}).get("hidden_size") or known)
    return int(settings.get("projection_dim") or known)
