"""What `vecbeam explore` finds of what was planted in real data: precision and recall.

    python benchmarks/explore.py corpus.jsonl --field section --images FOLDER

Texts: records with id, text and a field. 10% are added again with edits (words dropped and swapped, letters changed),
1% are added with shuffled letters (outliers), 5% get another value of the field (wrong labels). Months are drawn from
the vectors: undrifted ones at random, drifted ones with a share of rows of one value of the field.
Images: a folder with photographs and a table labels.tsv (file, label). 10% are added again at half the size as JPEG of
quality 60, 5% as noise.
"""

from __future__ import annotations

import csv
import json
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from common import arguments, records, show, vecbeam

from pipelines.explore.clusters import clusters
from pipelines.explore.duplicates import duplicates
from pipelines.explore.labels import labels
from pipelines.explore.outliers import outliers
from pipelines.steps.collection.current_rows import current_rows
from schemas.config import Config
from schemas.config.loader import load_config
from transforms.explore.two_samples import discrepancy, separation

LEAST_OF_A_VALUE = 30
MONTH = 200
TRIALS = 20


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--field", default="section")
    parser.add_argument("--images", type=Path, help="a folder of photographs with labels.tsv")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = of_texts(Path(folder), records(given.corpus), given.field)
    if given.images is not None:
        with tempfile.TemporaryDirectory() as folder:
            rows += of_images(Path(folder), given.images)
    show(rows, given.json)


def row(what: str, found: set[str], planted: set[str], note: str = "") -> dict[str, Any]:
    """Precision and recall of what was found."""
    right = len(found & planted)
    return {
        "planted": what,
        "command": note,
        "rows planted": len(planted),
        "found": len(found),
        "precision": round(right / max(1, len(found)), 3),
        "recall": round(right / max(1, len(planted)), 3),
    }


def of_texts(work: Path, corpus: list[dict[str, Any]], field: str) -> list[dict[str, Any]]:
    rng = random.Random(0)
    counts = Counter(one[field] for one in corpus)
    values = sorted(value for value, count in counts.items() if count >= LEAST_OF_A_VALUE)
    items = [{"id": one["id"], "text": one["text"], field: one[field]} for one in corpus]
    true = {one["id"]: one[field] for one in items}
    wrong = set()
    for one in rng.sample([one for one in items if one[field] in values], len(items) // 20):
        one[field] = rng.choice([value for value in values if value != one[field]])
        wrong.add(one["id"])
    added = []
    for one in rng.sample(items, len(items) // 10):
        added.append({**one, "id": f"copy:{one['id']}", "text": edited(one["text"], rng)})
    for number, one in enumerate(rng.sample(items, len(items) // 100)):
        letters = list(one["text"])
        rng.shuffle(letters)
        added.append({**one, "id": f"noise:{number}", "text": "".join(letters)})
    path = work / "corpus.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in [*items, *added]))
    config = configured(
        work,
        corpus={"paths": [str(path)], "content": ["text"], "metadata": {field: "string"}},
        chunk=False,
        encoder={"model": "all-MiniLM-L6-v2"},
        verify={"max_dropped_tokens": 1},
    )
    copies = {one["id"] for one in added if one["id"].startswith("copy:")}
    noise = {one["id"] for one in added if one["id"].startswith("noise:")}
    rows = [near_duplicates(config, above, copies) for above in (0.98, 0.95, 0.9)]
    for by in ("distance", "density"):
        found = set(outliers(config, by=by).table.column("item_id").to_pylist())
        rows.append(row("1% shuffled letters", found, noise, f"outliers --by {by}"))
    for above in (0.95, 0.9, 0.8):
        table = outliers(config, by="label", group=field, above=above).table
        found = {one for one in table.column("item_id").to_pylist() if not one.startswith(("copy:", "noise:"))}
        rows.append(row(f"5% wrong {field}", found, wrong, f"outliers --by label --above {above}"))
    for count in (None, len(counts)):
        figures = clusters(config, n=count, field=field).figures
        print(
            f"clusters of texts: {figures['clusters']}{' chosen' if count is None else ''}, against "
            f"{figures['values']} values of {field}: adjusted Rand {figures['adjusted_rand']}, mutual information "
            f"{figures['mutual_information']}"
        )
    return [*rows, *months(config, true, values)]


def configured(work: Path, **values: Any) -> Config:
    """A configuration whose corpus is embedded."""
    path = work / "vecbeam.yaml"
    usual = {
        "name": "bench",
        "checkpoint": "checkpoint",
        "collection": {"uri": "./milvus.db", "index": {"type": "FLAT"}},
    }
    path.write_text(yaml.safe_dump(usual | values))
    vecbeam("backfill", path)
    return load_config(path)


def edited(text: str, rng: random.Random) -> str:
    """A text with a tenth of its words dropped, two swapped and one letter in fifty changed."""
    words = [word for word in text.split() if rng.random() > 0.1] or text.split()
    if len(words) > 2:
        at = rng.randrange(len(words) - 1)
        words[at], words[at + 1] = words[at + 1], words[at]
    return "".join(
        rng.choice("abcdefghij") if one.isalpha() and rng.random() < 0.02 else one for one in " ".join(words)
    )


def near_duplicates(config: Config, above: float, copies: set[str], vector: str = "") -> dict[str, Any]:
    """Copies that are in a group with their originals; of what was found, what such a group has.

    The corpus has near duplicates of its own: groups without a copy say nothing of precision.
    """
    groups: dict[int, list[str]] = {}
    for one in duplicates(config, above=above, vector=vector).table.to_pylist():
        groups.setdefault(one["group"], []).append(one["item_id"])
    found, right = set(), set()
    for ids in groups.values():
        for one in ids:
            if one in copies:
                found.add(one)
                if one.removeprefix("copy:") in ids:
                    right.add(one)
    return {
        "planted": "10% copies with edits" if not vector else "10% recompressed",
        "command": f"duplicates --above {above}",
        "rows planted": len(copies),
        "found": len(found),
        "precision": round(len(right) / max(1, len(found)), 3),
        "recall": round(len(right) / len(copies), 3),
    }


def months(config: Config, true: dict[str, str], values: list[str]) -> list[dict[str, Any]]:
    """How often a month is found to have drifted: months without a drift first, which gives the false alarms."""
    sample = current_rows(config).sample("vector")
    ids = sample.rows.column("item_id").to_pylist()
    real = np.asarray([at for at, one in enumerate(ids) if one in true])
    label = np.asarray([true.get(one, "") for one in ids])
    vectors = sample.normalised
    found: list[dict[str, Any]] = []
    false = 0
    largest = max(values, key=lambda value: int((label == value).sum()))
    for share in (0.0, 0.25, 0.5):
        alarms, areas = 0, []
        for trial in range(TRIALS):
            rng = np.random.default_rng(trial)
            of_value = real[label[real] == largest]
            many = min(int(share * MONTH), len(of_value) // 2)
            month = np.concatenate(
                [rng.choice(of_value, many, replace=False), rng.choice(real, MONTH - many, replace=False)]
            )
            before = np.setdiff1d(real, month)
            alarms += discrepancy(vectors[before], vectors[month], trial).p_value <= 0.01
            areas.append(separation(vectors[before], vectors[month], trial).auc)
        print(
            f"months of {MONTH} rows, {many} of them more of {largest}: {alarms} of {TRIALS} found to have drifted, "
            f"mean AUC {np.mean(areas):.3f}"
        )
        if share:
            found.append(
                {
                    "planted": f"months with {many / MONTH:.0%} more of one value",
                    "command": "drift --since",
                    "rows planted": TRIALS,
                    "found": alarms + false,
                    "precision": round(alarms / max(1, alarms + false), 3),
                    "recall": round(alarms / TRIALS, 3),
                }
            )
        else:
            false = alarms
    return found


def of_images(work: Path, folder: Path) -> list[dict[str, Any]]:
    from PIL import Image

    rng = random.Random(0)
    with (folder / "labels.tsv").open() as lines:
        names = {one["file"]: one["label"] for one in csv.DictReader(lines, delimiter="\t")}
    photos = work / "photos"
    photos.mkdir()
    items = []
    for file, label in sorted(names.items()):
        (photos / file).write_bytes((folder / file).read_bytes())
        items.append({"id": file, "photo": f"photos/{file}", "label": label})
    copies, noise = set(), set()
    for file in rng.sample(sorted(names), len(names) // 10):
        with Image.open(folder / file) as photo:
            half = photo.convert("RGB").resize((max(1, photo.width // 2), max(1, photo.height // 2)))
        half.save(photos / f"copy_{file}.jpg", quality=60)
        items.append({"id": f"copy:{file}", "photo": f"photos/copy_{file}.jpg", "label": names[file]})
        copies.add(f"copy:{file}")
    for number in range(len(names) // 20):
        pixels = np.random.default_rng(number).integers(0, 256, (240, 320, 3), np.uint8)
        Image.fromarray(pixels).save(photos / f"noise_{number}.jpg")
        items.append({"id": f"noise:{number}", "photo": f"photos/noise_{number}.jpg", "label": "noise"})
        noise.add(f"noise:{number}")
    path = work / "photos.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in items))
    config = configured(
        work,
        corpus={"paths": [str(path)], "media": "photo", "media_modality": "image", "metadata": {"label": "string"}},
        encoders={"photo": {"model": "efficientnet-lite0"}, "words": {"model": "conse"}},
    )
    rows = [near_duplicates(config, above, copies, "photo") for above in (0.98, 0.95, 0.9, 0.85)]
    for by in ("distance", "density"):
        found = set(outliers(config, by=by, vector="photo").table.column("item_id").to_pylist())
        rows.append(row("5% noise (images)", found, noise, f"outliers --by {by}"))
    false_matches(config)
    told = labels(config, sorted(set(names.values())), truth="label", vector="words").figures
    print(f"labels of images, {len(set(names.values()))} by their names: accuracy {told['accuracy']}")
    figures = clusters(config, n=len(names) // 10, vector="photo").figures
    print(f"clusters of images: {'; '.join(list(figures['sizes'])[:4])}")
    return rows


def false_matches(config: Config) -> None:
    """Of pairs of two photographs, how many a threshold takes for one; of a photograph and its copy, how many not."""
    sample = current_rows(config).sample("photo")
    ids = sample.rows.column("item_id").to_pylist()
    place = {one: at for at, one in enumerate(ids)}
    vectors = sample.normalised
    originals = [at for at, one in enumerate(ids) if not one.startswith(("copy:", "noise:"))]
    different = (vectors[originals] @ vectors[originals].T)[np.triu_indices(len(originals), 1)]
    same = [float(vectors[place[one]] @ vectors[place[one.removeprefix("copy:")]]) for one in ids if one[:5] == "copy:"]
    for above in (0.98, 0.95, 0.9, 0.85, 0.8):
        print(
            f"images, --above {above}: {np.mean(different >= above):.4%} of {len(different):,} pairs of different "
            f"photographs match, {np.mean(np.asarray(same) < above):.1%} of {len(same)} pairs of the same do not"
        )


if __name__ == "__main__":
    main()
