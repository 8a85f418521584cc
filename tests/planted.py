"""A corpus with planted facts: three topics with words of their own, rows of no topic, and wrong topics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from corpora import configure, write_jsonl

from schemas.config import Config

TOPICS = {
    "sea": "wave tide coral shark whale reef harbour anchor sailor pearl algae lagoon".split(),  # noqa: SIM905
    "sky": "cloud comet planet orbit star galaxy rocket eclipse nebula meteor moon sun".split(),  # noqa: SIM905
    "soil": "worm root seed plough harvest barley compost clay furrow tractor wheat barn".split(),  # noqa: SIM905
}
ROWS = 40
"""Rows of each topic."""
STRANGE = 4
WRONG = 4


def record(topic: str, number: int) -> dict[str, Any]:
    """An item of a topic, with the topic's name and the number as its metadata."""
    random = np.random.default_rng([number, len(topic), ord(topic[1])])
    words = " ".join(random.choice(TOPICS[topic], 8))
    return {"id": f"{topic}{number}", "text": words, "topic": topic, "number": number}


def records() -> list[dict[str, Any]]:
    """The corpus: the last `STRANGE` rows have words of no topic, and the first `WRONG` of "sea" say "soil"."""
    found = [record(topic, number) for topic in TOPICS for number in range(ROWS)]
    for number in range(WRONG):
        found[number]["topic"] = "soil"
    for number in range(STRANGE):
        words = " ".join(f"qx{number}zv{place}" for place in range(8))
        found.append({"id": f"strange{number}", "text": words, "topic": ["sea", "sky", "soil", "sea"][number]})
    return found


def planted(folder: Path, **changes: Any) -> Config:
    """A configuration over the corpus, which is written; nothing is embedded."""
    write_jsonl(folder / "corpus" / "a.jsonl", records())
    values: dict[str, Any] = {
        "chunk": False,
        "corpus": {"paths": ["corpus/*"], "metadata": {"topic": "string", "number": "int"}, "max_deleted": 1},
        "collection": {"uri": "./milvus.db", "index": {"type": "FLAT"}},
    }
    return configure(folder, **(values | changes))
