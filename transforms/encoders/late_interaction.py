"""Late interaction (ColBERT): a vector for each token of a text, compared with those of a query by MaxSim.

Vectors are those of `MultiVectorEncoder.encode_document` and `encode_query` of the sentence-transformers library.
Documents go through vecbeam's engine, queries through the library's own code: how it fills them up with mask tokens is
part of how such a model was trained. ColBERT: https://arxiv.org/abs/2004.12832.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
from transforms.encoders.multi_vectors import refuse_single_vector_settings
from transforms.encoders.sentence_transformers import TorchModel
from transforms.encoders.text_encoder import TextEncoder
from transforms.encoders.text_facts import TextFacts
from transforms.encoders.transformer_text import check_runs_on_torch, facts_of_transformer, files_of_transformer
from transforms.encoders.transformers.architectures import PATCHES
from transforms.support.vectors import multi_array

Floats = NDArray[np.float32]
MODEL_TYPE = "MultiVectorEncoder"
"""What the library writes into the files of these models."""
EARLIER_TYPES = ("ColBERT", "HF_ColBERT")
"""What PyLate and Stanford's ColBERT wrote, which the library converts."""
_MODULES = ("Transformer", "Dense", "MultiVectorMask", "Normalize")


@dataclass(frozen=True)
class TokenFacts(TextFacts):
    """The facts of a space of token vectors.

    Attributes:
        tokens: which tokens have a vector, how queries are filled up, and the activations of the projections.
    """

    tokens: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LateInteractionModel(TorchModel):
    """A folder that MultiVectorEncoder can load.

    Attributes:
        facts: `TokenFacts`.
    """

    kind: ClassVar = VectorKind.MULTI

    @property
    def query_limit(self) -> int:
        """Most tokens of a query."""
        tokens: Mapping[str, Any] = self.facts.tokens  # type: ignore[attr-defined]
        expansion = tokens["query_expansion"] or {}
        own = own_token_limit(Path(self.files.transformer_folder), {})
        return int(expansion["length"]) if expansion.get("strategy") == "fixed" else tokens["query_length"] or own

    def has_vector(self, ids: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Which tokens of a document have a vector, bool[n]."""
        tokens: Mapping[str, Any] = self.facts.tokens  # type: ignore[attr-defined]
        kept = np.ones(len(ids), bool)
        if "document" in tokens["skiplist_tasks"] and tokens["skiplist"]:
            kept &= ~np.isin(ids, tokens["skiplist"])
        if tokens["keep_only"]:
            kept &= np.isin(ids, tokens["keep_only"])
        return kept

    def load(self, sample: Sequence[str] = ()) -> LateInteractionEncoder:  # noqa: ARG002 (int8 alone needs it)
        return LateInteractionEncoder(self)


class LateInteractionEncoder(TextEncoder):
    """A late interaction model, loaded on torch. Several threads may use it at once.

    Raises:
        EncoderError: if the weights can't be loaded, or a GPU is configured and there is none.
        MissingExtraError: if torch is not installed.
    """

    def __init__(self, model: LateInteractionModel) -> None:
        self._late = model

        def load(folder: str, device: str) -> Any:
            modules = _load_modules(folder, device)
            self._library = modules.library
            return modules

        super().__init__(model, model.files, load=lambda files, _: load_on_torch(files, load))

    def encode(self, inputs: pa.Table, *, query: bool = False, advance: Callable[[int], None] | None = None) -> Encoded:
        """See `Encoder.encode`; vectors are several per text, one for each token that the model scores."""
        texts = inputs.column("text").to_pylist()
        if query:
            return self._encode_queries(texts)
        tokens, dropped = self._tokenize(texts, known=token_ids_of(inputs))
        ends = np.cumsum(tokens.lengths)
        vectors: list[Floats] = [np.zeros((0, self._facts.dimensions), np.float32)] * len(texts)

        def finished(rows: NDArray[np.int64], found: Floats) -> None:
            for row, padded in zip(rows, found, strict=True):
                length = tokens.lengths[row]
                kept = self._late.has_vector(tokens.flat[ends[row] - length : ends[row]])
                vectors[row] = self._scaled(padded[:length][kept])
            if advance is not None:
                advance(int(tokens.lengths[rows].sum()))

        ran = self._engine.run(tokens, finished)
        return Encoded(multi_array(vectors), tokens.lengths, dropped, Work(ran.padded, ran.busy_seconds))

    def _encode_queries(self, texts: Sequence[str]) -> Encoded:
        found = self._library.encode_query(
            list(texts), prompt=self._facts.query_prompt, convert_to_numpy=True, show_progress_bar=False
        )
        vectors = [self._scaled(np.asarray(each, np.float32)) for each in found]
        seen = [self._model.as_seen(text, query=True) for text in texts]
        lengths = np.array([len(each) for each in self._tokenizer.encode_batch_fast(seen)], np.int64)
        dropped = np.maximum(lengths - self._late.query_limit, 0)
        return Encoded(multi_array(vectors), lengths - dropped, dropped)

    def _scaled(self, vectors: Floats) -> Floats:
        if not self._facts.normalize:
            return vectors
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)


def describe(config: EncoderConfig, source: ModelSource) -> LateInteractionModel:
    """Reads a model's files and fingerprints its space.

    Raises:
        ConfigurationError: if the folder holds another kind of model, or the model can't do what the configuration
            says.
        EncoderError: if the weights are not the pinned ones.
    """
    refuse_single_vector_settings(config, "token")
    check_runs_on_torch(config, "late interaction models")
    folder = source.folder()
    if read_json(folder / "config.json").get("model_type") in PATCHES:
        raise ConfigurationError(
            f"encoder.family: colbert is for texts, and {config.model} is a model of pictures",
            "remove encoder.family, or set it to transformers",
        )
    modules = _modules(folder)
    root = folder / modules["Transformer"][0]
    settings, own = read_json(root / "config.json"), read_json(root / "sentence_bert_config.json")
    for name, content in (("config.json", settings), ("tokenizer.json", (root / "tokenizer.json").exists())):
        if not content:
            raise ConfigurationError(
                f"encoder.model: {root} holds no {name}",
                "name the folder that MultiVectorEncoder.save_pretrained wrote",
            )
    dense = modules.get("Dense", [])
    projections = [read_json(folder / path / "config.json") for path in dense]
    dimensions = int(projections[-1]["out_features"] if projections else settings["hidden_size"])
    lower = bool(own.get("do_lower_case"))
    own_tokens = own.get("document_length") or own_token_limit(root, settings)
    found = facts_of_transformer(
        config,
        source,
        folder,
        root,
        settings=settings,
        lower=lower,
        dimensions=dimensions,
        own_tokens=own_tokens,
        dense=dense,
    )
    masks = [read_json(folder / path / "config.json") for path in modules.get("MultiVectorMask", [])]
    facts = TokenFacts(
        **found,
        pooling="tokens",
        dimensions=dimensions,
        normalize=config.normalize or "Normalize" in modules,
        tokens={
            "query_length": own.get("query_length"),
            "query_expansion": own.get("query_expansion"),
            **_scored(root, masks[0] if masks else {}),
            "projections": [[each.get("activation_function"), bool(each.get("use_residual"))] for each in projections],
        },
    )
    files = files_of_transformer(config, folder, root, facts, settings, modules)
    return LateInteractionModel(facts, files, lower)


def _modules(folder: Path) -> dict[str, list[str]]:
    """The kinds of modules in a folder, with their folders.

    Raises:
        ConfigurationError: if these are not those of a late interaction model as the library saves it.
    """
    kind = read_json(folder / "config_sentence_transformers.json").get("model_type")
    architectures = read_json(folder / "config.json").get("architectures") or []
    if kind in EARLIER_TYPES or set(architectures) & set(EARLIER_TYPES):
        raise ConfigurationError(
            f"encoder.model: {folder} is a ColBERT model in the format of an earlier library",
            f"convert it: sentence_transformers.MultiVectorEncoder({str(folder)!r}).save_pretrained(FOLDER)",
        )
    if kind != MODEL_TYPE:
        raise ConfigurationError(
            f"encoder.model: {folder} is not a late interaction model: MultiVectorEncoder would add a projection of "
            "random numbers",
            f"name a folder that {MODEL_TYPE}.save_pretrained wrote, or remove encoder.family for one vector per text",
        )
    modules: dict[str, list[str]] = {}
    for module in read_json(folder / "modules.json").get("", []):
        modules.setdefault(str(module["type"]).rsplit(".", 1)[-1], []).append(str(module["path"]))
    unknown = set(modules) - set(_MODULES)
    if unknown or "Transformer" not in modules:
        said = f"has modules that are not supported: {', '.join(sorted(unknown))}" if unknown else "has no Transformer"
        raise ConfigurationError(f"encoder.model: {folder} {said}", f"use a model of {', '.join(_MODULES)}")
    return modules


def _scored(root: Path, mask: Mapping[str, Any]) -> dict[str, Any]:
    """Which tokens have a vector: the facts of a MultiVectorMask."""
    from tokenizers import Tokenizer

    words = mask.get("skiplist_words") or []
    ids: list[int] = []
    if words:
        tokenizer = Tokenizer.from_file(str(root / "tokenizer.json"))
        # As the library does: a word that is not one token would take all unknown tokens away.
        found = (tokenizer.token_to_id(word) for word in words)
        ids = sorted(at for at in found if at is not None)
    tasks = mask.get("skiplist_tasks") or ["document"]
    return {"skiplist": ids, "skiplist_tasks": sorted(tasks), "keep_only": mask.get("keep_only_token_ids") or []}


def _load_modules(folder: str, device: str) -> Any:
    """A torch module from input ids and mask to the vectors of all tokens, float32[n, tokens, dimensions].

    Its `library` is the library's whole model.

    Raises:
        EncoderError: if the files are damaged.
    """
    import torch

    make_importable()
    from sentence_transformers import MultiVectorEncoder
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        library = MultiVectorEncoder(
            folder,
            device=device,
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"use_safetensors": True},
        ).eval()
    except Exception as error:  # the libraries raise errors of many kinds for damaged files
        raise EncoderError(f"can't load the model in {folder}: {error}", "check the folder's files") from error

    class TokenModules(torch.nn.Module):  # type: ignore[misc]  # here, so that this file imports without torch
        def __init__(self) -> None:
            super().__init__()
            self.library = library

        def forward(self, features: dict[str, Any]) -> dict[str, Any]:
            for module in self.library:
                if type(module).__name__ != "MultiVectorMask":  # `has_vector` is the mask, where token ids are known
                    features = module(features)
            return {"sentence_embedding": features["token_embeddings"]}

    return TokenModules().eval()
