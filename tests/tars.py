"""Tars of samples, as WebDataset's and img2dataset's writers make them, and with one fault each."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from drawings import drawing, encoded

Parts = Iterable[tuple[str, bytes]]


def tar_of(parts: Parts, format: int = tarfile.GNU_FORMAT, before: Iterable[tarfile.TarInfo] = ()) -> bytes:
    """A tar with members of these names, after some that have no bytes."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format) as tar:
        for info in before:
            tar.addfile(info)
        for name, data in parts:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def sample(number: int, suffix: str = "jpg", **fields: Any) -> list[tuple[str, bytes]]:
    """The members of a sample: a drawing, its caption, and a JSON object with the fields."""
    key = f"{number:06d}"
    formats = {"jpg": "JPEG", "png": "PNG"}
    known = {"caption": f"drawing {number}", "key": key, "width": 96} | fields
    return [
        (f"{key}.{suffix}", encoded(drawing(number), formats[suffix])),
        (f"{key}.txt", f"drawing {number}".encode()),
        (f"{key}.json", json.dumps(known).encode()),
    ]


def write_tar(path: Path, numbers: Iterable[int], suffix: str = "jpg", **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_of((part for number in numbers for part in sample(number, suffix)), **options))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """A member that is a link or a device."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info
