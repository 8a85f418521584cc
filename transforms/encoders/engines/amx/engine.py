"""The AMX engine: texts without padding, a batch on each core, in kernels of our own.

In bfloat16 all products are of bfloat16 numbers, and sums, softmax, layer norms and the residual stream are float32. In
float32 each number is the sum of two bfloat16, and a product three products of those: 16 bits of significand, where
float32 has 24, at about twice the rate of the processor's own float32 (Henry, Tang, Heinecke, 2019).
"""

from __future__ import annotations

import ctypes
import json
import os
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.errors import EncoderError
from schemas.identity import digest_bytes
from transforms.encoders.engines import processor
from transforms.encoders.engines.amx import library, weights
from transforms.encoders.engines.base import Finished, Ran
from transforms.encoders.engines.kept import fingerprint, kept
from transforms.encoders.engines.probe import Probe
from transforms.encoders.engines.tokens import TokenTable
from transforms.encoders.engines.torch.modules import load_modules

if TYPE_CHECKING:
    from transforms.encoders.sentence_transformers import SentenceTransformersModel

BATCH_TOKENS = 4096
LEAST_COSINE = {"float32": 0.99999, "bfloat16": 0.999}
"""Of vectors to torch's in float32, for the texts of a probe."""


class _Batch(NamedTuple):
    rows: NDArray[np.int64]
    vectors: NDArray[np.float32]
    padded: int
    seconds: float


class AMXEngine:
    """A model in the kernels.

    Raises:
        ValueError: where the model is not what the kernels know, or gives other vectors than torch.
        EncoderError: where the cache can't be written, or the weights can't be loaded.
    """

    def __init__(self, model: SentenceTransformersModel) -> None:
        self._kernels = library.load()
        self._precision = model.config.precision
        read = weights.read(model, split=self._precision == "float32")
        pointers = (ctypes.c_void_p * len(read.tensors))(*(tensor.ctypes.data for tensor in read.tensors))
        self._model = self._kernels.vecbeam_new(ctypes.byref(read.shape), pointers)
        if not self._model:
            raise MemoryError("no memory for the model's weights")
        weakref.finalize(self, self._kernels.vecbeam_delete, self._model)
        self._embeddings = read.tensors[:3]
        self._hidden, self._normalize = read.shape.hidden, read.normalize
        self._budget = model.config.batch_tokens or BATCH_TOKENS
        self._threads = len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(self._threads, "amx")
        self._compare(model)

    def run(self, tokens: TokenTable, finished: Finished) -> Ran:
        """See `Engine.run`.

        Raises:
            EncoderError: where the tokenizer gives ids that the model has no row for.
        """
        words = len(self._embeddings[0])
        if len(tokens.flat) and not 0 <= int(tokens.flat.min()) <= int(tokens.flat.max()) < words:
            raise EncoderError(
                f"the tokenizer gives token ids up to {int(tokens.flat.max())}; the model has {words} rows",
                "take the tokenizer that the model was saved with",
            )
        padded, busy = 0, 0.0
        for batch in self._pool.map(lambda rows: self._compute(tokens, rows), self._batches(tokens)):
            finished(batch.rows, batch.vectors)
            padded += batch.padded
            busy += batch.seconds
        return Ran(padded, busy / self._threads)

    def _batches(self, tokens: TokenTable) -> Iterator[NDArray[np.int64]]:
        # A small table is shared out among the cores as well.
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

    def _compare(self, model: SentenceTransformersModel) -> None:
        """Holds vectors against torch's, once a machine: what was found is kept like a conversion."""

        def compare(folder: Path) -> None:
            probe = Probe.of(load_modules(model.folder, "cpu"), model.space.max_tokens)
            found = np.empty_like(probe.vectors)
            self.run(probe.tokens, found.__setitem__)
            (folder / "comparison.json").write_text(json.dumps({"cosine": probe.least_cosine(found)}))

        compiled = library.path()
        assert compiled is not None
        kernels = digest_bytes([compiled.read_bytes()])
        name = fingerprint(model, ("torch", "transformers"), "amx", self._precision, kernels)
        cosine = json.loads((kept(name, compare) / "comparison.json").read_text())["cosine"]
        if not cosine >= LEAST_COSINE[self._precision]:  # NaN as well
            raise ValueError(f"its vectors differ from torch's (cosine {cosine:.5f})")

    def runtime(self) -> dict[str, str]:
        """See `Engine.runtime`."""
        return {
            "engine": "amx",
            "device": "cpu",
            "precision": self._precision,
            "products": "three of bfloat16" if self._precision == "float32" else "bfloat16",
            "streams": str(self._threads),
            "attention": "packed",
            "processor": processor.name(),
        }
