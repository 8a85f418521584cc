"""What is measured on a GPU: models of known shapes with random weights, texts of known lengths, and times there."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from schemas.config import EncoderConfig
from transforms.encoders import resolve
from transforms.encoders.engines.torch.torchvision_operators import make_importable

SHAPES = {
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "bert-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
}
TOKENS = 2_000_000


def provide_flash_attention(place: Path) -> None:
    """flash-attn's functions by the kernels that torch has of it, where the package is not installed."""
    try:
        import flash_attn  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        (place / "flash_attn").mkdir()
        (place / "flash_attn" / "__init__.py").write_text(
            "from torch.nn.attention.varlen import varlen_attn\n"
            "__version__ = '2.8.3'\n"
            "def flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k,\n"
            "                           dropout_p=0.0, softmax_scale=None, causal=False):\n"
            "    window = (-1, 0) if causal else (-1, -1)\n"
            "    return varlen_attn(q, k, v, cu_seqlens_q, cu_seqlens_k, int(max_seqlen_q), int(max_seqlen_k),\n"
            "                       scale=softmax_scale, window_size=window)\n"
            "def flash_attn_func(*_, **__):\n    raise NotImplementedError('with padding')\n"
            "flash_attn_with_kvcache = None\n"
        )
        (place / "flash_attn" / "bert_padding.py").write_text("pad_input = unpad_input = None\n")
        facts = place / "flash_attn-2.8.3.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: flash-attn\nVersion: 2.8.3\n")
        (facts / "top_level.txt").write_text("flash_attn\n")
        (facts / "RECORD").write_text("flash_attn/__init__.py,,\n")
        sys.path.insert(0, str(place))
        print("flash-attn: functions of torch.nn.attention.varlen")


def tokenizer(folder: Path | None) -> Path:
    """The folder with a tokenizer: the given one, or the packaged model's."""
    return folder or Path(resolve(EncoderConfig()).files.folder)  # type: ignore[attr-defined]


def save_bert(folder: Path, name: str, tokens: Path) -> Path:
    """Saves a model of a shape, with seeded random weights and the tokenizer of another folder; returns its folder."""
    make_importable()
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    words = AutoTokenizer.from_pretrained(str(tokens))
    words.model_max_length = 512
    inner = folder.with_name(f"{name}-transformer")
    BertModel(BertConfig(vocab_size=len(words), **SHAPES[name]), add_pooling_layer=False).save_pretrained(inner)
    words.save_pretrained(inner)
    transformer = Transformer(str(inner), max_seq_length=512)
    pooling = Pooling(transformer.get_embedding_dimension())
    SentenceTransformer(modules=[transformer, pooling, Normalize()], device="cpu").save(str(folder))
    return folder


def lengths(texts: list[str], tokens_of: Path) -> dict[str, list[str]]:
    """Texts of about `TOKENS` tokens: of 128, of 512, and as they come."""
    reader = Tokenizer.from_file(str(tokens_of / "tokenizer.json"))
    reader.no_padding()
    words = sorted({word for text in texts[:500] for word in text.lower().split() if word.isalpha()})
    words = [word for word in words if len(reader.encode(word, add_special_tokens=False)) == 1]
    numbers = random.Random(0)

    def of(tokens: int) -> list[str]:
        return [" ".join(numbers.choices(words, k=tokens - 2)) for _ in range(TOKENS // tokens)]

    return {"128": of(128), "512": of(512), "mixed": texts * max(1, TOKENS // (90 * len(texts)))}


def seconds_of(call: Callable[[], Any]) -> float:
    """The seconds of a call, with what it started on the GPU."""
    import torch

    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - start
