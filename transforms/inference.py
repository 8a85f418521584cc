"""Beam's inference over tables: one table is one unit, one model a worker."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from weakref import WeakSet

import pyarrow as pa
import pyarrow.compute as pc

from schemas.config import Encoder as EncoderConfig
from schemas.records import SOURCE_ROW
from transforms import metrics
from transforms.checkpoint import read_table
from transforms.embed import embed_table, nothing_embedded
from transforms.embedded import EmbeddedTable
from transforms.encoders import Encoder, resolve_on_worker

_MODEL_MANAGER = "apache_beam.ml.inference.model_manager"


@contextmanager
def _without_model_manager() -> Iterator[None]:
    """Keeps Beam's manager of many models out, which nothing here uses and which imports torch and scipy: a second."""
    if _MODEL_MANAGER in sys.modules:
        yield
        return
    stand_in = ModuleType(_MODEL_MANAGER)
    stand_in.ModelManager = None  # type: ignore[attr-defined]
    sys.modules[_MODEL_MANAGER] = stand_in
    try:
        yield
    finally:
        del sys.modules[_MODEL_MANAGER]


with _without_model_manager():
    from apache_beam.ml.inference.base import KeyedModelHandler, ModelHandler, RunInference

__all__ = ["KeyedModelHandler", "LazyEncoder", "RunInference", "TableModelHandler", "release_encoders"]


class LazyEncoder:
    """An encoder that loads at its first table, so that a run which finds all parts done loads nothing."""

    def __init__(self, config: EncoderConfig, space_id: str, sample_uri: str = "") -> None:
        self._config = config
        self._space_id = space_id
        self._sample_uri = sample_uri
        self._encoder: Encoder | None = None
        self._loading = threading.Lock()
        _ENCODERS.add(self)

    def get(self) -> Encoder:
        """The encoder, loaded.

        Raises:
            SpaceMismatchError: where this worker's model is of another space than the run's.
        """
        with self._loading:
            if self._encoder is None:
                with metrics.timed("model_load"):
                    self._encoder = self._load()
            return self._encoder

    def release(self) -> None:
        """Lets go of the weights; `get` loads them again."""
        with self._loading:
            self._encoder = None

    def _load(self) -> Encoder:
        model = resolve_on_worker(self._config, self._space_id)
        return model.load(read_table(self._sample_uri).column("text").to_pylist() if self._sample_uri else ())


_ENCODERS: WeakSet[LazyEncoder] = WeakSet()


def release_encoders() -> None:
    """Frees the models that pipelines loaded in this process, which Beam would keep to the end of it.

    On one machine the collection is loaded and indexed next, and wants their hundreds of megabytes.
    """
    for encoder in list(_ENCODERS):
        encoder.release()


class TableModelHandler(ModelHandler[pa.Table, EmbeddedTable, LazyEncoder]):  # type: ignore[misc]
    """RunInference over tables: one table is one unit, one model a worker, the accelerator of the configuration.

    Args:
        config: which model, on which device; `accelerator` becomes Beam's resource hint.
        space_id: what the model's space must be on each worker.
        sample_uri: table whose column `text` int8 takes its ranges from; "" for none.
    """

    def __init__(self, config: EncoderConfig, space_id: str, sample_uri: str = "") -> None:
        super().__init__()
        self._config = config
        self._space_id = space_id
        self._sample_uri = sample_uri

    def load_model(self) -> LazyEncoder:
        return LazyEncoder(self._config, self._space_id, self._sample_uri)

    def run_inference(
        self,
        batch: Sequence[pa.Table],
        model: LazyEncoder,
        inference_args: dict[str, Any] | None = None,  # noqa: ARG002 (Beam's signature)
    ) -> Iterator[EmbeddedTable]:
        for chunks in batch:
            waiting = chunks.filter(pc.equal(chunks.column(SOURCE_ROW), -1))
            if waiting.num_rows == 0:
                yield EmbeddedTable(chunks, nothing_embedded(chunks))
                continue
            encoder = model.get()
            with metrics.timed("embed"), metrics.ahead(waiting) as advance:
                embedded = embed_table(waiting, encoder, advance)
            metrics.count("chunks_embedded", len(embedded.rows))
            metrics.count("tokens_embedded", pc.sum(embedded.rows.column("tokens")).as_py() or 0)
            metrics.count("tokens_padded", embedded.tokens_padded)
            yield EmbeddedTable(chunks, embedded)

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        return {"min_batch_size": 1, "max_batch_size": 1}

    def get_resource_hints(self) -> dict[str, Any]:
        return {"accelerator": self._config.accelerator} if self._config.accelerator else {}

    def share_model_across_processes(self) -> bool:
        # Sharing would send each table and its vectors through a pipe; workers run one process per accelerator instead.
        return False

    def get_metrics_namespace(self) -> str:
        return metrics.NAMESPACE
