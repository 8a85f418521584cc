"""Pictures that every machine with scikit-learn has: handwritten digits, and two photographs.

https://scikit-learn.org/stable/datasets.html
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from transforms.support.storage import filesystem

DIGITS = 120
_SIDE = 96


def write_pictures(folder: Path) -> int:
    """Writes them as PNG files into a folder, those that are not there yet; returns how many there are.

    Raises:
        ImportError: if scikit-learn or Pillow is not installed.
    """
    count = 0
    for name, data in _pictures():
        path = folder / name
        if not path.exists() or path.read_bytes() != data:
            filesystem.write_atomic(str(path), data)
        count += 1
    return count


def _pictures() -> Iterator[tuple[str, bytes]]:
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits, load_sample_images

    photographs = load_sample_images()
    for name, pixels in zip(photographs.filenames, photographs.images, strict=True):
        yield f"{Path(name).stem}.png", _png(Image.fromarray(pixels))
    digits = load_digits()
    for number in range(DIGITS):
        # Grey from 0 to 16, light on dark; as on paper here.
        grey = Image.fromarray((255 - np.minimum(digits.images[number] * 16, 255)).astype(np.uint8))
        name = f"digit-{digits.target[number]}-{number:04d}.png"
        yield name, _png(grey.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC))


def _png(image: object) -> bytes:
    from PIL.Image import Image

    assert isinstance(image, Image)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()
