"""The corpora that commands are killed over: records, records with two vectors, and pictures."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
from corpora import WORDS
from drawings import damaged, drawing, encoded, save_timm_model

ENCODE, CHUNK = "transforms.encoders.fake.FakeEncoder.encode", "transforms.chunk.text.TextChunker.chunk"
PICTURES = 64
FAKE = {"model": "fake", "dimensions": 16}


class World(NamedTuple):
    """A corpus, and the configuration over it.

    Attributes:
        write: puts the corpus, and a model that it needs, into a folder; called in a fork.
        edit: changes the corpus in every way.
        configuration: the sections that depend on it; {folder} is the folder.
        rechunk: options of a reindex that make other rows.
        heavy: modules that are imported before the forks.
        instead: functions that it calls instead of those of texts.
    """

    write: Callable[[Path], None]
    edit: Callable[[Path], None]
    configuration: Mapping[str, Any]
    rechunk: tuple[str, ...] = ()
    heavy: tuple[str, ...] = ()
    instead: Mapping[str, str] = {}

    @property
    def encoders(self) -> int:
        """How often a batch is encoded."""
        return len(self.configuration.get("encoders", ["encoder"]))


def write_texts(folder: Path) -> None:
    """60 good items in two files, some of several chunks, and four bad records among them."""
    for number, file in enumerate(("a.jsonl", "b.jsonl")):
        lines = []
        for item in range(30):
            count = 40 if item % 7 == 0 else 5
            text = " ".join(WORDS[(item * 3 + number + place * 5) % len(WORDS)] for place in range(count)) + f" {item}"
            lines.append(json.dumps({"id": f"{number}-{item}", "text": text, "kind": WORDS[item % 4]}))
            if item in (5, 20):
                lines.append('{"id": "bad", "text": ')
        (folder / file).write_text("\n".join(lines) + "\n")


def edit_texts(folder: Path) -> None:
    """Edits, shrinks, grows, moves, deletes and adds items."""
    files = [folder / name for name in ("a.jsonl", "b.jsonl")]
    lines = [[line for line in file.read_text().splitlines() if '"bad"' not in line] for file in files]
    first, second = ([json.loads(line) for line in some] for some in lines)
    first[1]["text"] = "an edited text"
    first[7]["text"] = " ".join(first[7]["text"].split()[:6])
    first[3]["text"] += " and much more of it" * 12
    first[4]["kind"] = "other"
    first[9]["id"] = "moved"
    del first[11:13]
    second.append(first.pop())
    second.insert(0, {"id": "added", "text": "a new text", "kind": "new"})
    for file, records in zip(files, (first, second), strict=True):
        file.write_text("".join(json.dumps(record) + "\n" for record in records))


def write_pictures(folder: Path) -> None:
    """Pictures in two folders, five damaged ones among them, and the model."""
    save_timm_model(folder / "model")
    for number in range(PICTURES):
        put_picture(folder, number, encoded(drawing(number, (40, 32))))
    for number, (data, _) in enumerate(damaged().values()):
        put_picture(folder, number * 7, data)


def put_picture(folder: Path, place: int, data: bytes) -> None:
    path = folder / f"kind={WORDS[place % 2]}" / f"{place:02d}.png"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)


def edit_pictures(folder: Path) -> None:
    """Redraws, damages, restores, touches, renames, deletes and adds pictures."""
    paths = sorted(folder.rglob("*.png"))
    for number in (3, 17, 40):
        paths[number].write_bytes(encoded(drawing(100 + number, (40, 32))))
    paths[20].write_bytes(paths[20].read_bytes()[:-30])
    put_picture(folder, 0, encoded(drawing(200)))
    os.utime(paths[25], (1e9, 1e9))
    paths[31].rename(paths[31].with_stem("renamed"))
    for number in (44, 45, 60):
        paths[number].unlink()
    for place in (90, 91):
        put_picture(folder, place, encoded(drawing(place)))


_TEXTS = {
    "corpus": {"paths": ["{folder}/*.jsonl"], "metadata": {"kind": "string"}, "shard_bytes": 2048},
    "chunk": {"max_tokens": 16, "overlap_tokens": 4},
}
_RECHUNK = ("--set", "chunk.max_tokens=20")
WORLDS = {
    "texts": World(write_texts, edit_texts, {**_TEXTS, "encoder": FAKE}, _RECHUNK),
    "two_vectors": World(
        write_texts,
        edit_texts,
        {**_TEXTS, "encoders": {"meaning": FAKE, "wording": {**FAKE, "dimensions": 8, "prompt": "about it: "}}},
        _RECHUNK,
    ),
    "pictures": World(
        write_pictures,
        edit_pictures,
        {
            "corpus": {
                "paths": ["{folder}/kind=*/*.png"],
                "metadata": {"kind": {"partition": "kind", "type": "string"}},
                "shard_bytes": 8192,
            },
            "encoder": {"model": "{folder}/model"},
        },
        heavy=("torch", "timm", "transforms.encoders.timm"),
        instead={
            ENCODE: "transforms.encoders.media.media_encoder.MediaEncoder.encode",
            CHUNK: "transforms.chunk.whole.WholeChunker.chunk",
        },
    ),
}
