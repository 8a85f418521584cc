"""The catalogue: entries, and each one's architecture, small, against the library's own vectors."""

from __future__ import annotations

import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from models import TEXTS, save_model

from schemas.config import Config, EncoderConfig
from schemas.errors import ConfigurationError, EncoderError
from schemas.layout import item_schema
from schemas.modality import Modality
from transforms.embed.work import with_facts
from transforms.encoders import CATALOGUE, resolve, text_inputs
from transforms.encoders.catalogue import CatalogueEntry
from transforms.encoders.model_source import _say

OTHER = "f" * 40
"""A revision that is not the pinned one, so that small models may stand for large ones."""


class Architecture(NamedTuple):
    kind: str
    pooling: str = "mean"
    others: tuple[str, ...] = ("Normalize",)
    prompts: bool = False
    """Whether the model's own files name its prompts."""


BERT = Architecture("bert")
CLS = Architecture("bert", "cls")
E5 = Architecture("xlm-roberta")
ARCHITECTURES = {
    "all-MiniLM-L6-v2": BERT,
    "all-MiniLM-L12-v2": BERT,
    "all-mpnet-base-v2": Architecture("mpnet"),
    "multilingual-e5-small": BERT,
    "multilingual-e5-base": E5,
    "multilingual-e5-large": E5,
    "bge-small-en-v1.5": CLS,
    "bge-base-en-v1.5": CLS,
    "bge-large-en-v1.5": CLS,
    "bge-m3": Architecture("xlm-roberta", "cls"),
    "gte-modernbert-base": Architecture("modernbert", "cls", ()),
    "Qwen3-Embedding-0.6B": Architecture("qwen3", "lasttoken", prompts=True),
    "embeddinggemma-300m": Architecture("gemma3_text", "mean", ("Wider", "Narrower", "Normalize"), prompts=True),
    "distiluse-base-multilingual-cased-v2": Architecture("distilbert", "mean", ("Tanh",)),
    "static-retrieval-mrl-en-v1": Architecture("static"),
}
ON_HUB = {name: entry for name, entry in CATALOGUE.items() if entry.hub_id and entry.family == "sentence_transformers"}
"""The others are in a package, or of media, and tested with their family."""
DISTINCT = {
    (ARCHITECTURES[name], entry.prompt, entry.query_prompt): name for name, entry in reversed(ON_HUB.items())
}.values()
"""One entry of each architecture and prompts."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@cache
def saved(place: Path, name: str) -> Path:
    """A small model of an entry's architecture with seeded random weights, as the library saves it."""
    import torch
    from sentence_transformers.sentence_transformer.modules import Dense

    architecture, entry = ARCHITECTURES[name], CATALOGUE[name]
    folder = place / name
    if architecture.kind == "static":
        return save_static(folder)
    torch.manual_seed(1)
    dense = {
        "Wider": lambda: Dense(32, 96, bias=False, activation_function=torch.nn.Identity()),
        "Narrower": lambda: Dense(96, 32, bias=False, activation_function=torch.nn.Identity()),
        "Tanh": lambda: Dense(32, 24, activation_function=torch.nn.Tanh()),
    }
    others = [dense[other]() if other in dense else other for other in architecture.others]
    prompts = {"query": entry.query_prompt, "document": entry.prompt} if architecture.prompts else None
    return save_model(folder, architecture.kind, prompts, architecture.pooling, others)


def save_static(folder: Path) -> Path:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(saved(folder.parent, "all-MiniLM-L6-v2") / "tokenizer.json"))
    table = np.random.default_rng(0).standard_normal((tokenizer.get_vocab_size(), 32), dtype=np.float32)
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, table)], device="cpu").save_pretrained(str(folder))
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the hub's client keeps its downloads in; the hub itself is not there."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    _say.cache_clear()
    return tmp_path


def download(hub: Path, entry: CatalogueEntry, model: Path, revision: str) -> None:
    """Puts a model where the hub's client would have put an entry's files."""
    folder = hub / f"models--{entry.hub_id.replace('/', '--')}"
    shutil.copytree(model, folder / "snapshots" / revision)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(revision)


def config_of(**encoder: Any) -> Config:
    """A configuration with such an encoder, and short chunks."""
    values: dict[str, Any] = {"name": "c", "corpus": {"paths": ["x"]}, "checkpoint": "c", "collection": {"uri": "m.db"}}
    return Config(**values, encoder=encoder, chunk={"max_tokens": 40, "overlap_tokens": 0})


@pytest.mark.parametrize("name", DISTINCT)
def test_an_entry_s_architecture_gives_the_library_s_vectors(name: str, place: Path, hub: Path) -> None:
    from sentence_transformers import SentenceTransformer

    entry, folder = CATALOGUE[name], saved(place, name)
    download(hub, entry, folder, OTHER)
    config = EncoderConfig(model=name, revision=OTHER, engine="torch")
    model = resolve(config)
    assert (model.facts.prompt, model.facts.query_prompt) == (entry.prompt, entry.query_prompt)  # type: ignore[attr-defined]
    library, encoder = SentenceTransformer(str(folder), device="cpu"), model.load()
    for query, prompt in ((False, entry.prompt), (True, entry.query_prompt)):
        expected = library.encode(TEXTS, prompt=prompt or None, normalize_embeddings=True)
        found = encoder.encode(text_inputs(TEXTS), query=query)
        assert np.allclose(np.linalg.norm(found.matrix, axis=1), 1, atol=1e-5)
        assert (found.matrix * expected).sum(axis=1).min() >= 0.99999


def test_chunks_of_a_static_embedding_have_the_tokens_that_it_takes(place: Path) -> None:
    folder = str(saved(place, "static-retrieval-mrl-en-v1"))
    model = resolve(EncoderConfig(model=folder))
    items = pa.table({"item_id": ["a"], "@uri": ["u"], "@place": ["1"], "@content": [TEXTS[2]]}, item_schema({}))
    chunks = model.chunker(config_of(model=folder), Modality.TEXT).chunk(with_facts(items, b"")).chunks
    encoded = model.load().encode(chunks)
    assert chunks.column("tokens").to_pylist() == encoded.amount.tolist()
    assert np.array_equal(encoded.matrix, model.load().encode(text_inputs([TEXTS[2]])).matrix)


def test_a_catalogue_name_brings_prompts_and_a_hub_id_means_the_files_as_they_are(place: Path, hub: Path) -> None:
    entry = CATALOGUE["multilingual-e5-small"]
    download(hub, entry, saved(place, entry.name), OTHER)
    named = resolve(EncoderConfig(model=entry.name, revision=OTHER)).facts  # type: ignore[attr-defined]
    by_id = resolve(EncoderConfig(model=entry.hub_id, revision=OTHER)).facts  # type: ignore[attr-defined]
    own = resolve(EncoderConfig(model=entry.name, revision=OTHER, prompt="")).facts  # type: ignore[attr-defined]
    assert (named.prompt, by_id.prompt, own.prompt) == ("passage: ", "", "")
    assert (named.query_prompt, by_id.query_prompt, own.query_prompt) == ("query: ", "", "query: ")


def test_files_that_differ_from_the_entry_count_and_are_told(
    place: Path, hub: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entry = CATALOGUE["Qwen3-Embedding-0.6B"]
    folder = hub / "model"
    shutil.copytree(saved(place, entry.name), folder)
    settings = folder / "config_sentence_transformers.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "prompts": {"query": "find: "}}))
    download(hub, entry, folder, OTHER)
    for _ in range(2):
        model = resolve(EncoderConfig(model=entry.name, revision=OTHER))
    assert model.facts.query_prompt == "find: "  # type: ignore[attr-defined]
    [said] = [record.getMessage() for record in caplog.records if entry.name in record.getMessage()]
    assert (
        "dimensions 32, the catalogue has 1024; max_tokens 48, the catalogue has 32768; prompts ('', 'find: ')" in said
    )


def test_other_weights_than_the_pinned_ones_are_refused(place: Path, hub: Path) -> None:
    entry = CATALOGUE["all-mpnet-base-v2"]
    download(hub, entry, saved(place, entry.name), entry.revision)
    for model in (entry.name, entry.hub_id):
        with pytest.raises(EncoderError, match=f"pinned is {entry.weights_sha256}"):
            resolve(EncoderConfig(model=model))


def test_a_verified_entry_is_refused_where_its_files_say_otherwise(tmp_path: Path) -> None:
    from transforms.encoders.model_source import ModelSource, Prompts

    source = ModelSource(EncoderConfig())
    source.compare(384, 256, Prompts())
    with pytest.raises(EncoderError, match="max_tokens 512, the catalogue has 256"):
        source.compare(384, 512, Prompts())


def test_an_entry_that_is_not_pinned_says_how_to_pin_it(
    place: Path, hub: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from dataclasses import replace

    name = "all-MiniLM-L12-v2"
    entry = replace(CATALOGUE[name], revision="")
    monkeypatch.setitem(CATALOGUE, name, entry)
    download(hub, entry, saved(place, name), OTHER)
    newest = resolve(EncoderConfig(model=name))
    assert f"set encoder.revision: {OTHER}" in caplog.text
    caplog.clear()
    _say.cache_clear()
    assert resolve(EncoderConfig(model=name, revision=OTHER)).space.id == newest.space.id
    assert "encoder.revision" not in caplog.text
    with pytest.raises(ConfigurationError, match=r"encoder\.revision is missing"):
        resolve(EncoderConfig(model=entry.hub_id))


def test_a_gated_entry_tells_what_to_accept(hub: Path) -> None:
    with pytest.raises(EncoderError) as refused:
        resolve(EncoderConfig(model="embeddinggemma-300m"))
    assert (
        "accept the licence at https://huggingface.co/google/embeddinggemma-300m and export HF_TOKEN"
        in refused.value.remedy
    )


def test_the_limit_is_the_lower_one_of_tokenizer_and_positions(place: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = tmp_path / "copy"
    shutil.copytree(saved(place, "Qwen3-Embedding-0.6B"), folder)
    (folder / "sentence_bert_config.json").write_text("{}")
    settings = folder / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "model_max_length": 131072}))
    assert SentenceTransformer(str(folder), device="cpu").max_seq_length == 64
    assert resolve(EncoderConfig(model=str(folder))).max_tokens == 64  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "says"),
    [({"precision": "int8"}, "has no int8"), ({"dimensions": 64}, "more than the model's 32"), ({}, "tensors other")],
)
def test_what_a_static_embedding_can_t_is_refused(
    place: Path, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    from safetensors.numpy import save_file

    folder = tmp_path / "copy"
    shutil.copytree(saved(place, "static-retrieval-mrl-en-v1"), folder)
    if not change:
        [weights] = folder.rglob("*.safetensors")
        save_file({"other": np.zeros((3, 4), np.float32)}, weights)
    with pytest.raises(ConfigurationError, match=says):
        resolve(EncoderConfig(model=str(folder), **change))


def test_a_static_embedding_counts_what_is_over_the_limit_and_is_cut_to_dimensions(place: Path) -> None:
    folder = saved(place, "static-retrieval-mrl-en-v1")
    whole = resolve(EncoderConfig(model=str(folder), normalize=False)).load().encode(text_inputs(TEXTS))
    short = resolve(EncoderConfig(model=str(folder), normalize=False, max_tokens=8, dimensions=4)).load()
    found = short.encode(text_inputs(TEXTS))
    assert whole.dropped.tolist() == [0] * len(TEXTS)
    assert (found.amount + found.dropped).tolist() == whole.amount.tolist()
    assert found.dropped[4] == 500 - 8
    assert np.allclose(found.matrix[:2], whole.matrix[:2, :4], atol=1e-6)
    assert short.encode(text_inputs([""])).matrix.tolist() == [[0.0] * 4]


def test_entries_are_whole_and_pinned_as_such() -> None:
    assert {*ARCHITECTURES} == {*ON_HUB}
    for name, entry in CATALOGUE.items():
        assert entry.dimensions > 0, name
        assert (entry.max_tokens > 0) == (Modality.TEXT in entry.modalities), name
        assert entry.size_mb > 0 < len(entry.licence), name
        if entry.hub_id:
            assert entry.hub_id.rpartition("/")[2] == name
        else:
            assert entry.package, name
            assert re.fullmatch(r"[\w-]+==[\d.]+( [\w-]+==[\d.]+)?", entry.distribution), name
            assert re.fullmatch("[0-9a-f]{64}", entry.weights_sha256), name
    for name, entry in ON_HUB.items():
        assert entry.name == name
        assert re.fullmatch("[0-9a-f]{40}", entry.revision), name
        assert re.fullmatch("([0-9a-f]{64})?", entry.weights_sha256), name
    assert [entry.name for entry in CATALOGUE.values() if entry.verified] == [
        *("all-MiniLM-L6-v2", "splade-tiny", "glove-6b-50d", "efficientnet-lite0", "conse"),
        *("use-multilingual", "whisper-base", "resemblyzer"),
    ]
