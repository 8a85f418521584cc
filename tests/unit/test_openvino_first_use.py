"""OpenVINO's types are used once before threads share them: the first use in two threads at once never ends."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace

import pytest

from transforms.encoders.engines.openvino.runtime import import_openvino


def test_the_first_use_is_over_when_the_import_returns_and_is_never_in_two_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running = threading.Lock()
    uses: list[bool] = []

    def to_dtype() -> None:
        is_alone = running.acquire(blocking=False)
        threading.Event().wait(0.01)
        uses.append(is_alone)
        if is_alone:
            running.release()

    stub = SimpleNamespace(Type=SimpleNamespace(f32=SimpleNamespace(to_dtype=to_dtype)))
    monkeypatch.setitem(sys.modules, "openvino", stub)
    threads = [threading.Thread(target=import_openvino) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert uses == [True] * 4
