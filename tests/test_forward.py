"""A torch module on several devices, and with batches that do not fit one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from schemas.config import EncoderConfig
from schemas.errors import EncoderError

torch = pytest.importorskip("torch", reason="the extra torch is not installed")

from transforms.encoders.engines.torch import forward as forward_module  # noqa: E402
from transforms.encoders.engines.torch.forward import Forward, forward  # noqa: E402

CONFIG = EncoderConfig(model="fake", dimensions=8, device="cpu", precision="float32")
ROWS = np.random.default_rng(0).normal(size=(13, 4)).astype(np.float32)


def linear() -> Any:
    torch.manual_seed(0)
    return torch.nn.Linear(4, 3)


def on_devices(count: int, monkeypatch: pytest.MonkeyPatch, call: Any) -> Forward:
    """A model on so many GPUs; this machine has none, so they are processors under the names that torch knows."""
    monkeypatch.setattr(forward_module, "gpus", lambda _: ["cpu"] * count)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "planted")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    return forward(linear(), CONFIG, call)


def test_each_device_computes_a_batch_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2, timeout=20)
    modules = set()

    def call(module: Any, rows: Any) -> Any:
        modules.add(id(module))
        both.wait()  # breaks unless two threads are here at once
        return module(rows)

    ready = on_devices(2, monkeypatch, call)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(ready.run, [ROWS] * 4))
    with torch.inference_mode():
        wanted = linear()(torch.from_numpy(ROWS)).numpy()
    for one in found:
        np.testing.assert_array_equal(one, wanted)
    assert len(modules) == 2


def test_one_device_computes_one_batch_at_a_time() -> None:
    inside: list[int] = []
    most = []

    def call(module: Any, rows: Any) -> Any:
        inside.append(1)
        most.append(len(inside))
        result = module(rows)
        inside.pop()
        return result

    ready = forward(linear(), CONFIG, call)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(ready.run, [ROWS] * 40))
    assert set(most) == {1}
    assert (ready.described["device"], ready.described["precision"]) == ("cpu", "float32")


def test_a_batch_that_does_not_fit_is_computed_in_halves(caplog: pytest.LogCaptureFixture) -> None:
    tried: list[int] = []

    def call(module: Any, rows: Any, scale: Any) -> Any:
        tried.append(len(rows))
        if len(rows) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return module(rows) * scale

    ready = forward(linear(), CONFIG, call)
    scale = np.arange(13, dtype=np.float32)[:, None]
    with torch.inference_mode():
        wanted = (linear()(torch.from_numpy(ROWS)) * torch.from_numpy(scale)).numpy()
    np.testing.assert_allclose(ready.run(ROWS, scale), wanted, atol=1e-6)
    assert tried == [13, 7, 4, 3, 6, 3, 3]
    assert "a batch of 13 inputs did not fit the device" in caplog.text


def test_an_input_that_never_fits_is_an_error() -> None:
    def call(module: Any, rows: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    ready = forward(linear(), CONFIG, call)
    for _ in range(2):  # the device is free again after the error
        with pytest.raises(torch.OutOfMemoryError):
            ready.run(ROWS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_configured_gpu_that_is_not_there_is_named() -> None:
    config = CONFIG.model_copy(update={"device": "cuda"})
    with pytest.raises(EncoderError, match="this worker has no CUDA device"):
        forward(linear(), config, lambda module, rows: module(rows))
