"""Photographs and recordings through the commands of explore, and through the page of serve.

    python benchmarks/media_uses.py ../shared/data [--models conse resemblyzer] [--steps map serve]

The folder has `images` with labels.tsv (columns `file` and `label`), and `digits` with recordings named
DIGIT_SPEAKER_NUMBER.wav. Photographs come twice: as they are, and at half the size as JPEG of quality 60. Each corpus
goes through `vecbeam backfill`, `explore map`, `explore duplicates` with all labelled pairs, `explore labels`, and
`serve`, to which files are sent as queries. Labels are the names of the classes (zero-shot) for photographs; for
recordings 2 examples of each digit, or of each speaker.
"""

from __future__ import annotations

import csv
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import common
from PIL import Image

SIZE, QUALITY = 2, 60
EXAMPLES = 2
PORT = "0"
STEPS = ("map", "duplicates", "labels", "serve")


class Part(NamedTuple):
    """A corpus, and the truth about its items.

    Attributes:
        records: id, file (the path), and columns.
        thing: the column whose value two items of the same thing share.
        label: the column that labels are compared with.
        above: the threshold of duplicates.
    """

    name: str
    model: str
    kind: str
    records: list[dict[str, str]]
    thing: str
    label: str
    above: float


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--queries", type=int, default=100, help="files that are sent to the page, evenly spread")
    parser.add_argument("--steps", nargs="+", default=STEPS, choices=STEPS)
    parser.add_argument("--models", nargs="+", default=["conse", "whisper-base", "resemblyzer"])
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="vecbeam-media-") as place:
        parts = {
            "conse": lambda: photographs(given.corpus / "images", Path(place)),
            "whisper-base": lambda: recordings(given.corpus / "digits", "whisper-base", "digit"),
            "resemblyzer": lambda: recordings(given.corpus / "digits", "resemblyzer", "speaker"),
        }
        for model in given.models:
            part = parts[model]()
            folder = Path(place) / part.name
            folder.mkdir()
            for measure, value in measured(part, folder, given.queries, given.steps):
                rows.append({"corpus": part.name, "model": model, "measure": measure, "value": value})
                print(rows[-1], file=sys.stderr, flush=True)
    common.show(rows, given.json)


def photographs(folder: Path, work: Path) -> Part:
    """The photographs and their copies."""
    records = []
    copies = work / "copies"
    copies.mkdir(exist_ok=True)
    with (folder / "labels.tsv").open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream, delimiter="\t"):
            name, label = row["file"], row["label"]
            with Image.open(folder / name) as image:
                small = image.convert("RGB").resize((image.width // SIZE, image.height // SIZE))
            small.save(copies / name, "JPEG", quality=QUALITY)
            for file in (folder / name, copies / name):
                known = {"thing": name, "label": label, "kind": file.parent.name}
                records.append({"id": f"{file.parent.name}/{name}", "file": str(file.resolve()), **known})
    return Part("photographs", "conse", "image", records, "thing", "label", 0.95)


def recordings(folder: Path, model: str, of: str) -> Part:
    """The recordings, with their digit and their speaker."""
    records = []
    for file in sorted(folder.glob("*.wav")):
        digit, speaker, _ = file.stem.split("_")
        records.append({"id": file.name, "file": str(file.resolve()), "digit": digit, "speaker": speaker})
    above = 0.95 if of == "digit" else 0.75
    return Part(f"recordings_{of}", model, "audio", records, of, of, above)


def measured(part: Part, folder: Path, queries: int, steps: list[str]) -> Iterable[tuple[str, Any]]:
    """What the commands say."""
    config = configured(part, folder)
    begun = time.perf_counter()
    report = vecbeam("backfill", config)
    yield "rows", report["verify"]["found"]
    yield "backfill seconds", round(time.perf_counter() - begun, 1)
    yield "recall@10", report["verify"]["recall_at_10"]
    if "map" in steps:
        for by in ("pca", "umap"):
            page = str(folder / "map.html")
            found = vecbeam("explore", "map", config, "--by", by, "--color", part.thing, "--html", page)
            yield f"map by {by}, points", len(found["rows"])
    if "duplicates" in steps:
        yield from duplicates(part, folder, config)
    if "labels" in steps:
        found = vecbeam("explore", "labels", config, *label_options(part, folder), "--truth", part.label)
        yield f"labels by {found['by']}: accuracy", found["accuracy"]
        yield "most common label", found["most_common"]
        yield "rows counted", found["counted"]
    if "serve" in steps:
        yield from served(part, config, part.records[:: max(1, len(part.records) // queries)])


def duplicates(part: Part, folder: Path, config: str) -> Iterable[tuple[str, Any]]:
    """Groups, and the error rates of all pairs."""
    found = vecbeam("explore", "duplicates", config, "--above", str(part.above), "--pairs", pairs_of(part, folder))
    yield f"groups above {part.above}", found["groups"]
    things = {record["id"]: record[part.thing] for record in part.records}
    groups: dict[int, set[str]] = {}
    for row in found["rows"]:
        groups.setdefault(row["group"], set()).add(things[row["item_id"]])
    yield "groups of one thing", sum(len(group) == 1 for group in groups.values())
    for name in ("pairs", "false_match_rate", "false_non_match_rate", "equal_error_rate", "equal_error_above"):
        yield name.replace("_", " "), found[name]


def configured(part: Part, folder: Path) -> str:
    columns = [name for name in part.records[0] if name not in ("id", "file")]
    (folder / "items.jsonl").write_text("".join(json.dumps(record) + "\n" for record in part.records))
    places = sorted({str(Path(record["file"]).parent) for record in part.records})
    values = {
        "name": part.name,
        "corpus": {
            "paths": ["items.jsonl"],
            "format": "jsonl",
            "media": "file",
            "media_modality": part.kind,
            "allow_uris": [f"{place}/" for place in places],
            "metadata": dict.fromkeys(columns, "string"),
        },
        "encoder": {"model": part.model},
        "checkpoint": "checkpoint",
        "collection": {"uri": "./milvus.db", "index": {"type": "FLAT"}},
    }
    path = folder / "vecbeam.yaml"
    path.write_text(json.dumps(values))
    return str(path)


def pairs_of(part: Part, folder: Path) -> str:
    """All pairs, each labelled as the same thing or not."""
    path = folder / "pairs.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("a", "b", "same"))
        for a, b in itertools.combinations(part.records, 2):
            writer.writerow((a["id"], b["id"], int(a[part.thing] == b[part.thing])))
    return str(path)


def label_options(part: Part, folder: Path) -> list[str]:
    """The names of classes, or a file of examples."""
    if part.kind == "image":
        names = dict.fromkeys(record[part.label] for record in part.records)
        return [word for name in names for word in ("--label", name)]
    seen: dict[str, int] = {}
    path = folder / "examples.jsonl"
    with path.open("w", encoding="utf-8") as stream:
        for record in part.records:
            label = record[part.label]
            seen[label] = seen.get(label, 0) + 1
            if seen[label] <= EXAMPLES:
                stream.write(json.dumps({"id": record["id"], "label": label}) + "\n")
    return ["--examples", str(path)]


def served(part: Part, config: str, asked: list[dict[str, str]]) -> Iterable[tuple[str, Any]]:
    """Sends files to the page as queries."""
    command = [sys.executable, "-m", "vecbeam", "serve", config, "--port", PORT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[1]
            kinds = {".wav": "audio/wav"}
            first, same, milliseconds = 0, 0, []
            for record in asked:
                file = Path(record["file"])
                head = {"Content-Type": kinds.get(file.suffix, "image/jpeg")}
                begun = time.perf_counter()
                with urlopen(Request(f"{address}search?k=2", file.read_bytes(), head), timeout=60) as answer:
                    hits = json.load(answer)["hits"]
                milliseconds.append((time.perf_counter() - begun) * 1000)
                first += hits[0]["item_id"] == record["id"]
                same += next(hit for hit in hits if hit["item_id"] != record["id"])[part.thing] == record[part.thing]
            yield "serve: finds itself first", f"{first} of {len(asked)}"
            yield f"serve: the nearest other one has the same {part.thing}", f"{same} of {len(asked)}"
            yield "serve: median ms of a search by file", round(sorted(milliseconds)[len(milliseconds) // 2], 1)
            with urlopen(f"{address}map/points?color={part.thing}", timeout=60) as answer:
                yield "serve: points of the map", len(json.load(answer)["ids"])
        finally:
            process.terminate()


def vecbeam(*words: str) -> Any:
    """The JSON of a command."""
    command = [sys.executable, "-m", "vecbeam", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)[:200]}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
