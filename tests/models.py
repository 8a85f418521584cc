"""Small models with seeded random weights, saved as the library saves them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

TEXTS = [
    "one",
    "Two short words",
    "A sentence about ships, harbours and the open sea.",
    "Übergröße 東京 🚢 naïve café",
    "word " * 500,
    "  white space around  ",
]
KINDS = ("bert", "roberta", "distilbert", "modernbert")
MORE_KINDS = ("mpnet", "xlm-roberta", "qwen3", "gemma3_text")
LIMIT = 48


def save_model(
    folder: Path,
    kind: str = "bert",
    prompts: dict[str, str] | None = None,
    pooling: str = "mean",
    others: Sequence[Any] = ("Dense", "Normalize"),
    limit: int = LIMIT,
    vocabulary: Sequence[str] = (),
    **sizes: Any,
) -> Path:
    """A transformer of a kind with pooling and other modules; returns the folder to load.

    Args:
        others: names of modules, or modules.
        limit: most tokens of a text.
        vocabulary: of the tokenizer, continuations with ##; it is trained on TEXTS without, and differs by the process.
        sizes: of its configuration, instead of small ones.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    torch.manual_seed(0)
    place = folder / kind
    model = _transformer(kind, save_tokenizer(place, vocabulary), sizes)
    model.save_pretrained(place)
    hidden = sizes.get("hidden_size", 32)
    made = {"Dense": lambda: Dense(hidden, 24), "Normalize": Normalize}
    modules = [
        Transformer(str(place), max_seq_length=limit),
        Pooling(hidden, pooling),
        *(made[other]() if isinstance(other, str) else other for other in others),
    ]
    whole = SentenceTransformer(modules=modules, prompts=prompts or {}, device="cpu")
    whole.save_pretrained(str(folder / "whole"))
    return folder / "whole"


def save_tokenizer(place: Path, vocabulary: Sequence[str]) -> int:
    """A WordPiece tokenizer with BERT's marks; returns how many tokens it has."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    ids = {token: number for number, token in enumerate([*special, *vocabulary])}
    tokenizer = Tokenizer(models.WordPiece(ids if vocabulary else None, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if not vocabulary:
        tokenizer.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {name: f"[{name.split('_')[0].upper()}]" for name in ("unk_token", "pad_token", "cls_token", "sep_token")}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token="[MASK]", model_max_length=LIMIT, **names)
    fast.save_pretrained(place)
    return int(tokenizer.get_vocab_size())


def _transformer(kind: str, words: int, sizes: dict[str, Any]) -> Any:
    import transformers

    size: dict[str, Any] = {
        "vocab_size": words,
        "pad_token_id": 0,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
    }
    common = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    match kind:
        case "bert":
            return transformers.BertModel(transformers.BertConfig(**(size | common | sizes)))
        case "roberta":
            return transformers.RobertaModel(transformers.RobertaConfig(**(size | common | sizes)))
        case "distilbert":
            config = transformers.DistilBertConfig(**size, dim=32, n_layers=2, n_heads=4, hidden_dim=64)
            return transformers.DistilBertModel(config)
        case "modernbert":
            marks = {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
            config = transformers.ModernBertConfig(
                **size, **common, **marks, local_attention=8, deterministic_flash_attn=False
            )
            return transformers.ModernBertModel(config)
        case "mpnet":
            return transformers.MPNetModel(transformers.MPNetConfig(**(size | common | sizes)))
        case "xlm-roberta":
            return transformers.XLMRobertaModel(transformers.XLMRobertaConfig(**(size | common | sizes)))
        case "qwen3":
            heads = {"num_key_value_heads": 2, "head_dim": 8}
            return transformers.Qwen3Model(transformers.Qwen3Config(**size, **common, **heads))
        case "gemma3_text":
            heads = {"num_key_value_heads": 1, "head_dim": 8, "sliding_window": 16, "use_bidirectional_attention": True}
            return transformers.Gemma3TextModel(transformers.Gemma3TextConfig(**size, **common, **heads))
    raise ValueError(kind)
