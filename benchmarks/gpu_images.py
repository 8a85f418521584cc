"""Images on a GPU, next to open_clip with a process per core; `gpu.py` runs it."""

from __future__ import annotations

import csv
import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_models import seconds_of

from schemas.config import EncoderConfig
from transforms.encoders import resolve
from transforms.encoders.base import media_inputs
from transforms.encoders.engines.torch.torchvision_operators import make_importable


def images(place: Path, folder: Path, given: Any) -> list[dict[str, Any]]:
    """A row of figures for the photographs in a folder with labels.tsv."""
    make_importable()
    import open_clip
    import torch
    from safetensors.torch import save_file

    with (folder / "labels.tsv").open(encoding="utf-8") as stream:
        files = [str(folder / row["file"]) for row in csv.DictReader(stream, delimiter="\t")] * 40
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32").eval()
    clip = place / "clip"
    clip.mkdir()
    settings = {"model_cfg": open_clip.get_model_config("ViT-B-32"), "preprocess_cfg": {}}
    (clip / "open_clip_config.json").write_text(json.dumps(settings))
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()}, clip / "open_clip_model.safetensors"
    )
    encoder = resolve(EncoderConfig(model=str(clip), family="open_clip", precision="bfloat16")).load()
    inputs = media_inputs(files)
    encoder.encode(inputs.slice(0, 512))
    ours = statistics.median(seconds_of(lambda: encoder.encode(inputs)) for _ in range(given.rounds))
    decoding = statistics.median(seconds_of(lambda: decode_all(encoder, inputs)) for _ in range(given.rounds))
    model = model.to("cuda", torch.bfloat16)
    pixels = torch.randn(256, 3, 224, 224, device="cuda", dtype=torch.bfloat16)
    with torch.inference_mode():
        model.encode_image(pixels)
        alone = seconds_of(lambda: [model.encode_image(pixels) for _ in range(20)]) / 20 / 256
    peer = peer_images(model, files, given.rounds)
    row = {
        "model": "ViT-B-32",
        "images": len(files),
        "images/s": round(len(files) / ours),
        "decoding alone images/s": round(len(files) / decoding),
        "GPU alone images/s": round(1 / alone),
        "open_clip images/s": round(len(files) / peer),
        "times the peer": round(peer / ours, 2),
    }
    print(json.dumps(row), flush=True)
    return [row]


def decode_all(encoder: Any, inputs: Any) -> None:
    for _ in encoder.images._prepared_rows(inputs):
        pass


def peer_images(model: Any, files: Sequence[str], rounds: int) -> float:
    import torch
    from open_clip.transform import image_transform
    from PIL import Image

    transform = image_transform(224, is_train=False)

    class Files(torch.utils.data.Dataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, place: int) -> Any:
            return transform(Image.open(files[place]))

    loader = torch.utils.data.DataLoader(Files(), 256, num_workers=os.cpu_count() or 1, pin_memory=True)

    def run() -> None:
        with torch.inference_mode():
            [model.encode_image(some.to("cuda", torch.bfloat16, non_blocking=True)).float().cpu() for some in loader]

    return statistics.median(seconds_of(run) for _ in range(rounds))
