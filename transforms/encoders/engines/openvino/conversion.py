"""Models converted for OpenVINO, kept on disk by fingerprint: converted once a machine, shared by its workers.

A conversion is a folder `<cache>/<fingerprint>` with model.xml, model.bin and manifest.json, which names the files with
their SHA-256. It is made beside and renamed into place, so that it is whole or not there; a damaged one is made again.
The cache is the folder `VECBEAM_CACHE` names, or `vecbeam` in the user's cache folder; it may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from schemas.errors import EncoderError
from schemas.identity import digest
from transforms.encoders.engines.openvino.libraries import import_openvino
from transforms.encoders.engines.tokens import TokenTable
from transforms.encoders.engines.torch.modules import load_modules

if TYPE_CHECKING:
    from transforms.encoders.sentence_transformers import SentenceTransformersModel

log = logging.getLogger("vecbeam")
FORMAT = 1
PROBE_TOKENS = 512
LEAST_COSINE = 0.9999
_MANIFEST = "manifest.json"
_SETTINGS = ("modules.json", "config.json", "sentence_bert_config.json")


def cache_folder() -> Path:
    """Where conversions are kept."""
    named = os.environ.get("VECBEAM_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vecbeam"


def fingerprint(model: SentenceTransformersModel, *more: str) -> str:
    """Of all that a conversion follows from: the model's files and the versions of what converts them."""
    settings = [
        path.read_text(encoding="utf-8")
        for path in sorted(Path(model.folder).rglob("*.json"))
        if path.name in _SETTINGS
    ]
    graph = [model.space.weights, settings]
    return digest([FORMAT, graph, [version(name) for name in ("openvino", "torch", "transformers")], *more], 32)


def converted(name: str, make: Callable[[], Any]) -> Path:
    """The model.xml of a conversion, made where it is not there or damaged.

    Args:
        name: its fingerprint.
        make: converts; returns an openvino.Model.

    Raises:
        EncoderError: where the cache can't be written.
    """
    folder = cache_folder() / name
    if folder.exists():
        if _is_whole(folder):
            return folder / "model.xml"
        log.warning("the converted model in %s is damaged; converting it again", folder)
        _remove(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
    except OSError as error:
        raise EncoderError(
            f"can't write converted models to {folder.parent}: {error.strerror}",
            "name a folder that can be written with VECBEAM_CACHE, or take encoder.engine: torch",
        ) from error
    try:
        _save(make(), beside)
        # Another worker may have been faster; its folder is as good.
        with contextlib.suppress(OSError):
            beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder / "model.xml"


def _remove(folder: Path) -> None:
    # Out of the way in one step, so that no other worker meets half of it.
    away = Path(tempfile.mkdtemp(prefix=".damaged-", dir=folder.parent))
    with contextlib.suppress(FileNotFoundError):
        folder.rename(away / folder.name)
    shutil.rmtree(away, ignore_errors=True)


def _save(model: Any, folder: Path) -> None:
    openvino = import_openvino()

    try:
        openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)
        files = {file.name: _sha256(file) for file in sorted(folder.iterdir())}
        (folder / _MANIFEST).write_text(json.dumps(files))
    except (OSError, RuntimeError) as error:
        raise EncoderError(
            f"can't write the converted model to {folder.parent}: {error}",
            "free some space, or name another folder with VECBEAM_CACHE",
        ) from error


def _is_whole(folder: Path) -> bool:
    try:
        files = json.loads((folder / _MANIFEST).read_text())
        return "model.xml" in files and all(_sha256(folder / name) == found for name, found in files.items())
    except (OSError, ValueError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def convert(folder: str, limit: int) -> Any:
    """The library's modules in a folder, all of them, as one openvino.Model in float32, held against torch.

    Args:
        limit: most tokens of a text.

    Inputs are `input_ids` and `attention_mask` (int64[texts, tokens]), the output is float32[texts, dimensions].

    Raises:
        EncoderError: where the weights can't be loaded.
        ValueError: where the converted model gives other vectors than torch.
        Exception: where OpenVINO does not know what the model is made of.
    """
    openvino = import_openvino()
    import torch

    modules = load_modules(folder, "cpu")

    class Whole(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.modules_of_model = modules

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            features = {"input_ids": input_ids, "attention_mask": attention_mask}
            return self.modules_of_model(features)["sentence_embedding"]

    words = modules[0].auto_model.config.vocab_size
    example = (torch.arange(32).reshape(2, 16) % words, torch.ones(2, 16, dtype=torch.int64))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of each branch on a shape; shapes stay open below
        model = openvino.convert_model(Whole().eval(), example_input=example)
    for tensor, name in zip(model.inputs, ("input_ids", "attention_mask"), strict=True):
        tensor.get_tensor().set_names({name})
        tensor.get_node().set_partial_shape(openvino.PartialShape([-1, -1]))
    model.validate_nodes_and_infer_types()
    _compare(model, modules, words, limit)
    return model


def _compare(model: Any, modules: Any, words: int, limit: int) -> None:
    """Holds vectors of a long text, and of short ones with much padding, against torch's."""
    openvino = import_openvino()
    import torch

    longest = min(limit, PROBE_TOKENS)
    lengths = (longest, max(1, longest // 2), min(3, longest))
    texts = [[(5 + at) % words for at in range(size)] for size in lengths]
    ids, mask = TokenTable.of(texts, limit).padded(np.arange(3))
    features = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    with torch.inference_mode():
        expected = modules(features)["sentence_embedding"].float().numpy()
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled({"input_ids": ids, "attention_mask": mask})[0]
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    cosine = (expected * found).sum(axis=1) / norms
    if not cosine.min() >= LEAST_COSINE:  # NaN as well
        raise ValueError(f"the converted model's vectors differ from torch's (cosine {cosine.min():.5f})")
