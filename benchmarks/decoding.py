"""Images per second of one core from the bytes of a file to the input of efficientnet-lite0, and what scaling changes.

    python benchmarks/decoding.py ../shared/data/images [--large 8] [--rounds 3] [--json FILE]

The baseline is Pillow's plain open, resize to a shorter side of 256 and crop of the middle 224 x 224. `exact` and
`scaled` are vecbeam's preparation with `encoder.decoding`. The images are the folder's own and, made of them, ones
of 12 megapixels: enlarged ones, and mosaics of 64. Rates are of processor time, the best of some rounds, in which the
three take turns; `on all cores` is `scaled` in a thread for each core, as encoders decode, against the baseline in one
thread, by wall time. Cosines are of the vectors of efficientnet-lite0: to the library's own transform, and of scaled to
exact decoding.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import common
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from schemas.config import EncoderConfig
from transforms.encoders import resolve
from transforms.encoders.base import media_inputs
from transforms.encoders.media.image import decode
from transforms.encoders.media.media_encoder import MediaEncoder
from transforms.encoders.model_source import ModelSource
from transforms.encoders.timm import load

MODEL = "efficientnet-lite0"
SHORT, CROP = 256, 224
LARGE = (4000, 3000)


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--large", type=int, default=8, help="photographs of 12 megapixels, of each kind")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    files = [path.read_bytes() for path in sorted(given.corpus.glob("*.JPEG"))]
    exact, scaled = (encoder(decoding) for decoding in ("exact", "scaled"))
    rows = []
    for name, images in (
        ("samples", files),
        ("12 megapixels, enlarged", [enlarged(file) for file in files[: given.large]]),
        ("12 megapixels, mosaics", [mosaic(files, 20 * number) for number in range(given.large)]),
    ):
        baseline, exactly, by_scale = rates((plain, preparing(exact), preparing(scaled)), images, given.rounds)
        together = by_wall_time(preparing(scaled), images, given.rounds, os.cpu_count() or 1)
        alone = by_wall_time(plain, images, given.rounds, 1)
        vectors = [one.encode(media_inputs(images)).matrix for one in (exact, scaled)]
        rows.append(
            {
                "images": name,
                "plain": round(baseline, 1),
                "exact": round(exactly, 1),
                "scaled": round(by_scale, 1),
                "exact, times": round(exactly / baseline, 2),
                "scaled, times": round(by_scale / baseline, 2),
                "scaled on all cores, times": round(together / alone, 2),
                "cosine to library": least(vectors[0], by_library(images)),
                "scaled to exact": least(*vectors),
            }
        )
    common.show(rows, given.json)


def encoder(decoding: str) -> MediaEncoder:
    loaded: Any = resolve(EncoderConfig.model_validate({"model": MODEL, "decoding": decoding})).load()
    return loaded.images  # type: ignore[no-any-return]


def plain(data: bytes) -> Any:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = SHORT / min(image.size)
    width, height = (max(SHORT, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - CROP) // 2, (height - CROP) // 2
    return np.asarray(image.crop((left, top, left + CROP, top + CROP)))


def preparing(images: MediaEncoder) -> Callable[[bytes], Any]:
    """What vecbeam does to the bytes of a file."""
    return lambda data: images.prepare(decode(data, images.scaled_side)).array


def rates(calls: Sequence[Callable[[bytes], Any]], images: Sequence[bytes], rounds: int) -> list[float]:
    """Images per second of processor time of each call, in its best round.

    The calls take turns, so that other work on the machine slows all of them.
    """
    best = [float("inf")] * len(calls)
    for _ in range(rounds):
        for number, call in enumerate(calls):
            start = time.process_time()
            for data in images:
                call(data)
            best[number] = min(best[number], time.process_time() - start)
    return [len(images) / seconds for seconds in best]


def by_wall_time(call: Callable[[bytes], Any], images: Sequence[bytes], rounds: int, threads: int) -> float:
    """Images per second of some threads, in the best round."""
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds):
            start = time.perf_counter()
            for _ in pool.map(call, images):
                pass
            best = min(best, time.perf_counter() - start)
    return len(images) / best


def by_library(images: Sequence[bytes]) -> NDArray[np.float32]:
    """Vectors by timm itself."""
    import torch

    source = ModelSource(EncoderConfig(model=MODEL))
    model, transform = load(Path(source.folder()))
    made = []
    with torch.inference_mode():
        for start in range(0, len(images), 16):
            batch = [transform(Image.open(io.BytesIO(data)).convert("RGB")) for data in images[start : start + 16]]
            made.append(model.forward_head(model.forward_features(torch.stack(batch)), pre_logits=True).numpy())
    found: NDArray[np.float32] = np.concatenate(made)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


def least(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return round(float((one * other).sum(axis=1).min()), 6)


def enlarged(data: bytes) -> bytes:
    return as_jpeg(Image.open(io.BytesIO(data)).convert("RGB").resize(LARGE, Image.Resampling.LANCZOS))


def mosaic(files: Sequence[bytes], first: int) -> bytes:
    """64 of the images in eight rows."""
    whole = Image.new("RGB", LARGE)
    width, height = LARGE[0] // 8, LARGE[1] // 8
    for place in range(64):
        image = Image.open(io.BytesIO(files[(first + place) % len(files)])).convert("RGB").resize((width, height))
        whole.paste(image, (place % 8 * width, place // 8 * height))
    return as_jpeg(whole)


def as_jpeg(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=90)
    return stream.getvalue()


if __name__ == "__main__":
    main()
