"""Engines against the library's own output: torch and OpenVINO, with and without padding, and what goes wrong."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import WORDS
from models import KINDS, TEXTS, save_model
from pydantic import ValidationError

from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError, EncoderError, InterruptedRunError
from transforms.encoders import resolve, text_inputs
from transforms.encoders.engines import TokenTable, choice, processor
from transforms.encoders.engines.openvino import conversion
from transforms.encoders.engines.openvino.int8 import loss
from transforms.encoders.engines.torch import engine as torch_engine
from transforms.encoders.engines.torch.engine import TorchEngine

ENGINES = ("torch", "openvino")
ROWS = [f"text {number} " + "of some words " * (number % 9) for number in range(60)]


@pytest.fixture(scope="module", params=KINDS)
def each_kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("bert"))


def cosine(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def library(folder: Path, texts: list[str]) -> np.ndarray[Any, Any]:
    from sentence_transformers import SentenceTransformer

    vectors: np.ndarray[Any, Any] = SentenceTransformer(str(folder), device="cpu").encode(texts)
    return vectors


def vectors_of(folder: Path, texts: list[str], **settings: Any) -> np.ndarray[Any, Any]:
    return resolve(EncoderConfig(model=str(folder), **settings)).load().encode(text_inputs(texts)).matrix


@pytest.mark.parametrize("engine", ENGINES)
def test_float32_is_the_library_s(each_kind: Path, engine: str) -> None:
    model = resolve(EncoderConfig(model=str(each_kind), engine=engine))
    if engine == "openvino" and each_kind.parent.name.startswith("modernbert"):
        # With padding beyond its window OpenVINO's attention gives NaN.
        with pytest.raises(EncoderError, match="differ from torch's"):
            model.load()
        model = resolve(EncoderConfig(model=str(each_kind)))
        engine = "torch"
    encoder = model.load()
    found = encoder.encode(text_inputs(TEXTS + ROWS))
    assert encoder.runtime()["engine"] == engine
    assert encoder.runtime()["precision"] == "float32"
    assert cosine(found.matrix, library(each_kind, TEXTS + ROWS)).min() >= 0.99999
    assert found.work.busy_seconds > 0


@pytest.mark.parametrize("engine", ENGINES)
def test_bfloat16_of_the_packaged_model(engine: str) -> None:
    exact = resolve(EncoderConfig()).load().encode(text_inputs(ROWS)).matrix
    encoder = resolve(EncoderConfig(precision="bfloat16", engine=engine)).load()
    assert cosine(exact, encoder.encode(text_inputs(ROWS)).matrix).mean() >= 0.9999
    assert encoder.runtime()["precision"] == ("bfloat16" if processor.has_bfloat16() else "float32")


@pytest.mark.parametrize("threads", [1, 2])
def test_torch_has_a_batch_on_each_core_and_leaves_torch_s_threads_alone(bert: Path, threads: int) -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        encoder = resolve(EncoderConfig(model=str(bert), engine="torch", batch_tokens=64)).load()
        for texts in (ROWS, ROWS[:1], []):
            found = encoder.encode(text_inputs(texts))
            assert found.matrix.shape == ((len(texts), 24) if texts else (0, 0))
            assert not texts or cosine(found.matrix, library(bert, texts)).min() >= 0.99999
            assert torch.get_num_threads() == threads
        assert encoder.runtime()["streams"] == str(threads)
    finally:
        torch.set_num_threads(before)


def test_without_padding_vectors_are_the_same(each_kind: Path) -> None:
    model = resolve(EncoderConfig(model=str(each_kind), batch_tokens=200))
    padded, packed = TorchEngine(model.files, ["cpu"], packed=False), TorchEngine(model.files, ["cpu"], packed=True)
    tokenizer = model.tokenizer()
    tokenizer.enable_truncation(48)
    texts = [*TEXTS, *ROWS, "a [PAD] within"]
    tokens = TokenTable.of([encoding.ids for encoding in tokenizer.encode_batch(texts)], 48)
    found = []
    for engine in (padded, packed):
        vectors = np.full((len(tokens.lengths), 24), np.nan, np.float32)
        ran = engine.run(tokens, vectors.__setitem__)
        found.append((vectors, ran.padded, engine.runtime()["attention"]))
    assert found[0][2] == "padded"
    assert found[0][1] > 0
    assert found[1][1:] == (0, "packed")
    assert cosine(found[0][0], found[1][0]).min() >= 0.99999


def test_a_model_whose_attention_can_t_be_exchanged_runs_with_padding(
    bert: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import transformers

    monkeypatch.setattr(transformers.BertModel, "_supports_attention_backend", False)
    engine = TorchEngine(resolve(EncoderConfig(model=str(bert))).files, ["cpu"], packed=True)
    assert engine.runtime()["attention"] == "padded"
    assert "runs with padding" in caplog.text


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("texts", [["alone"], ["same words"] * 40, ["word " * 200_000, "short"], [""]])
def test_odd_tables(bert: Path, engine: str, texts: list[str]) -> None:
    found = resolve(EncoderConfig(model=str(bert), engine=engine)).load().encode(text_inputs(texts))
    reference = library(bert, [text[:1000] for text in texts])
    assert cosine(found.matrix, reference).min() >= 0.99999
    assert found.dropped.sum() == (200_002 - 48 if len(texts[0]) > 1000 else 0)


@pytest.mark.parametrize("engine", ENGINES)
def test_threads_share_one_encoder(bert: Path, engine: str) -> None:
    encoder = resolve(EncoderConfig(model=str(bert), engine=engine, batch_tokens=128)).load()
    expected = library(bert, ROWS)
    found: list[np.ndarray[Any, Any]] = []
    threads = [
        threading.Thread(target=lambda: found.append(encoder.encode(text_inputs(ROWS)).matrix)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert min(cosine(vectors, expected).min() for vectors in found) >= 0.99999


@pytest.mark.parametrize("engine", ENGINES)
def test_an_error_on_the_way_ends_the_table_and_not_the_process(bert: Path, engine: str) -> None:
    encoder = resolve(EncoderConfig(model=str(bert), engine=engine, batch_tokens=64)).load()
    told: list[int] = []

    def stop(tokens: int) -> None:
        told.append(tokens)
        raise InterruptedRunError("stopped")

    with pytest.raises(InterruptedRunError):
        encoder.encode(text_inputs(ROWS), advance=stop)
    assert len(told) == 1
    assert cosine(encoder.encode(text_inputs(ROWS)).matrix, library(bert, ROWS)).min() >= 0.99999


def test_what_does_not_fit_the_device_is_halved_and_remembered(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    sizes: list[int] = []
    padded = torch_engine._Replica._padded

    def small_device(self: Any, tokens: TokenTable, rows: np.ndarray[Any, Any]) -> Any:
        sizes.append(int(tokens.lengths[rows].sum()))
        if sizes[-1] > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return padded(self, tokens, rows)

    monkeypatch.setattr(torch_engine._Replica, "_padded", small_device)
    encoder = resolve(EncoderConfig(model=str(bert), engine="torch")).load()
    assert cosine(encoder.encode(text_inputs(ROWS)).matrix, library(bert, ROWS)).min() >= 0.99999
    sizes.clear()
    encoder.encode(text_inputs(ROWS))
    assert max(sizes) <= 100


def test_a_text_that_does_not_fit_alone_is_rejected_alone(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from transforms.embed.rows import Filler, _attempts
    from transforms.encoders import vector_field

    padded = torch_engine._Replica._padded

    def small_device(self: Any, tokens: TokenTable, rows: np.ndarray[Any, Any]) -> Any:
        if tokens.lengths[rows].max() >= 40:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return padded(self, tokens, rows)

    monkeypatch.setattr(torch_engine._Replica, "_padded", small_device)
    model = resolve(EncoderConfig(model=str(bert), engine="torch"))
    filler = Filler(vector_field("vector", model), model.load(), model.probe)
    found = dict(_attempts(text_inputs(["short", "word " * 100, "also short"]), 0, filler, lambda _: None))
    assert isinstance(found[1], torch.OutOfMemoryError)
    assert sum(len(outcome.matrix) for outcome in found.values() if not isinstance(outcome, Exception)) == 2


def test_a_conversion_is_kept_shared_and_whole(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("VECBEAM_CACHE", str(tmp_path / "cache"))
    made: list[str] = []
    convert = conversion.convert
    monkeypatch.setattr(conversion, "convert", lambda *given: (made.append(given[0]), convert(*given))[1])
    first = vectors_of(bert, TEXTS, engine="openvino")
    vectors_of(bert, TEXTS, engine="openvino", precision="bfloat16")
    assert len(made) == 1

    [weights] = (tmp_path / "cache").glob("*/model.bin")
    folder = weights.parent
    weights.write_bytes(weights.read_bytes()[:-8])
    assert np.array_equal(vectors_of(bert, TEXTS, engine="openvino"), first)
    assert len(made) == 1  # the compiled model is enough

    remove_compiled(tmp_path / "cache")
    assert np.array_equal(vectors_of(bert, TEXTS, engine="openvino"), first)
    assert len(made) == 2
    assert "damaged" in caplog.text
    assert list((tmp_path / "cache").glob("*/model.bin")) == [weights]

    remove_compiled(tmp_path / "cache")
    (folder / "manifest.json").unlink()
    vectors_of(bert, TEXTS, engine="openvino")
    assert len(made) == 3


def test_an_engine_that_has_run_is_freed(bert: Path) -> None:
    encoder = resolve(EncoderConfig(model=str(bert), engine="openvino")).load()
    encoder.encode(text_inputs(TEXTS))
    engine = weakref.ref(encoder._engine)  # type: ignore[attr-defined]
    del encoder
    gc.collect()
    assert engine() is None


MANY_ENGINES = """
import sys
from schemas.config import EncoderConfig
from transforms.encoders import resolve, text_inputs

for number in range(60):
    encoder = resolve(EncoderConfig(model=sys.argv[1], engine="openvino", batch_tokens=64)).load()
    encoder.encode(text_inputs(["some words " * (1 + number % 9) for number in range(20 + number)]))
    del encoder
"""


def test_many_engines_after_another_leave_the_process_whole(bert: Path) -> None:
    # With callbacks, the last holder of an engine could be one of OpenVINO's own threads, and the process aborted.
    command = [sys.executable, "-c", MANY_ENGINES, str(bert)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-2000:]


def remove_compiled(cache: Path) -> None:
    for blob in cache.glob("*/model.blob"):
        shutil.rmtree(blob.parent)


def test_a_compiled_model_is_kept_and_a_damaged_one_compiled_again(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VECBEAM_CACHE", str(tmp_path / "cache"))
    first = vectors_of(bert, TEXTS, engine="openvino")
    [blob] = (tmp_path / "cache").glob("*/model.blob")
    written = blob.stat().st_mtime_ns
    assert np.array_equal(vectors_of(bert, TEXTS, engine="openvino"), first)
    assert blob.stat().st_mtime_ns == written

    whole = blob.read_bytes()
    blob.write_bytes(whole[:-100])
    assert np.array_equal(vectors_of(bert, TEXTS, engine="openvino"), first)
    assert blob.stat().st_size == len(whole)


def test_models_with_the_same_weights_and_other_modules_are_converted_apart(bert: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(bert, bare)
    modules = json.loads((bare / "modules.json").read_text())
    (bare / "modules.json").write_text(json.dumps([m for m in modules if not m["type"].endswith("Normalize")]))
    scaled = vectors_of(bert, ROWS, engine="openvino", normalize=False)
    found = vectors_of(bare, ROWS, engine="openvino", normalize=False)
    assert np.allclose(np.linalg.norm(scaled, axis=1), 1, atol=1e-5)
    assert not np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-2)
    assert np.allclose(found, library(bare, ROWS), atol=1e-4)


def test_a_cache_that_can_t_be_written(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VECBEAM_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(EncoderError, match="VECBEAM_CACHE"):
        vectors_of(bert, TEXTS)


def test_auto_takes_torch_for_what_openvino_does_not_know(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unknown(*given: Any) -> Any:
        raise RuntimeError("no conversion rule for aten::whatever")

    monkeypatch.setenv("VECBEAM_CACHE", str(tmp_path))
    monkeypatch.setattr(conversion, "convert", unknown)
    encoder = resolve(EncoderConfig(model=str(bert))).load()
    assert encoder.runtime()["engine"] == "torch"
    assert "aten::whatever" in caplog.text
    assert not list(tmp_path.glob("*/model.*"))
    with pytest.raises(EncoderError, match="aten::whatever"):
        resolve(EncoderConfig(model=str(bert), engine="openvino")).load()


def test_auto_takes_torch_where_openvino_is_not_installed(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "is_installed", lambda *names: not {*names} & {"openvino", "nncf"})
    assert resolve(EncoderConfig(model=str(bert))).load().runtime()["engine"] == "torch"
    with pytest.raises(ConfigurationError, match=r"pip install 'vecbeam\[openvino\]'"):
        resolve(EncoderConfig(model=str(bert), engine="openvino"))
    with pytest.raises(ConfigurationError, match="nncf"):
        resolve(EncoderConfig(model=str(bert), precision="int8"))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_processor_without_bfloat16_computes_in_float32_and_says_so(
    bert: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setattr(processor, "has_bfloat16", lambda: False)
    encoder = resolve(EncoderConfig(model=str(bert), engine=engine, precision="bfloat16")).load()
    assert encoder.runtime()["precision"] == "float32"
    assert cosine(encoder.encode(text_inputs(ROWS)).matrix, library(bert, ROWS)).min() >= 0.99999


def test_int8_takes_its_ranges_from_the_sample(bert: Path) -> None:
    model = resolve(EncoderConfig(model=str(bert), precision="int8"))
    encoder = model.load(ROWS[:20])
    found = encoder.encode(text_inputs(ROWS)).matrix
    exact = library(bert, ROWS)
    assert encoder.runtime()["precision"] == "int8"
    assert 0.98 < cosine(found, exact).mean() < 0.999999
    assert np.array_equal(found, model.load(ROWS[:20]).encode(text_inputs(ROWS)).matrix)
    measured = loss(exact, found)
    assert 0.5 < measured["neighbours_kept"] <= 1
    assert measured["cosine_min"] <= measured["cosine_mean"] < 1
    with pytest.raises(EncoderError, match="no texts"):
        model.load()


def test_int8_of_the_packaged_model_at_each_length() -> None:
    places = [(size, start) for size in range(2, 60) for start in (0, 5)]
    texts = [" ".join(WORDS[(start + at) % len(WORDS)] for at in range(size)) for size, start in places]
    exact = resolve(EncoderConfig(engine="openvino")).load().encode(text_inputs(texts))
    found = resolve(EncoderConfig(precision="int8")).load(texts[::4]).encode(text_inputs(texts))
    assert cosine(exact.matrix, found.matrix).min() >= 0.95


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "int8", "engine": "torch"},
        {"precision": "int8", "device": "cuda"},
        {"engine": "openvino", "device": "cuda"},
        {"precision": "float16"},
    ],
)
def test_settings_that_don_t_go_together(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EncoderConfig(**settings)


def test_a_gpu_that_is_not_there(bert: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(EncoderError, match="no CUDA device"):
        resolve(EncoderConfig(model=str(bert), device="cuda")).load()


def test_a_model_that_leaves_its_prompt_out_of_pooling_runs_on_torch(tmp_path: Path) -> None:
    folder = save_model(tmp_path, prompts={"document": "text: ", "query": "find: "})
    pooling = next(folder.glob("*Pooling")) / "config.json"
    pooling.write_text(json.dumps(json.loads(pooling.read_text()) | {"include_prompt": False}))
    encoder = resolve(EncoderConfig(model=str(folder))).load()
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(folder), device="cpu").encode_document(TEXTS)
    assert encoder.runtime()["engine"] == "torch"
    assert cosine(encoder.encode(text_inputs(TEXTS)).matrix, reference).min() >= 0.99999
    with pytest.raises(ConfigurationError, match="prompt"):
        resolve(EncoderConfig(model=str(folder), engine="openvino"))


def test_nothing_is_reported_to_the_makers_of_openvino(bert: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    code = f"""
import sys
from schemas.config import EncoderConfig
from transforms.encoders import resolve
encoder = resolve(EncoderConfig(model={str(bert)!r}, precision="int8")).load(["a few words", "and some more"])
assert encoder.runtime()["precision"] == "int8"
assert not [name for name in sys.modules if name.startswith("openvino_telemetry.")]
"""
    home.mkdir()
    environment = os.environ | {"HOME": str(home), "VECBEAM_CACHE": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=Path(__file__).parent.parent)
    assert not (home / "intel").exists()
