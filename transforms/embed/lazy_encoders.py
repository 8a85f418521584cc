"""The encoders of a run on a worker: loaded when the first table needs them, freed when the run is over."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from weakref import WeakSet

from schemas.config import Config
from schemas.layout import Layout, VectorField
from schemas.modality import Modality
from transforms.checkpoint import read_table
from transforms.embed.rows import Filler
from transforms.encoders import Encoder, Model, resolve_on_worker
from transforms.encoders.input_encoder import InputEncoder
from transforms.encoders.media.packed_members import release_tars
from transforms.encoders.mixed import MixedEncoder
from transforms.encoders.models import corpus_root
from transforms.support import metrics


class LazyEncoders:
    """The encoder of each vector, loaded at the first table: a run that finds all parts done loads nothing.

    Args:
        config: names the models.
        layout: whose spaces this worker's models must be of.
        cutting: see `transforms.encoders.models.Models.cutting`.
        sample_uri: table with the texts (column `text`) from which int8 determines its ranges; "" for none.
    """

    def __init__(self, config: Config, layout: Layout, cutting: Sequence[str], sample_uri: str = "") -> None:
        self._config = config
        self._layout = layout
        self._cutting = cutting
        self._sample_uri = sample_uri
        self._fillers: list[Filler] | None = None
        self._loading = threading.Lock()
        _ENCODERS.add(self)

    def get(self) -> Sequence[Filler]:
        """The encoders, loaded.

        Raises:
            SpaceMismatchError: if a model of this worker is of another space than the run's.
        """
        with self._loading:
            if self._fillers is None:
                with metrics.timed("model_load"):
                    self._fillers = self._load()
            return self._fillers

    def release(self) -> None:
        """Releases the weights; `get` loads them again."""
        with self._loading:
            self._fillers = None

    def _load(self) -> list[Filler]:
        sample = read_table(self._sample_uri).column("text").to_pylist() if self._sample_uri else ()
        root = corpus_root(self._config)
        models = {
            one.name: resolve_on_worker(self._config.vectors[one.name], one.space.id, one.space, root)
            for one in self._layout.encoded
        }
        return load_fillers(models, self._layout, self._cutting, sample)


def load_fillers(
    models: dict[str, Model], layout: Layout, cutting: Sequence[str], sample: Sequence[str] = ()
) -> list[Filler]:
    """Loads the encoder of each vector of a layout that a part has.

    Args:
        models: by the name of the vector.
        sample: texts from which int8 determines its ranges.
    """
    return [
        Filler(one, _of_rows(models[one.name].load(sample), one, layout), models[one.name].probe, one.name in cutting)
        for one in layout.encoded
    ]


def _of_rows(encoder: Encoder, field: VectorField, layout: Layout) -> Encoder:
    """An encoder for chunks that have more than it embeds."""
    if field.input is not None:
        return InputEncoder(encoder, field.input, counts_rows=layout.modality.has_rows_of_several)
    return MixedEncoder(encoder) if layout.modality is Modality.MIXED else encoder


_ENCODERS: WeakSet[LazyEncoders] = WeakSet()


def release_encoders() -> None:
    """Frees the models that pipelines loaded in this process, and the compressed tars that these read.

    Beam would keep them until its end. On one machine the load and the index come next, and need their hundreds of
    megabytes.
    """
    for encoders in list(_ENCODERS):
        encoders.release()
    release_tars()
