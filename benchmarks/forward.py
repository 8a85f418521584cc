"""Tokens and images per second of two models' forward pass alone, on the accelerator of this machine.

    python benchmarks/forward.py [--seconds 5]

The shapes are those of all-MiniLM-L6-v2 and of the image tower of ViT-B-32, with random weights in bfloat16: speed does
not depend on the values. Inputs are in the device's memory already. So these rates are what a worker can't
exceed, without reading, tokenizing, decoding, padding and copying. It needs torch and transformers alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import BertConfig, BertModel, CLIPVisionConfig, CLIPVisionModelWithProjection

MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
BATCHES = {"text": (256, 1024, 4096), "images": (256, 1024)}
LENGTHS = (96, 256)


def rate(step: Callable[[], Any], each: int, seconds: float, device: str) -> float:
    """Units per second of a step that does so many of them."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    for _ in range(3):
        step()
    wait()
    begun, steps = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        step()
        steps += 1
        wait()
    return steps * each / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5)
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(torch.cuda.get_device_name() if device == "cuda" else "CPU", f"torch {torch.__version__}")
    text = BertModel(BertConfig(vocab_size=30522, **MINILM)).to(device, torch.bfloat16).eval()
    images = CLIPVisionModelWithProjection(
        CLIPVisionConfig(hidden_size=768, intermediate_size=3072, projection_dim=512, patch_size=32)
    )
    images = images.to(device, torch.bfloat16).eval()
    with torch.inference_mode():
        for length in LENGTHS:
            for batch in BATCHES["text"] if device == "cuda" else (32,):
                tokens = torch.randint(0, 30522, (batch, length), device=device)
                mask = torch.ones_like(tokens)

                def encode(tokens: Any = tokens, mask: Any = mask) -> Any:
                    return text(tokens, attention_mask=mask).last_hidden_state.mean(1)

                found = rate(encode, batch * length, given.seconds, device)
                print(f"text, {batch} x {length} tokens: {found:,.0f} tokens/s")
        for batch in BATCHES["images"] if device == "cuda" else (16,):
            pixels = torch.rand(batch, 3, 224, 224, device=device, dtype=torch.bfloat16)

            def see(pixels: Any = pixels) -> Any:
                return images(pixels).image_embeds

            print(f"ViT-B-32, {batch} images: {rate(see, batch, given.seconds, device):,.0f} images/s", flush=True)


if __name__ == "__main__":
    main()
