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
    """A model of images: `vit`, `resnet` and `perceiver...` with a classifier, as their hub has them; DINO 2 and 3."""
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
        case "dinov3_vit":
            model = transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**sizes, num_register_tokens=2))
        case "dinov3_convnext":
            stages = {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1], "initializer_range": 0.3}
            model = transformers.DINOv3ConvNextModel(transformers.DINOv3ConvNextConfig(**stages))
        case "resnet":
            widths = {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1], "embedding_size": 16}
            model = transformers.ResNetForImageClassification(transformers.ResNetConfig(**widths))
        case "perceiver-Learned" | "perceiver-Fourier" | "perceiver-ConvProcessing":
            latents = {
                "num_latents": 8,
                "d_latents": 32,
                "num_self_attends_per_block": 2,
                "num_self_attention_heads": 2,
            }
            own = {"num_cross_attention_heads": 1, "image_size": SIDE // 2, "initializer_range": 0.2, "num_labels": 5}
            make = getattr(transformers, f"PerceiverForImageClassification{kind.removeprefix('perceiver-')}")
            model = make(transformers.PerceiverConfig(**latents, **own))
        case _:
            raise ValueError(kind)
    model.save_pretrained(folder)
    if kind.startswith("perceiver"):
        side = SIDE // 2
        sizes = {"size": {"height": side, "width": side}, "crop_size": {"height": 36, "width": 36}}
        transformers.PerceiverImageProcessorPil(**sizes).save_pretrained(folder)
    elif kind.startswith("dinov3"):
        transformers.DINOv3ViTImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    elif kind == "vit":
        transformers.ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    elif kind == "resnet":
        transformers.ConvNextImageProcessorPil(size={"shortest_edge": SIDE}, crop_pct=0.875).save_pretrained(folder)
    else:
        crop = {"size": {"shortest_edge": 72}, "crop_size": {"height": SIDE, "width": SIDE}}
        transformers.BitImageProcessorPil(**crop).save_pretrained(folder)
    return folder


def save_image_text(folder: Path, kind: str, seed: int = 0, pieces: bool = False) -> Path:
    """A model of images and texts: `clip` with a space of 24 dimensions, `siglip` and `siglip2` with one of 32.

    Args:
        pieces: whether its tokenizer is of sentencepiece, as that of SigLIP 1.
    """
    import torch
    import transformers

    torch.manual_seed(seed)
    if kind == "siglip2":
        words = _save_lower_case(folder)
    else:
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
    elif kind == "siglip2":
        images |= {"num_patches": 16}
        del images["image_size"]
        transformers.Siglip2Model(transformers.Siglip2Config(text_config=texts, vision_config=images)).save_pretrained(
            folder
        )
        transformers.Siglip2ImageProcessorPil(patch_size=16, max_num_patches=24).save_pretrained(folder)
    else:
        transformers.SiglipModel(transformers.SiglipConfig(text_config=texts, vision_config=images)).save_pretrained(
            folder
        )
        transformers.SiglipImageProcessorPil(size=side).save_pretrained(folder)
    return folder


def _save_lower_case(folder: Path) -> int:
    """The tokenizer of SigLIP 2, which merges the letters of each word."""
    from transformers import Siglip2Tokenizer

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    words = [word for word in VOCABULARY if word.isalpha() and len(word) > 1]
    merges = [(word[:end], word[end]) for word in words for end in range(1, len(word))]
    tokens = dict.fromkeys([*special, "▁", ",", ".", "!", *_LETTERS, *(first + last for first, last in merges)])
    vocabulary = {token: number for number, token in enumerate(tokens)}
    names = {"model_max_length": TOKENS, "model_input_names": ["input_ids"], "padding_side": "right"}
    Siglip2Tokenizer(vocabulary, list(dict.fromkeys(merges)), **names).save_pretrained(folder)
    return len(vocabulary)


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


def save_waveform(folder: Path, kind: str = "wav2vec2", norm: str = "group", seed: int = 0) -> Path:
    """A model of samples: `wav2vec2` with a head that transcribes, or another without."""
    import torch
    import transformers

    torch.manual_seed(seed)
    convolutions = {"conv_dim": [16] * 3, "conv_kernel": [10, 8, 4], "conv_stride": [8, 8, 5]}
    positions = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
    sizes = {**_SIZES, **convolutions, **positions, "feat_extract_norm": norm, "vocab_size": 12}
    config = transformers.AutoConfig.for_model(kind, **sizes)
    make = transformers.AutoModelForCTC if kind == "wav2vec2" else transformers.AutoModel
    make.from_config(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=norm == "layer").save_pretrained(folder)
    return folder


def save_sound_text(folder: Path, seed: int = 0, *, fuses: bool = False) -> Path:
    """A CLAP of windows of 2 s at 16 kHz, with a space of 24 dimensions.

    Args:
        fuses: whether it fuses pieces of longer recordings.
    """
    import torch
    import transformers

    torch.manual_seed(seed)
    words = save_tokenizer(folder, VOCABULARY)
    texts = {**_SIZES, "vocab_size": words, "max_position_embeddings": TOKENS + 1, "pad_token_id": 0}
    sounds = {
        **{"hidden_size": 64, "patch_embeds_hidden_size": 8, "depths": [1, 1, 1, 1], "spec_size": 128},
        **{"num_attention_heads": [2, 2, 2, 2], "num_mel_bins": 32, "window_size": 4, "enable_fusion": fuses},
    }
    config = transformers.ClapConfig(text_config=texts, audio_config=sounds, projection_dim=24)
    transformers.ClapModel(config).save_pretrained(folder)
    transformers.ClapFeatureExtractor(
        **{"feature_size": 32, "sampling_rate": 16_000, "hop_length": 160, "max_length_s": 2, "frequency_max": 8000},
        truncation="fusion" if fuses else "rand_trunc",
    ).save_pretrained(folder)
    return folder


def save_film_model(folder: Path, kind: str, seed: int = 0) -> Path:
    """A model of four frames: `videomae` with a classifier, `timesformer`, `vivit`, or `xclip` with 24 dimensions."""
    import torch
    import transformers

    torch.manual_seed(seed)
    sizes = {**_SIZES, "image_size": SIDE, "patch_size": 16, "num_frames": 4}
    match kind:
        case "videomae":
            config = transformers.VideoMAEConfig(**sizes, num_labels=3)
            model: Any = transformers.VideoMAEForVideoClassification(config)
        case "timesformer":
            model = transformers.TimesformerModel(transformers.TimesformerConfig(**sizes))
        case "vivit":
            del sizes["patch_size"]
            model = transformers.VivitModel(transformers.VivitConfig(**sizes, tubelet_size=[2, 16, 16]))
        case "xclip":
            words = save_tokenizer(folder, VOCABULARY)
            texts = {**_SIZES, "vocab_size": words, "max_position_embeddings": TOKENS, "pad_token_id": 0}
            texts |= {"bos_token_id": 2, "eos_token_id": 3}
            together = {"mit_hidden_size": 24, "mit_intermediate_size": 48, "mit_num_hidden_layers": 1}
            films = {**sizes, **together, "mit_num_attention_heads": 2}
            both = transformers.XCLIPConfig(text_config=texts, vision_config=films, projection_dim=24)
            model = transformers.XCLIPModel(both)
        case _:
            raise ValueError(kind)
    model.save_pretrained(folder)
    size = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    if kind == "vivit":
        transformers.VivitImageProcessor(**size).save_pretrained(folder)
    else:
        from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

        VideoMAEImageProcessorPil(**size).save_pretrained(folder)
    return folder
