"""The OpenVINO engine: a converted model on CPUs, several batches at once, each on its own cores."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from transforms.encoders.engines import processor
from transforms.encoders.engines.base import Finished, Ran
from transforms.encoders.engines.cache import Origin
from transforms.encoders.engines.openvino.compilation import compiled
from transforms.encoders.engines.openvino.runtime import import_openvino
from transforms.encoders.engines.tokens import TokenTable
from transforms.encoders.engines.transformer_files import TransformerFiles

if TYPE_CHECKING:
    from pathlib import Path

BATCH_TOKENS = 2048
CACHED_SHAPES = 512
"""Compiled primitives that OpenVINO keeps for the shapes that it has seen; its default of 5,000 wastes memory."""


class OpenVINOEngine:
    """A converted model, compiled for this processor.

    Args:
        model: with a precision that the processor supports.
        conversion: the origin of the converted model.
        make: the converted model's model.xml.
    """

    def __init__(self, model: TransformerFiles, conversion: Origin, make: Callable[[], Path]) -> None:
        openvino = import_openvino()

        asked = model.config.precision
        # What int8 leaves of a model stays in float32: with bfloat16 next to int8, OpenVINO 2026.4 gives wrong
        # attention for texts of 18 to 28 tokens that are padded to 32, and it is no faster.
        self._inference = "bf16" if asked == "bfloat16" and processor.has_bfloat16() else "f32"
        self._precision = "int8" if asked == "int8" else {"bf16": "bfloat16", "f32": "float32"}[self._inference]
        self._budget = model.config.batch_tokens or BATCH_TOKENS
        self._compiled = compiled(
            conversion,
            make,
            {
                "PERFORMANCE_HINT": "THROUGHPUT",
                "INFERENCE_PRECISION_HINT": self._inference,
                "CPU_RUNTIME_CACHE_CAPACITY": str(CACHED_SHAPES),
            },
        )
        self._requests = self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self._queue = openvino.AsyncInferQueue(self._compiled, self._requests)
        self._lock = threading.Lock()

    def run(self, tokens: TokenTable, finished: Finished) -> Ran:
        """See `Engine.run`."""
        handing_over = threading.Lock()
        failures: list[BaseException] = []

        def done(request: Any, rows: NDArray[np.int64]) -> None:
            vectors = np.array(request.get_output_tensor(0).data)
            with handing_over:
                # Raised on a thread of OpenVINO's own, an error may end the process.
                try:
                    if not failures:
                        finished(rows, vectors)
                except BaseException as error:
                    failures.append(error)

        padded = 0
        with self._lock:  # the queue is one for all threads
            start = time.perf_counter()
            self._queue.set_callback(done)
            try:
                for rows in tokens.batches(lambda: self._budget):
                    if failures:
                        break
                    ids, mask = tokens.padded(rows)
                    padded += tokens.padding(rows)
                    self._queue.start_async({"input_ids": ids, "attention_mask": mask}, rows)
            finally:
                self._queue.wait_all()
                # The queue would keep this one, and with it the texts, the encoder and this engine: Python's collector
                # does not see into it.
                self._queue.set_callback(_nothing)
            if failures:
                raise failures[0]
            return Ran(padded, time.perf_counter() - start)

    def runtime(self) -> dict[str, str]:
        """See `Engine.runtime`."""
        openvino = import_openvino()

        return {
            "engine": "openvino",
            "device": "cpu",
            "precision": self._precision,
            "streams": str(self._requests),
            "processor": processor.name(),
            "openvino": openvino.__version__,
        }


def _nothing(_request: Any, _rows: Any) -> None:
    pass
