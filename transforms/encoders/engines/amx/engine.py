"""The AMX engine: texts without padding, a batch on each core, in vecbeam's kernels.

In bfloat16 all products are of bfloat16 numbers, and sums, softmax, layer norms and the residual stream are float32. In
float32 the rows and weights of linear layers are integers of 16 bits with one scale per row; a product is three of int8
(Ootomo, Ozaki, Yokota, 2024). Attention's numbers, and all of a model whose rows are spread too wide for one scale, are
sums of two bfloat16, and a product three of those (Henry, Tang, Heinecke, 2019).
"""

from __future__ import annotations

import ctypes
import json
import os
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.errors import EncoderError
from schemas.identity import digest_bytes
from transforms.encoders.engines import processor
from transforms.encoders.engines.amx import library, weights
from transforms.encoders.engines.amx.library import Numbers
from transforms.encoders.engines.base import Finished, Ran
from transforms.encoders.engines.cache import Origin, kept
from transforms.encoders.engines.extra import need_torch
from transforms.encoders.engines.probe import Probe
from transforms.encoders.engines.tokens import TokenTable
from transforms.encoders.engines.torch.modules import load_modules
from transforms.encoders.engines.transformer_files import TransformerFiles

BATCH_TOKENS = 4096


class _Way(NamedTuple):
    numbers: Numbers
    products: str
    least_cosine: float
    """Cosine of vectors to torch's in float32, for the texts of a probe."""


WAYS = {
    "bfloat16": [_Way(Numbers.BFLOAT16, "bfloat16", 0.999)],
    "float32": [_Way(Numbers.FIXED, "three of int8", 0.999997), _Way(Numbers.SPLIT, "three of bfloat16", 0.99999)],
}
"""By precision, fastest first: the first one whose vectors are near enough is used."""


def comparison(model: TransformerFiles, numbers: Numbers) -> Origin:
    """What determines a comparison of a model's vectors with torch's."""
    compiled = library.path()
    assert compiled is not None
    return Origin.of(model, ("torch", "transformers"), "amx", numbers.name, digest_bytes([compiled.read_bytes()]))


class _Batch(NamedTuple):
    rows: NDArray[np.int64]
    vectors: NDArray[np.float32]
    padded: int
    seconds: float


class AMXEngine:
    """A model in the kernels.

    Raises:
        ValueError: if the kernels don't support the model, or give other vectors than torch.
        EncoderError: if the cache can't be written, the weights can't be loaded, or they were never compared with
            torch's vectors here and torch is not installed.
    """

    def __init__(self, model: TransformerFiles) -> None:
        self._kernels = library.load()
        self._precision = model.config.precision
        read = weights.read(model)
        self._embeddings = read.tensors[:3]
        self._hidden, self._normalize = read.shape.hidden, read.normalize
        self._budget = model.config.batch_tokens or BATCH_TOKENS
        self._threads = len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(self._threads, "amx")
        for way in WAYS[self._precision]:
            self._products = way.products
            release = self._hold(read, way)
            cosine = self._cosine(model, way)
            if cosine >= way.least_cosine:
                return
            release()
        raise ValueError(f"its vectors differ from torch's (cosine {cosine:.5f})")  # or are NaN

    def _hold(self, read: weights.Weights, way: _Way) -> Callable[[], object]:
        """Passes the weights to the kernels; returns a function that releases them."""
        read.shape.numbers = way.numbers
        pointers = (ctypes.c_void_p * len(read.tensors))(*(tensor.ctypes.data for tensor in read.tensors))
        self._model = self._kernels.vecbeam_new(ctypes.byref(read.shape), pointers)
        if not self._model:
            raise MemoryError("no memory for the model's weights")
        return weakref.finalize(self, self._kernels.vecbeam_delete, self._model)

    def run(self, tokens: TokenTable, finished: Finished) -> Ran:
        """See `Engine.run`.

        Raises:
            EncoderError: if the tokenizer returns ids that the model does not have.
        """
        words = len(self._embeddings[0])
        if len(tokens.flat) and not 0 <= int(tokens.flat.min()) <= int(tokens.flat.max()) < words:
            raise EncoderError(
                f"the tokenizer gives token ids up to {int(tokens.flat.max())}; the model has {words} rows",
                "use the tokenizer that the model was saved with",
            )
        padded, busy = 0, 0.0
        for batch in self._pool.map(lambda rows: self._compute(tokens, rows), self._batches(tokens)):
            finished(batch.rows, batch.vectors)
            padded += batch.padded
            busy += batch.seconds
        return Ran(padded, busy / self._threads)

    def _batches(self, tokens: TokenTable) -> Iterator[NDArray[np.int64]]:
        # A small table is distributed over the cores as well.
        fair = -(-int(tokens.lengths.sum()) // self._threads)
        return tokens.batches(lambda: min(self._budget, fair))

    def _compute(self, tokens: TokenTable, rows: NDArray[np.int64]) -> _Batch:
        start = time.perf_counter()
        lengths = tokens.lengths[rows]
        ids = tokens.packed(rows)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        vectors = np.empty((len(rows), self._hidden), np.float32)
        padded = self._kernels.vecbeam_run(
            self._model, ids.ctypes.data, offsets.ctypes.data, len(rows), vectors.ctypes.data
        )
        if padded < 0:
            raise MemoryError(f"no memory for a batch of {len(ids)} tokens")
        if self._normalize:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return _Batch(rows, vectors, padded, time.perf_counter() - start)

    def _cosine(self, model: TransformerFiles, way: _Way) -> float:
        """Cosine of vectors to torch's, found once per machine and kept like a conversion."""

        def compare(folder: Path) -> None:
            need_torch("comparing the vectors of amx with torch's, once a machine,")
            probe = Probe.of(load_modules(model.folder, "cpu", model.route), model.max_tokens)
            found = np.empty_like(probe.vectors)
            self.run(probe.tokens, found.__setitem__)
            (folder / "comparison.json").write_text(json.dumps({"cosine": probe.least_cosine(found)}))

        origin = comparison(model, way.numbers)
        return float(json.loads((kept(origin, compare) / "comparison.json").read_text())["cosine"])

    def runtime(self) -> dict[str, str]:
        """See `Engine.runtime`."""
        return {
            "engine": "amx",
            "device": "cpu",
            "precision": self._precision,
            "products": self._products,
            "streams": str(self._threads),
            "attention": "packed",
            "processor": processor.name(),
        }
