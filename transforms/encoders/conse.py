"""ConSE: images and texts in one space, from a classifier of images and a text model, without training.

An image's vector is the mean of the vectors of the names of its ten most probable classes, weighted by their
probabilities; a text's vector is that of the text model. So a text finds an image, and an image finds a text. It knows
the classes of the classifier (ImageNet's 1,000), and no composition of them.

Norouzi et al., Zero-Shot Learning by Convex Combination of Semantic Embeddings: https://arxiv.org/abs/1312.5650
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.config import Config, EncoderConfig
from schemas.identity import digest
from schemas.layout import Space, VectorKind
from schemas.modality import Modality
from transforms.chunk.base import Chunker
from transforms.encoders import families, timm
from transforms.encoders.base import Encoded, Encoder, Model, text_inputs
from transforms.encoders.engines.cache import Origin, kept
from transforms.encoders.media.image_model import ImageModel
from transforms.encoders.media.media_encoder import MediaEncoder
from transforms.encoders.media.media_model import refuse_text_settings
from transforms.encoders.media.preparation import by_torchvision
from transforms.encoders.model_source import ModelSource
from transforms.support.extras import need, version_of

CLASSIFIER = "efficientnet-lite0"
TEXT_MODEL = "all-MiniLM-L6-v2"
TOP = 10
"""Classes of an image that count."""
_CLASS_VECTORS = "classes.npy"

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ConSEModel:
    """A classifier and a text model.

    Attributes:
        images: the classifier.
        texts: the text model.
        folder: of the classifier.
        names: of the classes, in the classifier's order.
    """

    config: EncoderConfig
    images: ImageModel
    texts: Model
    folder: Path
    names: tuple[str, ...]

    kind: ClassVar = VectorKind.DENSE
    modalities: ClassVar = frozenset({Modality.TEXT, Modality.IMAGE})

    @property
    def space(self) -> Space:
        return Space(
            {
                "family": "conse",
                "classifier": {key: self.images.facts[key] for key in ("weights", "architecture", "image", "decoding")},
                "text": dict(self.texts.space.facts),
                "classes": digest(list(self.names)),
                "top": TOP,
                "dimensions": self.dimensions,
                "normalize": True,
            }
        )

    @property
    def dimensions(self) -> int:
        return self.texts.dimensions

    @property
    def probe(self) -> pa.Table:
        return self.images.probe

    def check_runnable(self) -> None:
        """See `transforms.encoders.models.Models.check_runnable`."""
        self.images.check_runnable()

    def chunker(self, config: Config, modality: Modality) -> Chunker:
        return (self.texts if modality is Modality.TEXT else self.images).chunker(config, modality)

    def load(self, sample: Sequence[str] = ()) -> ConSEEncoder:  # noqa: ARG002 (the protocol's)
        return ConSEEncoder(self, self.texts.load())

    def class_vectors(self, texts: Encoder) -> Floats:
        """float32[classes, dimensions]: vectors of the names, computed once on a machine."""

        def make(folder: Path) -> None:
            np.save(folder / _CLASS_VECTORS, texts.encode(text_inputs(self.names)).matrix)

        origin = Origin.named("conse", self.space.id, *map(str, sorted(texts.runtime().items())))
        vectors: Floats = np.load(kept(origin, make) / _CLASS_VECTORS, allow_pickle=False)
        return vectors


class ConSEEncoder:
    """See the module. The classifier is loaded when the first image needs it: a search by words is as fast as text."""

    def __init__(self, model: ConSEModel, texts: Encoder) -> None:
        self._model = model
        self._texts = texts
        self._images: MediaEncoder | None = None
        self._loading = threading.Lock()

    def encode(self, inputs: pa.Table, *, query: bool = False, advance: Callable[[int], None] | None = None) -> Encoded:
        """See `Encoder.encode`."""
        if "text" in inputs.column_names:
            return self._texts.encode(inputs, query=query, advance=advance)
        return self.images.encode(inputs, query=query, advance=advance)

    def runtime(self) -> dict[str, str]:
        """See `Encoder.runtime`."""
        texts = {f"text {key}": value for key, value in self._texts.runtime().items()}
        return {**texts, **(self._images.runtime() if self._images is not None else {})}

    @property
    def images(self) -> MediaEncoder:
        """The classifier, loaded."""
        with self._loading:
            if self._images is None:
                self._images = self._load()
            return self._images

    def _load(self) -> MediaEncoder:
        need("image", "conse", *timm.PACKAGES)
        from transforms.encoders.engines.torch.forward import forward

        classifier, compose = timm.load(self._model.folder)
        images = by_torchvision(compose)
        call = images.before(_probabilities)
        ready = forward(classifier, self._model.config, call, timm=version_of("timm") or "")
        classes = self._model.class_vectors(self._texts)
        facts = {"dimensions": self._model.dimensions, "normalize": True}
        return images.encoder(self._model.config, facts, ready, lambda some: combined(ready.run(some), classes))


def combined(probabilities: Floats, classes: Floats) -> Floats:
    """Vectors of images from the probabilities of their classes.

    Args:
        probabilities: float32[n, classes].
        classes: float32[classes, dimensions], vectors of their names.

    Returns:
        float32[n, dimensions], not scaled to length 1.

    >>> combined(np.array([[0.75, 0.25]], np.float32), np.eye(2, dtype=np.float32)).tolist()
    [[0.75, 0.25]]
    """
    top = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP]
    weights = np.take_along_axis(probabilities, top, axis=1)
    weights = weights / weights.sum(axis=1, keepdims=True)
    found: Floats = np.einsum("nk,nkd->nd", weights, classes[top]).astype(np.float32)
    return found


def _probabilities(model: Any, images: Any) -> Any:
    return model(images).float().softmax(dim=1)


def describe(config: EncoderConfig, source: ModelSource) -> ConSEModel:  # noqa: ARG001 (it has no files of its own)
    """The model; see `transforms.encoders.families`.

    Raises:
        ConfigurationError: if the configuration sets what it does not have.
        EncoderError: if one of its models is not installed.
        MissingExtraError: if the extra `image` is not installed.
    """
    refuse_text_settings(config)
    need("image", "conse", *timm.PACKAGES)
    own = config.model_copy(update={"family": None, "dimensions": None, "normalize": True, "input": None})
    texts = families.resolve(own.model_copy(update={"model": TEXT_MODEL}))
    classifier = ModelSource(own.model_copy(update={"model": CLASSIFIER}))
    images = timm.describe(classifier.config, classifier)
    return ConSEModel(config, images, texts, classifier.folder(), _names())


def _names() -> tuple[str, ...]:
    """The first name of each class of ImageNet."""
    from transforms.encoders.engines.torch.torchvision_operators import make_importable

    make_importable()
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return tuple(info.index_to_description(place).split(",")[0] for place in range(info.num_classes()))
