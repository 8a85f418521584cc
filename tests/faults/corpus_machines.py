"""What the corpora of `sync_machine` hold, and how they change: texts, pictures, and both."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
from corpora import WORDS
from drawings import damaged, drawing, encoded
from hypothesis.stateful import rule
from sync_machine import Expected, SyncMachine, numbers

from schemas.config import Config
from schemas.layout import item_schema
from schemas.modality import Modality
from transforms.embed.work import with_facts
from transforms.encoders import text_inputs
from transforms.encoders.base import media_inputs
from transforms.encoders.models import Models

FILES = ("a.jsonl", "b.jsonl", "c.jsonl")
FOLDERS = ("folder=red", "folder=green")
DAMAGES = tuple(data for data, _ in damaged().values())


class Texts(SyncMachine):
    """Edits files of records."""

    chunkings: ClassVar = (16, 20, 24)

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, list[dict[str, str]]] = {name: [] for name in FILES}
        self.max_tokens = self.chunkings[0]
        self.made = 0
        for number in range(6):
            self.insert(number, 4)

    def configuration(self) -> dict[str, Any]:
        values = super().configuration()
        values["corpus"]["paths"].append("texts/*.jsonl")
        values["corpus"]["metadata"]["kind"] = "string"
        chunk = {"max_tokens": self.max_tokens, "overlap_tokens": 4}
        return values | {"chunk": chunk, "encoder": {"model": "fake", "dimensions": self.dimensions}}

    def write(self) -> None:
        super().write()
        for name, records in self.files.items():
            data = "".join(json.dumps(record) + "\n" for record in records).encode()
            self.put(self.folder / "texts" / name, data or None)  # an empty file would be a reject

    def expected(self, config: Config) -> Expected:
        models = Models.of(config)
        records = [record for _, record in self.records()]
        items = pa.Table.from_pylist(
            [
                {"item_id": record["id"], "@uri": "a", "@place": "", "@content": record["text"], "kind": record["kind"]}
                for record in records
            ],
            schema=item_schema(config.corpus.column_types),
        )
        chunker = models.by_name[models.cutting[0]].chunker(config, Modality.TEXT)
        chunks, rejects = chunker.chunk(with_facts(items, b""))
        assert rejects.num_rows == 0
        names = ("item_id", "chunk", "text", "start", "end", "content_hash", "kind")
        rows = {row["id"]: {name: row[name] for name in names} for row in chunks.to_pylist()}
        inputs = text_inputs([row["text"] for row in rows.values()])
        for name, model in reversed(models.by_name.items()):
            found = model.load().encode(inputs)
            for row, vector, tokens in zip(rows.values(), found.matrix, found.amount.tolist(), strict=True):
                row |= {name: vector, "tokens": tokens}  # those that went through the first model
        return super().expected(config) | rows

    def records(self) -> list[tuple[str, dict[str, str]]]:
        return [(name, record) for name, records in self.files.items() for record in records]

    def some(self, number: int) -> tuple[str, dict[str, str]] | None:
        records = self.records()
        return records[number % len(records)] if records else None

    def text(self, number: int, words: int) -> str:
        chosen = random.Random(number)
        return " ".join(chosen.choices(WORDS, k=words)) + f" {number}"

    @rule(number=numbers, words=st.integers(1, 60))
    def insert(self, number: int, words: int) -> None:
        self.took()
        self.made += 1
        record = {"id": f"item-{self.made}", "text": self.text(number, words), "kind": WORDS[number % 3]}
        self.files[FILES[number % 3]].append(record)

    @rule(number=numbers, words=st.integers(1, 60))
    def edit(self, number: int, words: int) -> None:
        self.took()
        if found := self.some(number):
            found[1]["text"] = self.text(number, words)

    @rule(number=numbers)
    def shrink(self, number: int) -> None:
        self.took()
        if found := self.some(number):
            found[1]["text"] = " ".join(found[1]["text"].split()[:3])

    @rule(number=numbers)
    def grow(self, number: int) -> None:
        self.took()
        if found := self.some(number):
            found[1]["text"] += " " + self.text(number, 30)

    @rule(number=numbers)
    def change_metadata(self, number: int) -> None:
        self.took()
        if found := self.some(number):
            found[1]["kind"] = WORDS[number % 7]

    @rule(number=numbers)
    def move(self, number: int) -> None:
        self.took()
        if found := self.some(number):
            self.made += 1
            found[1]["id"] = f"moved-{self.made}"

    @rule(number=numbers)
    def move_to_another_file(self, number: int) -> None:
        self.took()
        if found := self.some(number):
            name, record = found
            self.files[name].remove(record)
            self.files[FILES[(FILES.index(name) + 1) % 3]].insert(0, record)

    @rule(number=numbers)
    def swap_ids(self, number: int) -> None:
        self.took()
        records = self.records()
        if len(records) > 1:
            (_, one), (_, other) = records[number % len(records)], records[(number + 1) % len(records)]
            one["id"], other["id"] = other["id"], one["id"]

    @rule(number=numbers)
    def delete(self, number: int) -> None:
        self.took()
        if len(self.records()) > 3 and (found := self.some(number)):
            self.files[found[0]].remove(found[1])

    @rule(one=st.integers(0, 2), other=st.integers(0, 2))
    def rename_files(self, one: int, other: int) -> None:
        self.took()
        first, second = FILES[one], FILES[other]
        self.files[first], self.files[second] = self.files[second], self.files[first]

    @rule(number=numbers)
    def change_chunking(self, number: int) -> None:
        self.took()
        self.max_tokens = self.chunkings[number % len(self.chunkings)]


class TwoVectors(Texts):
    """Texts with two vectors, whose models have different limits and prompts."""

    between = (8, 20)
    chunkings = (12, 16)

    def configuration(self) -> dict[str, Any]:
        values = super().configuration()
        meaning = values.pop("encoder")
        wording = {"model": "fake", "dimensions": 8, "max_tokens": 20, "prompt": "about it: ", "metric": "IP"}
        return values | {"encoders": {"meaning": meaning, "wording": wording}}


@dataclass
class Picture:
    """A file of pictures/.

    Attributes:
        number: of its drawing.
        damage: its bytes instead, if it is damaged.
        modified: rises with each change.
    """

    number: int
    modified: int
    damage: bytes | None = None


class Pictures(SyncMachine):
    """Draws, replaces, renames, deletes and damages files of pictures."""

    between = (6, 14)
    model: ClassVar[Path]

    def __init__(self) -> None:
        super().__init__()
        self.pictures: dict[str, Picture] = {}
        self.drawn = 0
        self.vectors: dict[tuple[int, int], np.ndarray[Any, Any]] = {}
        for number in range(8):
            self.draw(number)

    def configuration(self) -> dict[str, Any]:
        values = super().configuration()
        values["corpus"]["paths"].append("pictures/**/*.png")
        values["corpus"]["metadata"]["folder"] = {"partition": "folder", "type": "string"}
        return values | {"encoder": {"model": str(self.model), "dimensions": self.dimensions}}

    def write(self) -> None:
        super().write()
        root = self.folder / "pictures"
        for path in root.rglob("*.png"):
            if str(path.relative_to(root)) not in self.pictures:
                path.unlink()
        for name, picture in self.pictures.items():
            data = png(picture.number) if picture.damage is None else picture.damage
            self.put(root / name, data, picture.modified)

    def expected(self, config: Config) -> Expected:
        whole = {name: picture.number for name, picture in self.pictures.items() if picture.damage is None}
        new = [number for number in dict.fromkeys(whole.values()) if (number, self.dimensions) not in self.vectors]
        if new:
            [model] = Models.of(config).by_name.values()
            made = model.load().encode(media_inputs([png(number) for number in new])).matrix
            self.vectors |= {(number, self.dimensions): vector for number, vector in zip(new, made, strict=True)}
        rows = {
            f"{name}#0": {
                **{"item_id": name, "chunk": 0, "uri": str(self.folder / "pictures" / name), "start": 0.0, "end": 0.0},
                "folder": name.split("/")[0].removeprefix("folder="),
                "vector": self.vectors[number, self.dimensions],
            }
            for name, number in whole.items()
        }
        return super().expected(config) | rows

    def rejected(self) -> set[str]:
        return super().rejected() | {name for name, one in self.pictures.items() if one.damage is not None}

    def tick(self) -> int:
        self.drawn += 1
        return self.drawn

    def some_picture(self, number: int) -> tuple[str, Picture] | None:
        names = sorted(self.pictures)
        return (name := names[number % len(names)], self.pictures[name]) if names else None

    def another_name(self, number: int) -> str:
        return f"{FOLDERS[number % 2]}/{WORDS[number % len(WORDS)]}-{self.tick()}.png"

    @rule(number=numbers)
    def draw(self, number: int) -> None:
        self.took()
        self.pictures[self.another_name(number)] = Picture(number, self.tick())

    @rule(number=numbers)
    def draw_again(self, number: int) -> None:
        """Another picture in the file, a damaged one too."""
        self.took()
        if found := self.some_picture(number):
            self.pictures[found[0]] = Picture(number, self.tick())

    @rule(number=numbers)
    def touch(self, number: int) -> None:
        self.took()
        if found := self.some_picture(number):
            found[1].modified = self.tick()

    @rule(number=numbers)
    def rename(self, number: int) -> None:
        self.took()
        if found := self.some_picture(number):
            self.pictures[self.another_name(number)] = self.pictures.pop(found[0])

    @rule(number=numbers)
    def swap_names(self, number: int) -> None:
        self.took()
        if len(self.pictures) > 1:
            names = sorted(self.pictures)
            one, other = names[number % len(names)], names[(number + 1) % len(names)]
            self.pictures[one], self.pictures[other] = self.pictures[other], self.pictures[one]

    @rule(number=numbers)
    def copy(self, number: int) -> None:
        self.took()
        if found := self.some_picture(number):
            self.pictures[self.another_name(number)] = Picture(found[1].number, found[1].modified, found[1].damage)

    @rule(number=numbers)
    def remove(self, number: int) -> None:
        self.took()
        if found := self.some_picture(number):
            self.leave(3, found[0])

    @rule(number=numbers)
    def damage(self, number: int) -> None:
        self.took()
        if (found := self.some_picture(number)) and len(self.pictures) - len(self.rejected()) > 4:
            found[1].damage = [*DAMAGES, png(found[1].number)[:-40]][number % (len(DAMAGES) + 1)]
            found[1].modified = self.tick()

    @rule(number=numbers, keeps_time=st.booleans())
    def restore(self, number: int, keeps_time: bool) -> None:
        """Puts a backup in the place of a damaged file, with the time of the damage or a new one."""
        self.took()
        if names := sorted(self.rejected() & {*self.pictures}):
            picture = self.pictures[names[number % len(names)]]
            picture.damage = None
            if not keeps_time:
                picture.modified = self.tick()

    def leave(self, least: int, name: str) -> None:
        """Deletes a picture if so many whole ones are left."""
        whole = {*self.pictures} - self.rejected() - {name}
        if len(whole) >= least:
            del self.pictures[name]


class Mixed(Texts, Pictures):
    """Texts and pictures in one collection."""

    between = (8, 16)
    chunkings = (8, 12)

    def configuration(self) -> dict[str, Any]:
        return super().configuration() | {"encoder": {"model": str(self.model), "dimensions": self.dimensions}}

    def expected(self, config: Config) -> Expected:
        rows = super().expected(config)
        return {name: row | {"modality": "text" if "text" in row else "image"} for name, row in rows.items()}

    def amount(self, expected: Expected) -> int:
        return len(expected)


@lru_cache(maxsize=1000)
def png(number: int) -> bytes:
    """The bytes of a small picture."""
    return encoded(drawing(number, (40, 32)))
