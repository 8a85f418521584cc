"""Fetches the weights of a configuration's models into an image, and makes the conversions that a worker would make.

    python fetch_models.py CONFIGURATION

Weights go to the folder HF_HOME, conversions to VECBEAM_CACHE. Models that are fitted on a corpus are left out: they
lie in its checkpoint.
"""

from __future__ import annotations

import sys
import tempfile
import time

import vecbeam
from transforms.encoders.models import Models


def fetch(configuration: str) -> list[str]:
    """Loads each model of a configuration once, and embeds what it is known to embed; returns a line for each."""
    # Without the checkpoint, which a build of an image can't reach: what is fitted on a corpus is not found then.
    config = vecbeam.load_config(configuration).model_copy(update={"checkpoint": tempfile.mkdtemp()})
    models = Models.of(config)
    lines = []
    for name, model in models.by_name.items():
        if name in models.to_fit:
            lines.append(f"{name}: fitted on the corpus, not in the image")
            continue
        start = time.monotonic()
        model.load().encode(model.probe)
        lines.append(f"{name}: {model.config.model}, space {model.space.id}, {time.monotonic() - start:.0f} s")
    return lines


if __name__ == "__main__":
    print("\n".join(fetch(sys.argv[1])))
