"""Memory of a backfill of images by their number.

    python benchmarks/image_memory.py ../shared/data/images [--images 1000 20000] [--side 64] [--uri URI] [--json FILE]

The photographs of the folder are linked under new names until there are so many; with `--side`, copies of them whose
longer side has so many pixels, for a model of that size. The model is a small one of timm with
seeded random weights, so that most of the work is reading and decoding. Each number runs in a process of its own;
`peak MB` is the report's peak_rss_mb. The collection is in Milvus Lite, which holds it in the same process, or in the
server of `--uri`.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import common
import yaml
from PIL import Image

ARCHITECTURE = "test_efficientnet"


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 20_000])
    parser.add_argument("--side", type=int, help="scale the photographs down to so many pixels")
    parser.add_argument("--uri", default="./milvus.db", help="of a Milvus server")
    given = parser.parse_args()
    photographs = sorted(path for path in given.corpus.iterdir() if path.suffix.lower() in (".jpeg", ".jpg", ".png"))
    figures: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        model = save_model(Path(name) / "model", given.side or 224)
        if given.side:
            photographs = [scaled(path, Path(name) / "small", given.side) for path in photographs]
        for number in given.images:
            seconds, report = run(Path(name) / str(number), model, photographs, number, given.uri)
            figures.append(
                {
                    "images": report["verify"]["found"],
                    "peak MB": report["peak_rss_mb"],
                    "to the first": report["peak_rss_mb"]
                    / (figures[0]["peak MB"] if figures else report["peak_rss_mb"]),
                    "seconds": seconds,
                }
            )
    common.show(figures, given.json)


def run(work: Path, model: Path, photographs: list[Path], number: int, uri: str) -> tuple[float, dict[str, Any]]:
    """A backfill of so many images; its seconds and its report."""
    folder = work / "images"
    folder.mkdir(parents=True)
    for at, path in zip(range(number), itertools.cycle(photographs), strict=False):
        link = folder / f"{at:06d}{path.suffix}"
        link.symlink_to(path.resolve())
    settings = {
        "name": f"images_{number}",
        "corpus": {"paths": ["images/*"], "format": "image"},
        "encoder": {"model": str(model), "family": "timm"},
        "checkpoint": "checkpoint",
        "collection": {"uri": uri, "index": {"type": "FLAT"}},
    }
    (work / "vecbeam.yaml").write_text(yaml.safe_dump(settings))
    return common.vecbeam("backfill", work / "vecbeam.yaml")


def scaled(photograph: Path, folder: Path, side: int) -> Path:
    """A small copy of a photograph in a folder."""
    folder.mkdir(exist_ok=True)
    image = Image.open(photograph).convert("RGB")
    image.thumbnail((side, side))
    path = folder / f"{photograph.stem}.jpg"
    image.save(path, "JPEG", quality=90)
    return path


def save_model(folder: Path, side: int) -> Path:
    """A folder as timm's `save_for_hf` writes it."""
    from transforms.encoders.engines.torch.torchvision_operators import make_importable

    make_importable()
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = timm.create_model(ARCHITECTURE, pretrained=False, num_classes=10)
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    seen = {
        "input_size": [3, side, side],
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    }
    settings = {"architecture": ARCHITECTURE, "num_classes": 10, "num_features": model.head_hidden_size}
    (folder / "config.json").write_text(json.dumps({**settings, "pretrained_cfg": seen}))
    return folder


if __name__ == "__main__":
    main()
