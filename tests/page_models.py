"""Small models of pictures of pages with seeded random weights, as transformers saves them."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

SIDE = 28
DIMENSIONS = 8
_SIZES: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_WORDS = ["<pad>", "<bos>", "<eos>", "<unk>", "red", "green", "blue", "square", "circle", "image", "Describe", "the"]
_LETTERS = [*string.ascii_letters, *string.digits, *string.punctuation, "\n"]


def save_page_model(folder: Path, kind: str, seed: int = 0) -> Path:
    """A `colpali` (4 patches a picture), `colqwen2` (as many as the picture's sides give) or `colmodernvbert`."""
    import torch

    from transforms.encoders.engines.torch.torchvision_operators import make_importable

    make_importable()
    torch.manual_seed(seed)
    make = {"colpali": _colpali, "colqwen2": _colqwen2, "colmodernvbert": _colmodernvbert}[kind]
    model, processor = make()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _tokenizer(*special: str) -> Any:
    """A tokenizer of words and characters, which spaces end."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = {word: number for number, word in enumerate([*_WORDS, *_LETTERS])}
    tokenizer = Tokenizer(models.WordLevel(names, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(" +"), "removed"),
            pre_tokenizers.Split(Regex(rf"{'|'.join(_WORDS[4:])}|[^ ]"), "isolated"),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=list(special),
    )


def _images(**sizes: Any) -> dict[str, Any]:
    own = {key: value for key, value in _SIZES.items() if not key.endswith("token_id")}
    return {**own, "image_size": SIDE, "patch_size": 14, "model_type": "siglip_vision_model", **sizes}


def _colpali() -> tuple[Any, Any]:
    import transformers

    images = transformers.SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    images.image_seq_length = 4
    processor = transformers.ColPaliProcessor(images, _tokenizer())
    words = len(processor.tokenizer)
    texts = {**_SIZES, "model_type": "gemma", "vocab_size": words, "num_key_value_heads": 1, "head_dim": 12}
    whole = {
        "model_type": "paligemma",
        "vision_config": _images(projection_dim=24, vision_use_head=False),
        "text_config": texts,
        "image_token_id": processor.image_token_id,
        "projection_dim": 24,
        "hidden_size": 24,
    }
    config = transformers.ColPaliConfig(vlm_config=whole, embedding_dim=DIMENSIONS)
    return transformers.ColPaliForRetrieval(config), processor


def _colqwen2() -> tuple[Any, Any]:
    import transformers

    special = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|endoftext|>"]
    tokenizer = _tokenizer(*special)
    sizes = {"shortest_edge": SIDE * SIDE, "longest_edge": 8 * SIDE * SIDE}
    processor = transformers.ColQwen2Processor(transformers.Qwen2VLImageProcessorPil(size=sizes), tokenizer)
    ids = dict(zip(special, tokenizer.convert_tokens_to_ids(special), strict=True))
    rope = {"rope_type": "default", "mrope_section": [2, 2, 2], "rope_theta": 10000.0}
    texts = {**_SIZES, "vocab_size": len(tokenizer), "num_key_value_heads": 1, "rope_parameters": rope}
    whole = {
        "model_type": "qwen2_vl",
        "vision_config": {"depth": 2, "embed_dim": 16, "num_heads": 2, "hidden_size": 24, "initializer_range": 0.3},
        "text_config": texts,
        "image_token_id": ids["<|image_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }
    config = transformers.ColQwen2Config(vlm_config=whole, embedding_dim=DIMENSIONS, initializer_range=0.3)
    return transformers.ColQwen2ForRetrieval(config), processor


def _colmodernvbert() -> tuple[Any, Any]:
    import transformers

    special = ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", "<|begin_of_text|>"]
    special += [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    tokenizer = _tokenizer(*special)
    images = transformers.Idefics3ImageProcessorPil(
        size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE}
    )
    processor = transformers.ColModernVBertProcessor(images, tokenizer, image_seq_len=1)
    texts = {**_SIZES, "model_type": "modernbert", "vocab_size": len(tokenizer), "cls_token_id": 1, "sep_token_id": 2}
    whole = {
        "model_type": "modernvbert",
        "vision_config": _images(vision_use_head=False),
        "text_config": texts,
        "image_token_id": processor.image_token_id,
        "pixel_shuffle_factor": 2,
        "initializer_range": 0.3,
    }
    config = transformers.ColModernVBertConfig(vlm_config=whole, embedding_dim=DIMENSIONS, initializer_range=0.3)
    return transformers.ColModernVBertForRetrieval(config), processor
