"""The torch engine: the library's modules on CPUs and on GPUs, with batches of tokens that fit the device.

On a GPU batches are launched ahead of the answers: ids go from pinned memory while the previous batch computes, and
vectors come back while the next one does. Several GPUs have a copy of the model each and take turns. On a CPU each core
computes its own batch: the work between the matrix products does not get faster with more threads per batch.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from transforms.encoders.engines import processor
from transforms.encoders.engines.base import Finished, Ran
from transforms.encoders.engines.tokens import TokenTable
from transforms.encoders.engines.torch.computed_precision import computed_precision
from transforms.encoders.engines.torch.modules import load_modules, prepack
from transforms.encoders.engines.torch.packed import Packing
from transforms.encoders.engines.transformer_files import TransformerFiles

log = logging.getLogger("vecbeam")
CPU_BATCH_TOKENS = 2048
CUDA_BATCH_TOKENS = 65536
LoadModules = Callable[[str, str], Any]
LEAST_COSINE = 0.999
"""Of vectors without padding to those with it, for a few tokens that mean nothing."""
AHEAD = 3
"""Batches launched on each GPU before the oldest one's vectors are awaited."""


class _Launched(NamedTuple):
    """A batch under way: its texts, where its vectors will be, and when it began and ended.

    On a GPU the times are CUDA events; on a CPU seconds, and the batch has ended already.
    """

    rows: NDArray[np.int64]
    vectors: Any
    began: Any
    ended: Any

    def finish(self, finished: Finished) -> float:
        """Waits for the vectors and passes them on; returns the seconds that the device computed."""
        seconds: float
        if isinstance(self.ended, float):
            seconds = self.ended - self.began
        else:
            self.ended.synchronize()
            seconds = self.began.elapsed_time(self.ended) / 1000
        finished(self.rows, self.vectors.numpy())
        return seconds


class TorchEngine:
    """A model on torch.

    Args:
        model: the folder, its space and the configuration.
        devices: torch's names, a copy of the model on each.
        packed: whether texts follow each other without padding; None: on GPUs, if the model allows it.
        load: gives the torch modules of a folder on a device; they fill `sentence_embedding`.

    Raises:
        EncoderError: if the weights can't be loaded.
    """

    def __init__(
        self, model: TransformerFiles, devices: list[str], packed: bool | None = None, load: LoadModules = load_modules
    ) -> None:
        import torch

        self._on_cuda = devices[0] != "cpu"
        self._precision = computed_precision(model.config.precision, self._on_cuda)
        self._replicas = [_Replica(load(model.folder, device), device, self._precision, packed) for device in devices]
        self._budget = model.config.batch_tokens or (CUDA_BATCH_TOKENS if self._on_cuda else CPU_BATCH_TOKENS)
        self._packed = all(replica.packing for replica in self._replicas)
        self._lock = threading.Lock()
        self._turn = 0
        self._threads = torch.get_num_threads()
        self._streams = 1 if self._on_cuda else self._threads
        self._pool = ThreadPoolExecutor(self._streams, "torch", torch.set_num_threads, (1,))

    def run(self, tokens: TokenTable, finished: Finished) -> Ran:
        """See `Engine.run`; torch.OutOfMemoryError where not even one text fits the device."""
        import torch

        if not self._on_cuda:
            return self._run_on_cores(tokens, finished)
        waiting: deque[_Launched] = deque()
        padded, busy = 0, 0.0
        most = AHEAD * len(self._replicas)
        with torch.inference_mode():
            for rows in tokens.batches(lambda: self._budget):
                for launched in self._launch(tokens, rows):
                    waiting.append(launched)
                    padded += 0 if self._packed else tokens.padding(launched.rows)
                    while len(waiting) > most:
                        busy += waiting.popleft().finish(finished)
            while waiting:
                busy += waiting.popleft().finish(finished)
        return Ran(padded, busy / len(self._replicas))

    def _run_on_cores(self, tokens: TokenTable, finished: Finished) -> Ran:
        import torch

        def compute(rows: NDArray[np.int64]) -> list[_Launched]:
            with torch.inference_mode():
                return list(self._launch(tokens, rows))

        batches = list(tokens.batches(lambda: self._budget))
        padded, busy = 0, 0.0
        try:
            # A batch alone, as of a query, gets all cores.
            results = map(compute, batches) if len(batches) == 1 else self._pool.map(compute, batches)
            for launched in chain.from_iterable(results):
                padded += 0 if self._packed else tokens.padding(launched.rows)
                busy += launched.finish(finished)
        finally:
            # Else torch would give one thread to each thread of this process that uses it from now on.
            torch.set_num_threads(self._threads)
        return Ran(padded, busy / max(1, min(self._streams, len(batches))))

    def _launch(self, tokens: TokenTable, rows: NDArray[np.int64]) -> Iterator[_Launched]:
        import torch

        with self._lock:
            replica = self._replicas[self._turn % len(self._replicas)]
            self._turn += 1
        try:
            yield replica.launch(tokens, rows)
            return
        except torch.OutOfMemoryError:
            if len(rows) == 1:
                raise
            # Remembered, so that each later batch fits at once.
            self._budget = max(1, int(tokens.lengths[rows].sum()) // 2)
            log.warning("a batch of %d texts did not fit the device; batches of %d tokens now", len(rows), self._budget)
        torch.cuda.empty_cache()
        for half in np.array_split(rows, 2):
            yield from self._launch(tokens, half)

    def runtime(self) -> dict[str, str]:
        """See `Engine.runtime`."""
        import sentence_transformers
        import torch
        import transformers

        return {
            "engine": "torch",
            "device": "cuda" if self._on_cuda else "cpu",
            "devices": str(len(self._replicas)),
            "precision": self._precision,
            "streams": str(self._streams),
            "attention": "packed" if self._packed else "padded",
            "processor": torch.cuda.get_device_name() if self._on_cuda else processor.name(),
            "torch": str(torch.__version__),
            "transformers": transformers.__version__,
            "sentence-transformers": sentence_transformers.__version__,
        }


class _Replica:
    """One copy of the model on one device."""

    def __init__(self, modules: Any, device: str, precision: str, packed: bool | None) -> None:
        import torch

        self._device = device
        self._modules = modules
        self._cuda = device != "cpu"
        self._autocast = precision == "bfloat16" and not self._cuda
        if self._cuda and precision != "float32":
            self._modules.to(getattr(torch, precision))
        if not self._cuda and precision == "float32":
            prepack(self._modules)
        self.packing: Packing | None = None
        if packed or (packed is None and self._cuda and precision != "float32"):
            self.packing = self._agreeing()

    def _agreeing(self) -> Packing | None:
        """The model without padding, with as few passes over memory as give the vectors with padding."""
        import torch

        words = self._modules[0].auto_model.config.vocab_size
        ids = [[(row * 7 + column + 5) % words for column in range(length)] for row, length in enumerate((3, 11, 6))]
        probe = TokenTable.of(ids, limit=16)
        rows = np.arange(3)
        with torch.inference_mode():
            expected = self._padded(probe, rows).float()
            for fused in (True, False) if self._cuda else (False,):
                packing = None
                try:
                    packing = Packing(self._modules, fused)
                    found = self._packed(packing, probe, rows).float()
                    cosine = float(torch.nn.functional.cosine_similarity(expected, found).min())
                    if cosine > LEAST_COSINE:
                        return packing
                    reason = f"cosine to padded vectors {cosine:.4f}"
                except Exception as error:  # models accept different arguments; each can run with padding
                    reason = str(error)
                if packing is not None:
                    packing.undo()
                log.warning("this model runs %s: %s", "with its own kernels" if fused else "with padding", reason)
        return None

    def launch(self, tokens: TokenTable, rows: NDArray[np.int64]) -> _Launched:
        """Begins a batch, and on a CPU ends it."""
        import torch

        forward = self._padded if self.packing is None else partial(self._packed, self.packing)
        if not self._cuda:
            start = time.perf_counter()
            vectors = forward(tokens, rows).float()
            return _Launched(rows, vectors, start, time.perf_counter())
        with torch.cuda.device(self._device):
            began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            began.record()
            vectors = forward(tokens, rows).float()
            host = torch.empty(vectors.shape, dtype=torch.float32, pin_memory=True)
            host.copy_(vectors, non_blocking=True)
            ended.record()
        return _Launched(rows, host, began, ended)

    def _to_device(self, array: NDArray[Any]) -> Any:
        import torch

        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(self._device, non_blocking=True) if self._cuda else tensor

    def _padded(self, tokens: TokenTable, rows: NDArray[np.int64]) -> Any:
        import torch

        ids, mask = tokens.padded(rows)
        features: dict[str, Any] = {"input_ids": self._to_device(ids), "attention_mask": self._to_device(mask)}
        if tokens.prompt_tokens:
            features["prompt_length"] = tokens.prompt_tokens
        with torch.autocast("cpu", torch.bfloat16, enabled=self._autocast):
            return self._modules(features)["sentence_embedding"]

    def _packed(self, packing: Packing, tokens: TokenTable, rows: NDArray[np.int64]) -> Any:
        import torch

        with torch.autocast("cpu", torch.bfloat16, enabled=self._autocast):
            return packing(tokens.packed(rows), tokens.lengths[rows], tokens.prompt_tokens, self._to_device)
