"""SPLADE models: sparse vectors over the words of a masked language model's vocabulary.

A weight is log(1 + relu(logit)), pooled over a text's tokens. log1p and relu never fall, so the largest logit gives the
largest weight: both run once per text, after the maximum, and not once per token. Vectors are those of
`SparseEncoder.encode` of the sentence-transformers library. SPLADE v2: https://arxiv.org/abs/2109.10086; the second
logarithm (`log1p_relu`): https://arxiv.org/abs/2504.14839.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError, EncoderError
from schemas.layout import VectorKind
from transforms.encoders.base import Encoded, Work, token_ids_of
from transforms.encoders.engines import load_on_torch
from transforms.encoders.engines.torch.torchvision_operators import make_importable
from transforms.encoders.model_files import own_token_limit, read_json
from transforms.encoders.model_source import ModelSource
from transforms.encoders.sentence_transformers import TorchModel
from transforms.encoders.text_encoder import TextEncoder
from transforms.encoders.text_facts import TextFacts
from transforms.encoders.transformer_text import (
    check_runs_on_torch,
    check_tokenizer,
    facts_of_transformer,
    files_of_transformer,
)
from transforms.support.vectors import sparse_array

POOLINGS = ("max", "sum")
ACTIVATIONS = ("relu", "log1p_relu")
_TRANSFORMERS = ("Transformer", "MLMTransformer")
# Logits of so many tokens of a text are computed together: on a CPU they then fit its cache.
_TOKENS_ON_CPU, _TOKENS_ON_GPU = 64, 1024


@dataclass(frozen=True)
class SpladeModel(TorchModel):
    """A folder that SparseEncoder can load: a masked language model, and how its logits are pooled."""

    kind: ClassVar = VectorKind.SPARSE

    def load(self, sample: Sequence[str] = ()) -> SpladeEncoder:  # noqa: ARG002 (int8 alone needs it)
        return SpladeEncoder(self)


class SpladeEncoder(TextEncoder):
    """A SPLADE model, loaded on torch. Several threads may use it at once.

    Raises:
        EncoderError: if the weights can't be loaded, or a GPU is configured and there is none.
        MissingExtraError: if torch is not installed.
    """

    def __init__(self, model: SpladeModel) -> None:
        pooling, activation = model.facts.pooling.split()
        load = partial(_load_modules, pooling, activation == "log1p_relu")
        super().__init__(model, model.files, load=lambda files, _: load_on_torch(files, load))

    def encode(self, inputs: pa.Table, *, query: bool = False, advance: Callable[[int], None] | None = None) -> Encoded:
        """See `Encoder.encode`; vectors are sparse, and empty for a text that gives no word a weight."""
        texts = inputs.column("text").to_pylist()
        tokens, dropped = self._tokenize(texts, query, token_ids_of(inputs))
        nothing = np.zeros(0, np.int64), np.zeros(0, np.float32)
        vectors: list[tuple[Any, Any]] = [nothing] * len(texts)

        def finished(rows: NDArray[np.int64], found: NDArray[np.float32]) -> None:
            for row, weights in zip(rows, found, strict=True):
                words = np.flatnonzero(weights)
                vectors[row] = words, weights[words]
            if advance is not None:
                advance(int(tokens.lengths[rows].sum()))

        ran = self._engine.run(tokens, finished)
        return Encoded(sparse_array(vectors), tokens.lengths, dropped, Work(ran.padded, ran.busy_seconds))


def describe(config: EncoderConfig, source: ModelSource) -> SpladeModel:
    """Reads a model's files and fingerprints its space.

    Raises:
        ConfigurationError: if the folder holds another kind of model, or the model can't do what the configuration
            says.
        EncoderError: if the weights are not the pinned ones.
    """
    if config.dimensions is not None:
        raise ConfigurationError(
            f"encoder.dimensions: {config.model} makes sparse vectors, with a dimension for each word that it knows",
            "remove encoder.dimensions",
        )
    check_runs_on_torch(config, "SPLADE models")
    folder = source.folder()
    root, pooling = _layout(folder)
    settings = read_json(root / "config.json")
    architectures = settings.get("architectures") or []
    if not any(str(name).endswith("ForMaskedLM") for name in architectures):
        raise ConfigurationError(
            f"encoder.model: {root / 'config.json'} names {', '.join(map(str, architectures)) or 'no architecture'}, "
            "not a masked language model: its head would be random numbers",
            "name a folder that SparseEncoder.save_pretrained wrote, or remove encoder.family for dense vectors",
        )
    check_tokenizer(root, root)
    lower = bool(read_json(root / "sentence_bert_config.json").get("do_lower_case"))
    dimensions = int(settings["vocab_size"])
    found = facts_of_transformer(
        config,
        source,
        folder,
        root,
        settings=settings,
        lower=lower,
        dimensions=dimensions,
        own_tokens=own_token_limit(root, settings),
    )
    facts = TextFacts(**found, pooling=pooling, dimensions=dimensions, normalize=False)
    files = files_of_transformer(config, root, root, facts, settings)
    return SpladeModel(facts, files, lower)


def _layout(folder: Path) -> tuple[Path, str]:
    """The folder of the transformer, and how logits are pooled: a mode and an activation."""
    modules: dict[str, str] = {}
    for module in read_json(folder / "modules.json").get("", []):
        modules.setdefault(str(module["type"]).rsplit(".", 1)[-1], str(module["path"]))
    unknown = set(modules) - {*_TRANSFORMERS, "SpladePooling"}
    if unknown:
        raise ConfigurationError(
            f"encoder.model: {folder} has modules that are not supported: {', '.join(sorted(unknown))}",
            "use a SPLADE model of a masked language model and SpladePooling; models without inference for queries "
            "(Router, SparseStaticEmbedding) are not supported",
        )
    if modules and "SpladePooling" not in modules:
        raise ConfigurationError(
            f"encoder.model: {folder} holds no SpladePooling: it is not a SPLADE model",
            "remove encoder.family for dense vectors",
        )
    root = folder / next((modules[name] for name in _TRANSFORMERS if name in modules), "")
    if not read_json(root / "config.json"):
        raise ConfigurationError(
            f"encoder.model: {root} holds no config.json", "name the folder that SparseEncoder.save_pretrained wrote"
        )
    settings = read_json(folder / modules["SpladePooling"] / "config.json") if modules else {}
    pooling, activation = settings.get("pooling_strategy", "max"), settings.get("activation_function", "relu")
    if pooling not in POOLINGS or activation not in ACTIVATIONS:
        raise ConfigurationError(
            f"encoder.model: SpladePooling in {folder} has pooling_strategy {pooling!r} and activation_function "
            f"{activation!r}",
            f"vecbeam supports {' and '.join(POOLINGS)}, with {' and '.join(ACTIVATIONS)}",
        )
    return root, f"{pooling} {activation}"


def _load_modules(pooling: str, twice: bool, folder: str, device: str) -> Any:
    """A torch module from input ids and mask to weights, float32[n, words], in evaluation mode.

    Args:
        twice: whether the logarithm is taken twice.

    Raises:
        EncoderError: if the files are damaged, hold no head, or logits are not what the head's last layer gives.
    """
    import torch

    make_importable()
    from transformers import AutoModelForMaskedLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        language_model, found = AutoModelForMaskedLM.from_pretrained(
            folder,
            trust_remote_code=False,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # the library raises errors of many kinds for damaged files
        raise EncoderError(f"can't load the model in {folder}: {error}", "check the folder's files") from error
    if found["missing_keys"]:
        raise EncoderError(
            f"the weights in {folder} are incomplete: {', '.join(sorted(found['missing_keys'])[:3])}",
            "save the whole masked language model, with its head",
        )
    language_model.eval().to(device)
    probe = torch.tensor([[5, 6, 7]], device=device)
    with torch.inference_mode():
        expected = language_model(input_ids=probe).logits
    words = language_model.get_output_embeddings()
    for parent in list(language_model.modules()):
        for name, layer in list(parent.named_children()):
            if layer is words:
                setattr(parent, name, torch.nn.Identity())
    modules = _pooled(language_model, words, pooling, twice, _TOKENS_ON_CPU if device == "cpu" else _TOKENS_ON_GPU)
    with torch.inference_mode():
        agrees = words is not None and torch.allclose(
            words(language_model(input_ids=probe).logits), expected, atol=1e-4
        )
    if not agrees:
        raise EncoderError(
            f"the logits of the model in {folder} are not those of its last layer", "use another SPLADE model"
        )
    return modules


def _pooled(language_model: Any, words: Any, pooling: str, twice: bool, step: int) -> Any:
    import torch

    def weights_of(logits: Any) -> Any:
        once = torch.log1p(torch.relu(logits))
        return torch.log1p(once) if twice else once

    class Splade(torch.nn.Module):  # type: ignore[misc]  # here, so that this file imports without torch
        def __init__(self) -> None:
            super().__init__()
            self.language_model = language_model
            self.words = words

        def forward(self, features: dict[str, Any]) -> dict[str, Any]:
            hidden = self.language_model(**features).logits
            rows = zip(hidden, features["attention_mask"].sum(dim=1).tolist(), strict=True)
            return {"sentence_embedding": torch.stack([self.pool(row[:length]) for row, length in rows])}

        def pool(self, hidden: Any) -> Any:
            """Weights of a text, float32[words], from what its tokens give to the last layer."""
            pieces = (self.words(hidden[at : at + step]) for at in range(0, len(hidden), step))
            if pooling == "sum":
                return torch.stack([weights_of(piece).sum(dim=0) for piece in pieces]).sum(dim=0)
            return weights_of(torch.stack([piece.amax(dim=0) for piece in pieces]).amax(dim=0))

    return Splade().eval()
