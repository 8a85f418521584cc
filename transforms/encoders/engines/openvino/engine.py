"""The OpenVINO engine: a converted model on CPUs, several batches at once, each on its own cores."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

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
        streams = self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        # One more than can run at once: its batch is padded while the others compute.
        self._requests = [self._compiled.create_infer_request() for _ in range(streams + 1)]
        self._streams = streams
        self._lock = threading.Lock()

    def run(self, tokens: TokenTable, finished: Finished) -> Ran:
        """See `Engine.run`.

        Threads of vecbeam wait for OpenVINO's. A callback would run on one of OpenVINO's threads, and drop there what
        it holds: where that is this engine, the thread waits for its own end, and the process aborts.
        """
        taking, handing_over = threading.Lock(), threading.Lock()
        batches = tokens.batches(lambda: self._budget)
        padded = 0
        stopped = threading.Event()

        def work(request: Any) -> None:
            nonlocal padded
            while not stopped.is_set():
                with taking:
                    rows = next(batches, None)
                if rows is None:
                    return
                try:
                    ids, mask = tokens.padded(rows)
                    request.infer({"input_ids": ids, "attention_mask": mask}, share_inputs=True)
                    vectors = np.array(request.get_output_tensor(0).data)
                except BaseException:
                    stopped.set()
                    raise
                with handing_over:
                    if stopped.is_set():
                        return
                    padded += tokens.padding(rows)
                    try:
                        finished(rows, vectors)
                    except BaseException:
                        stopped.set()
                        raise

        with self._lock:  # the requests are one set for all threads
            start = time.perf_counter()
            with ThreadPoolExecutor(len(self._requests)) as pool:
                try:
                    for future in [pool.submit(work, request) for request in self._requests]:
                        future.result()
                finally:
                    stopped.set()
            return Ran(padded, time.perf_counter() - start)

    def runtime(self) -> dict[str, str]:
        """See `Engine.runtime`."""
        openvino = import_openvino()

        return {
            "engine": "openvino",
            "device": "cpu",
            "precision": self._precision,
            "streams": str(self._streams),
            "processor": processor.name(),
            "openvino": openvino.__version__,
        }
