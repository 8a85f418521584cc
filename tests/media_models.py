"""Small models of images, recordings and texts with seeded random weights, as transformers saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models import save_tokenizer

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
VOCABULARY = [
    *("red", "green", "blue", "square", "circle", "over", "cat", "dog", "barks", "sings", "bird", "rain", "text"),
    *("two", "words", ",", ".", *_LETTERS, *(f"##{letter}" for letter in _LETTERS)),
]
TOKENS = 16
SIDE = 64
_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": 0.3,
}


def save_backbone(folder: Path, kind: str, seed: int = 0) -> Path:
    """A model of images: `vit` and `resnet` with a classifier, as their hub has them, and `dinov2` without."""
    import torch
    import transformers

    torch.manual_seed(seed)
    sizes = {**_SIZES, "image_size": SIDE, "patch_size": 16}
    match kind:
        case "vit":
            model: Any = transformers.ViTForImageClassification(transformers.ViTConfig(**sizes))
        case "dinov2":
            del sizes["intermediate_size"]
            model = transformers.Dinov2Model(transformers.Dinov2Config(**sizes))
        case "resnet":
            widths = {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1], "embedding_size": 16}
            model = transformers.ResNetForImageClassification(transformers.ResNetConfig(**widths))
        case _:
            raise ValueError(kind)
    model.save_pretrained(folder)
    if kind == "vit":
        transformers.ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    elif kind == "resnet":
        transformers.ConvNextImageProcessorPil(size={"shortest_edge": SIDE}, crop_pct=0.875).save_pretrained(folder)
    else:
        crop = {"size": {"shortest_edge": 72}, "crop_size": {"height": SIDE, "width": SIDE}}
        transformers.BitImageProcessorPil(**crop).save_pretrained(folder)
    return folder


def save_image_text(folder: Path, kind: str, seed: int = 0, pieces: bool = False) -> Path:
    """A model of images and texts: `clip` or `siglip`, with a space of 24 and of 32 dimensions.

    Args:
        pieces: whether its tokenizer is of sentencepiece, as that of SigLIP 1.
    """
    import torch
    import transformers

    torch.manual_seed(seed)
    words = _save_pieces(folder) if pieces else save_tokenizer(folder, VOCABULARY)
    texts = {**_SIZES, "vocab_size": words, "max_position_embeddings": TOKENS, "pad_token_id": 0}
    texts |= {"bos_token_id": 2, "eos_token_id": 3}
    images = {**_SIZES, "image_size": SIDE, "patch_size": 16}
    side = {"height": SIDE, "width": SIDE}
    if kind == "clip":
        config = transformers.CLIPConfig(text_config=texts, vision_config=images, projection_dim=24)
        transformers.CLIPModel(config).save_pretrained(folder)
        size = {"size": {"shortest_edge": SIDE}, "crop_size": side}
        transformers.CLIPImageProcessorPil(**size).save_pretrained(folder)
    else:
        transformers.SiglipModel(transformers.SiglipConfig(text_config=texts, vision_config=images)).save_pretrained(
            folder
        )
        transformers.SiglipImageProcessorPil(size=side).save_pretrained(folder)
    return folder


def _save_pieces(folder: Path) -> int:
    import sentencepiece
    from transformers import SiglipTokenizer

    file = folder / "spiece"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a red square over a blue circle", "a cat and a dog", "two words"] * 10),
        model_prefix=str(file),
        vocab_size=60,
        hard_vocab_limit=False,
        **{"unk_id": 2, "bos_id": -1, "eos_id": 1, "pad_id": 0, "minloglevel": 2},
    )
    names = {"model_max_length": TOKENS, "model_input_names": ["input_ids"]}
    tokenizer = SiglipTokenizer(f"{file}.model", **names)
    tokenizer.save_pretrained(folder)
    return len(tokenizer)
