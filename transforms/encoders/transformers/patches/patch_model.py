"""Pages as pictures, and any image, by late interaction: ColPali, ColQwen2 and ColModernVBert.

A picture has a vector for each of its patches, and for the tokens of the instruction that the model was trained with; a
text has one for each token, and is a query alone. Vectors are those of the library's `*ForRetrieval` classes for the
inputs that its processor makes of one picture or text.

Faysse et al., ColPali: Efficient Document Retrieval with Vision Language Models: https://arxiv.org/abs/2407.01449
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError, EncoderError
from schemas.layout import VectorKind
from schemas.modality import Modality
from transforms.encoders.engines.torch.torchvision_operators import make_importable
from transforms.encoders.media.image_model import ImageModel
from transforms.encoders.model_files import read_json, weight_names, weights_digest
from transforms.encoders.model_source import ModelSource
from transforms.encoders.multi_vectors import refuse_single_vector_settings
from transforms.encoders.transformers.architectures import PATCHES
from transforms.encoders.transformers.model_folder import ModelFolder
from transforms.encoders.transformers.patches.patch_encoder import MASK, Inputs, PatchEncoder, Tower
from transforms.encoders.transformers.pixels import PACKAGES, RESAMPLING
from transforms.encoders.transformers.text_tower import tokenizer_facts
from transforms.support.extras import version_of

if TYPE_CHECKING:
    from PIL.Image import Image

_PROJECTION = "embedding_proj_layer.weight"
_DIMENSIONS = 128
_TRAINING = "labels"
"""What the library's processors add for training."""
_SHARE = 8
"""A picture of a thousand tokens fills a device as so many pictures of a vision model do."""


@dataclass(frozen=True)
class PatchModel(ImageModel):
    """A folder with a late interaction model; a corpus is of images, and queries are texts or images."""

    kind: ClassVar = VectorKind.MULTI
    modalities: ClassVar = frozenset({Modality.IMAGE, Modality.TEXT})
    queries_alone: ClassVar = frozenset({Modality.TEXT})


def describe_patches(config: EncoderConfig, source: ModelSource, files: ModelFolder) -> PatchModel:
    """The model in a folder.

    Raises:
        ConfigurationError: if a file does not exist, the weights have no projection, or the configuration sets what
            several vectors of a row do not have.
        EncoderError: if the weights are not the pinned ones.
    """
    refuse_single_vector_settings(config, "patch")
    if not config.normalize:
        raise ConfigurationError(
            f"encoder.normalize: false, and {config.model} itself gives its vectors length 1",
            "remove encoder.normalize",
        )
    _refuse_masks(files)
    weights = weights_digest([files.folder], source.weights_sha256)
    if not any(name.endswith(_PROJECTION) for name in weight_names(files.folder)):
        raise ConfigurationError(
            f"encoder.model: the weights in {files.folder} have no {_PROJECTION}, the projection of a late interaction "
            "model: the library would make one of random numbers",
            "name the folder of the whole model, saved with save_pretrained",
        )
    own = int(files.settings.get("embedding_dim") or _DIMENSIONS)
    source.compare_dimensions(own)
    facts = {
        "family": "transformers",
        "weights": weights,
        "architecture": files.architecture,
        "image": files.processing("image_processor"),
        "resampling": RESAMPLING,
        "decoding": "exact",
        "inputs": files.instructions,
        "tokenizer": tokenizer_facts(files.folder),
        "pooling": "tokens",
        "dimensions": own,
        "normalize": True,
    }
    return PatchModel(config, facts, partial(_load, config, files, own), PACKAGES)


def _refuse_masks(files: ModelFolder) -> None:
    """Refuses what a MultiVectorEncoder of the sentence-transformers library has next to the model."""
    for module in read_json(files.folder / "modules.json").get("", []):
        kind, settings = (
            str(module["type"]).rsplit(".", 1)[-1],
            read_json(files.folder / module["path"] / "config.json"),
        )
        is_used = any(settings.get(key) for key in ("skiplist_words", "keep_only_token_ids"))
        if kind not in ("Transformer", "MultiVectorMask") or (kind == "MultiVectorMask" and is_used):
            raise ConfigurationError(
                f"encoder.model: {files.folder / 'modules.json'} names a {kind} that leaves vectors out or changes "
                "them, which is not supported for models of pictures",
                "name the folder of the model as the transformers library saved it",
            )


def refuse_without_projection(files: ModelFolder, other: str) -> None:
    """Refuses the plain model that late interaction models are made from.

    Args:
        other: the `model_type` of the model with a projection.

    Raises:
        ConfigurationError: always.
    """
    raise ConfigurationError(
        f"encoder.model: {files.folder / 'config.json'} has model_type {files.model_type!r}: a model without the "
        "projection that gives patches their vectors, which would be random numbers",
        f"name a late interaction model of model_type {other}; transformers has scripts that convert those of "
        "colpali-engine",
    )


def _load(config: EncoderConfig, files: ModelFolder, dimensions: int) -> PatchEncoder:
    from PIL import Image as library

    from transforms.encoders.engines.torch.forward import forward

    processor = _processor(files)
    of_images, of_queries = partial(_of_image, processor), partial(_of_query, processor)
    try:
        names = [sorted(of_images(library.new("RGB", (64, 64)))), sorted(of_queries("a"))]
    except Exception as error:  # the library raises errors of many kinds for files that do not fit
        raise EncoderError(
            f"can't use the processor in {files.folder}: {error}", "check its processor_config.json"
        ) from error
    model = files.load(kind="AutoModelForPreTraining")
    versions = {"transformers": version_of("transformers") or ""}
    images, queries = (forward(model, config, partial(_embeddings, of), **versions) for of in names)

    def run(ready: Callable[..., Any], of: list[str], arrays: Inputs) -> Any:
        return ready(*(arrays[name] for name in of))

    return PatchEncoder(
        dimensions,
        Tower(of_images, partial(run, images.run, names[0])),
        Tower(of_queries, partial(run, queries.run, names[1])),
        max(1, images.batch // _SHARE),
        images.described,
    )


def _embeddings(names: list[str], model: Any, *arrays: Any) -> Any:
    return model(**dict(zip(names, arrays, strict=True))).embeddings


def _of_image(processor: Any, image: Image) -> Inputs:
    return _arrays(processor.process_images(images=[image]))


def _of_query(processor: Any, text: str) -> Inputs:
    return _arrays(processor.process_queries(text=[text]))


def _arrays(made: Any) -> Inputs:
    found = {name: np.ascontiguousarray(value) for name, value in made.items() if name != _TRAINING}
    assert MASK in found, sorted(found)
    return found


def _processor(files: ModelFolder) -> Any:
    """The processor of a folder, which several threads may call.

    Raises:
        EncoderError: if the library does not have it, or it needs torchvision.
    """
    make_importable()
    from transformers import AutoProcessor
    from transformers.image_processing_backends import PilBackend

    try:
        found = AutoProcessor.from_pretrained(
            files.folder, backend="pil", trust_remote_code=False, local_files_only=True
        )
        needed = PATCHES[files.model_type]
        if type(found).__name__ != needed or not isinstance(found.image_processor, PilBackend):
            raise TypeError(f"it is a {type(found).__name__}, and {files.model_type} takes a {needed} on Pillow")
    except Exception as error:  # the library raises errors of many kinds for damaged files
        raise EncoderError(
            f"can't use the processor in {files.folder}: {error}",
            f"save it again: {PATCHES[files.model_type]}.from_pretrained(...).save_pretrained(folder)",
        ) from error
    found.tokenizer = _OneAtATime(found.tokenizer)
    return found


class _OneAtATime:
    """A tokenizer for several threads: each call sets its padding."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._calling = threading.Lock()

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        with self._calling:
            return self._tokenizer(*arguments, **settings)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)
