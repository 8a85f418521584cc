"""Images that tests draw, image files with one fault each, and a small timm model with seeded random weights."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

ARCHITECTURE = "test_efficientnet"


def drawing(number: int, size: tuple[int, int] = (96, 80)) -> Image.Image:
    """An image that no other number gives."""
    random = np.random.default_rng(number)
    image = Image.new("RGB", size, tuple(random.integers(0, 256, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        corner = random.integers(0, 60, 2)
        box = [*corner.tolist(), *(corner + random.integers(8, 40, 2)).tolist()]
        shape = draw.ellipse if random.random() < 0.5 else draw.rectangle
        shape(box, fill=tuple(random.integers(0, 256, 3).tolist()))
    return image


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def write_drawings(folder: Path, count: int, first: int = 0) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"drawing-{number:03d}.png" for number in range(first, first + count)]
    for number, path in enumerate(paths, first):
        path.write_bytes(encoded(drawing(number)))
    return paths


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header promises so many pixels, and that holds none."""

    def block(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + block(b"IHDR", header) + block(b"IDAT", zlib.compress(b"\0" * 64)) + block(b"IEND", b"")
    )


def damaged() -> dict[str, tuple[bytes, str]]:
    """Files that are not an image, or a damaged one, and the error that each is rejected with."""
    whole = encoded(drawing(900), "JPEG")
    return {
        "cut.jpg": (whole[: len(whole) // 2], "DamagedImage"),
        "bomb.png": (png_of(50_000, 50_000), "TooManyPixels"),
        "page.jpg": (b"<html><body>Not found</body></html>", "NotAnImage"),
        "vector.png": (
            b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1/a"/></svg>',
            "NotAnImage",
        ),
        "empty.gif": (b"", "EmptyFile"),
    }


def save_timm_model(folder: Path, architecture: str = ARCHITECTURE, seed: int = 0) -> Path:
    """A folder as timm's `save_for_hf` writes it."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    model = timm.create_model(architecture, pretrained=False, num_classes=10).eval()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    seen = {
        "input_size": [3, 64, 64],
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "num_classes": 10,
        "classifier": "classifier",
        "first_conv": "conv_stem",
    }
    settings = {
        "architecture": architecture,
        "num_classes": 10,
        "num_features": model.head_hidden_size,
        "pretrained_cfg": seen,
    }
    (folder / "config.json").write_text(json.dumps(settings))
    return folder
