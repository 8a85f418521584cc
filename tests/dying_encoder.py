"""A program that embeds a corpus of the fake encoder, and that the word `poison` in a text kills, as a fault in C does.

    python -P -m tests.dying_encoder CONFIG [--always]

With --always each input kills it. It prints the run's rejects as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

import vecbeam
from transforms.encoders.fake import FakeEncoder

_encode = FakeEncoder.encode


def dying(self: FakeEncoder, inputs: pa.Table, **options: Any) -> Any:
    with Path(os.environ["ENCODED"]).open("a") as log:
        log.write(json.dumps(inputs.column("text").to_pylist()) + "\n")
    if "--always" in sys.argv or any("poison" in text for text in inputs.column("text").to_pylist()):
        os.kill(os.getpid(), signal.SIGKILL)
    return _encode(self, inputs, **options)


if __name__ == "__main__":
    FakeEncoder.encode = dying  # type: ignore[method-assign]
    report = vecbeam.backfill(vecbeam.load_config(sys.argv[1]))
    print(json.dumps(report.as_json()))
