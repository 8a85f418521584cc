"""vecbeam's own kernels against the library's output: each length and size, each precision, what they don't support."""

from __future__ import annotations

import gc
import json
import platform
import shutil
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import TEXTS, save_model

from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError, EncoderError
from transforms.encoders import resolve, text_inputs
from transforms.encoders.engines import processor
from transforms.encoders.engines.amx import engine as amx_engine
from transforms.encoders.engines.amx import library
from transforms.encoders.engines.probe import Probe

needs_amx = pytest.mark.skipif(not processor.flags() >= library.NEEDED, reason="this processor has no AMX")
SIZES: dict[str, Any] = {
    "hidden_size": 96,
    "num_attention_heads": 3,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "max_position_embeddings": 600,
    "initializer_range": 0.15,
}
ROWS = ["word " * size for size in range(150)] + TEXTS + ["naïve café " * 90, "", "a [PAD] within [PAD]"]
MODELS = {
    "bert": {},
    "bert of two heads of 64": {"hidden_size": 128, "num_attention_heads": 2},
    "bert of its first token, not normalized": {"pooling": "cls", "others": ()},
    "roberta": {"kind": "roberta"},
}


def save(folder: Path, **changes: Any) -> Path:
    return save_model(folder, **({"others": ("Normalize",), "limit": 512} | SIZES | changes))


@pytest.fixture(scope="module", params=MODELS)
def each_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("amx"), **MODELS[request.param])


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("amx"))


def library_vectors(folder: Path, texts: list[str]) -> np.ndarray[Any, Any]:
    from sentence_transformers import SentenceTransformer

    vectors: np.ndarray[Any, Any] = SentenceTransformer(str(folder), device="cpu").encode(texts)
    return vectors


def cosine(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def load(folder: Path, **settings: Any) -> Any:
    return resolve(EncoderConfig(model=str(folder), **settings)).load()


@needs_amx
def test_the_kernels_are_compiled_where_there_is_a_compiler() -> None:
    if not shutil.which("g++") or sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("there is no C++ compiler for this platform here")
    assert library.lacking() == ""


@needs_amx
def test_float32_is_the_library_s_at_each_length(each_model: Path) -> None:
    encoder = load(each_model, normalize=False)
    assert {
        "engine": "amx",
        "precision": "float32",
        "products": "three of int8",
    }.items() <= encoder.runtime().items()
    found = encoder.encode(text_inputs(ROWS))
    expected = library_vectors(each_model, ROWS)
    assert cosine(found.matrix, expected).min() >= 0.99999
    assert np.abs(found.matrix - expected).max() <= 5e-3 * np.abs(expected).max()
    assert found.amount.min() == 2
    assert found.busy_seconds > 0
    assert 0 < found.work.padded < 0.5 * found.amount.sum()


@needs_amx
def test_bfloat16_is_near_the_library_s_at_each_length(each_model: Path) -> None:
    encoder = load(each_model, precision="bfloat16")
    assert {"engine": "amx", "precision": "bfloat16", "products": "bfloat16"}.items() <= encoder.runtime().items()
    similar = cosine(encoder.encode(text_inputs(ROWS)).matrix, library_vectors(each_model, ROWS))
    assert similar.mean() >= 0.9999
    assert similar.min() >= 0.999


@needs_amx
def test_the_packaged_model_in_both_precisions() -> None:
    exact = resolve(EncoderConfig(engine="torch")).load().encode(text_inputs(ROWS)).matrix
    for precision, least in (("float32", 0.999995), ("bfloat16", 0.9999)):
        encoder = resolve(EncoderConfig(precision=precision)).load()
        assert encoder.runtime()["engine"] == "amx"
        assert cosine(encoder.encode(text_inputs(ROWS)).matrix, exact).min() >= least


@needs_amx
def test_numbers_that_are_spread_too_wide_for_integers(bert: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "spread"
    shutil.copytree(bert, folder)
    weights = load_file(folder / "model.safetensors")
    for number in range(SIZES["num_hidden_layers"]):
        # One channel is hundreds of times the others, and what follows evens that out.
        layer = next(name.split("attention")[0] for name in weights if f"layer.{number}.attention" in name)
        weights[f"{layer}attention.output.LayerNorm.weight"][5] *= 400
        weights[f"{layer}intermediate.dense.weight"][:, 5] /= 400
        weights[f"{layer}output.LayerNorm.weight"] *= 40
        weights[f"{layer}output.LayerNorm.weight"][5] /= 40
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    encoder = load(folder)
    assert {"engine": "amx", "products": "three of bfloat16"}.items() <= encoder.runtime().items()
    assert cosine(encoder.encode(text_inputs(ROWS)).matrix, library_vectors(folder, ROWS)).min() >= 0.99999


@needs_amx
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_number_that_is_not_finite_stays_in_its_text(bert: Path, precision: str, number: float) -> None:
    encoder = load(bert, precision=precision)
    texts = ["word", "ships", "two short words", "one"]
    before = encoder.encode(text_inputs(texts)).matrix
    (token,) = encoder._tokenizer.encode("ships", add_special_tokens=False).ids
    encoder._engine._embeddings[0][token, 7] = number  # the kernels read the embeddings where they lie
    after = encoder.encode(text_inputs(texts)).matrix
    assert np.isnan(after[1]).all()
    assert np.array_equal(after[[0, 2, 3]], before[[0, 2, 3]])


@needs_amx
@pytest.mark.parametrize("texts", [[], ["alone"], ["same words"] * 40, ["word " * 1_000_000, "short"], [""]])
def test_odd_tables(bert: Path, texts: list[str]) -> None:
    found = load(bert, engine="amx").encode(text_inputs(texts))
    assert found.matrix.shape == ((len(texts), 96) if texts else (0, 0))
    assert not texts or cosine(found.matrix, library_vectors(bert, [text[:10_000] for text in texts])).min() >= 0.99999
    assert found.dropped.sum() == (1_000_002 - 512 if texts and len(texts[0]) > 10_000 else 0)


@needs_amx
@pytest.mark.parametrize("batch_tokens", [64, 100_000])
def test_threads_share_one_encoder_and_vectors_do_not_follow_from_batches(bert: Path, batch_tokens: int) -> None:
    expected = load(bert).encode(text_inputs(ROWS)).matrix
    encoder = load(bert, batch_tokens=batch_tokens)
    found: list[np.ndarray[Any, Any]] = []
    threads = [
        threading.Thread(target=lambda: found.append(encoder.encode(text_inputs(ROWS)).matrix)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(np.array_equal(vectors, expected) for vectors in found)


@needs_amx
def test_a_model_is_let_go_of(bert: Path) -> None:
    encoder = load(bert)
    encoder.encode(text_inputs(ROWS[:3]))
    engine = weakref.ref(encoder._engine)
    del encoder
    gc.collect()
    assert engine() is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": "distilbert"}, "model_type is distilbert"),
        ({"hidden_act": "relu"}, "hidden_act is relu"),
        ({"num_attention_heads": 6}, "multiples of 32"),
        ({"intermediate_size": 100}, "multiples of 32"),
        ({"others": ("Dense", "Normalize")}, "Dense"),
        ({"pooling": "max"}, "max"),
    ],
)
def test_a_model_that_the_kernels_don_t_know(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    others = {"others": ("Normalize",)}
    folder = save_model(tmp_path, **(others | changes)) if "kind" in changes else save(tmp_path, **changes)
    with pytest.raises(ConfigurationError, match=reason):
        resolve(EncoderConfig(model=str(folder), engine="amx"))
    encoder = load(folder)
    assert encoder.runtime()["engine"] != "amx"
    assert cosine(encoder.encode(text_inputs(TEXTS)).matrix, library_vectors(folder, TEXTS)).min() >= 0.99999


def test_a_processor_without_amx(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "flags", lambda: frozenset({"avx2", "avx512f"}))
    assert load(bert).runtime()["engine"] == "openvino"
    with pytest.raises(EncoderError, match="this processor has no AMX"):
        load(bert, engine="amx")


def test_an_installation_without_a_compiler(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "flags", lambda: library.NEEDED)
    monkeypatch.setattr(library, "path", lambda: None)
    assert load(bert).runtime()["engine"] == "openvino"
    with pytest.raises(EncoderError, match=r"C\+\+ compiler"):
        load(bert, engine="amx")


@needs_amx
def test_kernels_of_another_version(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "VERSION", -1)
    assert load(bert).runtime()["engine"] == "openvino"
    with pytest.raises(EncoderError, match="install vecbeam again"):
        load(bert, engine="amx")


@needs_amx
def test_vectors_are_held_against_torch_s_once_a_machine(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("VECBEAM_CACHE", str(tmp_path))
    made: list[Probe] = []
    real = Probe.of

    def counted(modules: Any, limit: int) -> Probe:
        made.append(real(modules, limit))
        return made[-1]

    monkeypatch.setattr(amx_engine.Probe, "of", counted)
    load(bert)
    load(bert)
    assert len(made) == 1
    load(bert, precision="bfloat16")
    assert len(made) == 2
    for file in tmp_path.glob("*/comparison.json"):
        file.write_text('{"cosine": 2.0}')
    load(bert)
    assert len(made) == 3
    assert "damaged" in caplog.text


@needs_amx
def test_other_vectors_than_torch_s_are_not_embedded_with(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("VECBEAM_CACHE", str(tmp_path))
    run = amx_engine.AMXEngine.run

    def wrong(self: Any, tokens: Any, finished: Any) -> Any:
        return run(self, tokens, lambda rows, vectors: finished(rows, vectors + 0.1))

    monkeypatch.setattr(amx_engine.AMXEngine, "run", wrong)
    encoder = load(bert)
    assert encoder.runtime()["engine"] == "openvino"
    assert "differ from torch's" in caplog.text
    with pytest.raises(EncoderError, match="differ from torch's"):
        load(bert, engine="amx")


@needs_amx
def test_a_tokenizer_of_another_model(bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(bert, folder)
    settings = json.loads((folder / "tokenizer.json").read_text())
    settings["model"]["vocab"]["word"] = 4000
    (folder / "tokenizer.json").write_text(json.dumps(settings))
    with pytest.raises(EncoderError, match="token ids up to 4000"):
        load(folder, engine="amx").encode(text_inputs(["a word"]))


@needs_amx
@pytest.mark.parametrize("engine", ["amx", "auto"])
def test_damaged_weights(bert: Path, tmp_path: Path, engine: str) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(bert, folder)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(EncoderError, match="damaged"):
        load(folder, engine=engine)


@needs_amx
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_of_half_precision(bert: Path, tmp_path: Path, dtype: str) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "half"
    shutil.copytree(bert, folder)
    file = folder / "model.safetensors"
    weights = load_file(file)
    save_file({name: tensor.to(getattr(torch, dtype)) for name, tensor in weights.items()}, file, {"format": "pt"})
    encoder = load(folder)
    assert cosine(encoder.encode(text_inputs(TEXTS)).matrix, library_vectors(bert, TEXTS)).min() >= 0.999


@needs_amx
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda weights: weights.pop("encoder.layer.1.output.dense.bias"), "encoder.layer.1.output.dense.bias"),
        (lambda weights: weights.pop("embeddings.word_embeddings.weight"), "0 tensors named"),
        (lambda weights: weights.update({"embeddings.LayerNorm.bias": np.zeros(95, np.float32)}), r"\(95,\)"),
    ],
)
def test_weights_that_are_not_what_the_settings_say(bert: Path, tmp_path: Path, damage: Any, message: str) -> None:
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "damaged"
    shutil.copytree(bert, folder)
    weights = load_file(folder / "model.safetensors")
    damage(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(EncoderError, match=message):
        load(folder, engine="amx")
