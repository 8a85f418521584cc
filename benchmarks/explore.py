"""What `vecbeam explore` finds of what was planted in real data: precision and recall.

    python benchmarks/explore.py corpus.jsonl --field section --images FOLDER

Texts: records with id, text and a field. 5% are added again with light edits (a word dropped, two swapped, a letter
changed) and 5% with heavy ones (a tenth of the words dropped, one letter in fifty changed), 20 sentences of other
topics are added (outliers), and 5% get another value of the field (wrong labels). Months are drawn from the vectors:
undrifted ones at random, drifted ones with more rows of one value of the field.
Images: a folder with photographs and a table labels.tsv (file, label). 10% are added again at half the size as JPEG of
quality 60, and eight drawn pictures.
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
UNDRIFTED_TRIALS = 100
OTHER_TOPICS = (
    "The patient was given aspirin after surgery on the left knee.",
    "Bake the bread at 220 degrees for forty minutes until golden.",
    "Invoice 4711: please pay 1,250 EUR by the end of March.",
    "She walked along the river and thought of her grandmother.",
    "The midfielder scored twice in the second half of the final.",
    "Roses need pruning in late winter, before new growth begins.",
    "Flight LH454 to San Francisco is delayed by two hours.",
    "The court dismissed the appeal after a short hearing.",
    "Buy one get one free, only this weekend in our store!",
    "El gato duerme en la ventana mientras llueve.",
    "Mix two cups of flour with butter, eggs and sugar.",
    "The glacier has retreated by forty metres a year since 1990.",
    "He plays the violin in the city's philharmonic orchestra.",
    "Rent is due on the first day of every month.",
    "Our kindergarten visits the zoo to see the elephants.",
    "The senate voted on the new tax bill on Tuesday.",
    "Wash dark clothes separately at thirty degrees.",
    "The wedding took place in a small chapel by the sea.",
    "Her blood pressure was 120 over 80 this morning.",
    "Quarterly earnings fell short of analysts' expectations.",
)


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
    for number, one in enumerate(rng.sample(items, len(items) // 10)):
        how = "heavy" if number % 2 else "light"
        added.append({**one, "id": f"{how}:{one['id']}", "text": edited(one["text"], how, rng)})
    for number, sentence in enumerate(OTHER_TOPICS):
        added.append({"id": f"other:{number}", "text": sentence, field: rng.choice(values)})
    path = work / "corpus.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in [*items, *added]))
    config = configured(
        work,
        corpus={"paths": [str(path)], "content": ["text"], "metadata": {field: "string"}},
        chunk=False,
        encoder={"model": "all-MiniLM-L6-v2"},
        verify={"max_dropped_tokens": 1},
    )
    rows = []
    for how in ("light", "heavy"):
        copies = {one["id"] for one in added if one["id"].startswith(how)}
        rows += [near_duplicates(config, above, copies, f"5% copies, {how} edits") for above in (0.98, 0.95, 0.9)]
    others = {one["id"] for one in added if one["id"].startswith("other:")}
    for by in ("distance", "density"):
        found = set(outliers(config, by=by).table.column("item_id").to_pylist())
        rows.append(row("20 of other topics", found, others, f"outliers --by {by}"))
    judged = outliers(config, by="label", group=field, above=0.8).table.to_pylist()
    for above in (0.95, 0.9, 0.8):
        found = {one["item_id"] for one in judged if one["score"] >= above and one["item_id"] in true}
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


def edited(text: str, how: str, rng: random.Random) -> str:
    """A text with two words swapped; with one dropped and a letter changed, or a tenth and one in fifty."""
    words = text.split()
    if how == "heavy":
        words = [word for word in words if rng.random() > 0.1] or words
    elif len(words) > 1:
        words.pop(rng.randrange(len(words)))
    if len(words) > 2:
        at = rng.randrange(len(words) - 1)
        words[at], words[at + 1] = words[at + 1], words[at]
    letters = list(" ".join(words))
    changed = len(letters) // 50 if how == "heavy" else 1
    for at in rng.sample(range(len(letters)), changed):
        letters[at] = rng.choice("abcdefghij")
    return "".join(letters)


def near_duplicates(config: Config, above: float, copies: set[str], planted: str, vector: str = "") -> dict[str, Any]:
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
                if one.partition(":")[2] in ids:
                    right.add(one)
    return {
        "planted": planted,
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
        trials = TRIALS if share else UNDRIFTED_TRIALS
        for trial in range(trials):
            rng = np.random.default_rng(trial)
            of_value = real[label[real] == largest]
            many = min(int(share * MONTH), len(of_value) // 2)
            month = np.concatenate(
                [rng.choice(of_value, many, replace=False), rng.choice(real, MONTH - many, replace=False)]
            )
            before = np.setdiff1d(real, month)
            alarms += discrepancy(vectors[before], vectors[month], trial).p_value <= 0.01
            if trial < TRIALS:
                areas.append(separation(vectors[before], vectors[month], trial).auc)
        print(
            f"months of {MONTH} rows, {many} of them more of {largest}: {alarms} of {trials} found to have drifted, "
            f"mean AUC {np.mean(areas):.3f}"
        )
        if share:
            # Of as many undrifted months, so many are found in the mean.
            wrong = false * TRIALS / UNDRIFTED_TRIALS
            found.append(
                {
                    "planted": f"months, {many / MONTH:.0%} more of one value",
                    "command": "drift --since",
                    "rows planted": TRIALS,
                    "found": round(alarms + wrong),
                    "precision": round(alarms / max(1, alarms + wrong), 3),
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
    copies: set[str] = set()
    pictures: set[str] = set()
    for file in rng.sample(sorted(names), len(names) // 10):
        with Image.open(folder / file) as photo:
            half = photo.convert("RGB").resize((max(1, photo.width // 2), max(1, photo.height // 2)))
        half.save(photos / f"copy_{file}.jpg", quality=60)
        items.append({"id": f"copy:{file}", "photo": f"photos/copy_{file}.jpg", "label": names[file]})
        copies.add(f"copy:{file}")
    for number, pixels in enumerate(drawn()):
        Image.fromarray(pixels).save(photos / f"drawn_{number}.jpg")
        items.append({"id": f"drawn:{number}", "photo": f"photos/drawn_{number}.jpg", "label": "drawn"})
        pictures.add(f"drawn:{number}")
    path = work / "photos.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in items))
    config = configured(
        work,
        corpus={"paths": [str(path)], "media": "photo", "media_modality": "image", "metadata": {"label": "string"}},
        encoders={"photo": {"model": "efficientnet-lite0"}, "words": {"model": "conse"}},
    )
    rows = [
        near_duplicates(config, above, copies, "10% of images recompressed", "photo") for above in (0.9, 0.8, 0.7, 0.6)
    ]
    for k in (3, 10):
        found = set(outliers(config, k=k, vector="photo").table.column("item_id").to_pylist())
        rows.append(row("8 drawn pictures", found, pictures, f"outliers -k {k}"))
    false_matches(config)
    told = labels(config, sorted(set(names.values())), truth="label", vector="words").figures
    print(f"labels of images, {len(set(names.values()))} by their names: accuracy {told['accuracy']}")
    figures = clusters(config, n=len(names) // 10, vector="photo").figures
    print(f"clusters of images: {'; '.join(list(figures['sizes'])[:4])}")
    return rows


def drawn() -> list[Any]:
    """Eight drawn pictures: noise, one colour, stripes, a checkerboard and others, each uint8[240, 320, 3]."""
    y, x = np.mgrid[0:240, 0:320]
    grey = [
        np.random.default_rng(0).integers(0, 256, (240, 320)),
        np.zeros((240, 320)),
        np.full((240, 320), 255),
        x * 255 // 319,
        (x // 10 % 2) * 255,
        ((x // 20 + y // 20) % 2) * 255,
        (np.hypot(x - 160, y - 120) < 80) * 255,
        (np.hypot(x - 160, y - 120).astype(int) // 12 % 2) * 255,
    ]
    return [np.repeat(one[:, :, None], 3, axis=2).astype(np.uint8) for one in grey]


def false_matches(config: Config) -> None:
    """Of pairs of two photographs, how many a threshold takes for one; of a photograph and its copy, how many not."""
    sample = current_rows(config).sample("photo")
    ids = sample.rows.column("item_id").to_pylist()
    place = {one: at for at, one in enumerate(ids)}
    vectors = sample.normalised
    originals = [at for at, one in enumerate(ids) if not one.startswith(("copy:", "drawn:"))]
    different = (vectors[originals] @ vectors[originals].T)[np.triu_indices(len(originals), 1)]
    same = [float(vectors[place[one]] @ vectors[place[one.removeprefix("copy:")]]) for one in ids if one[:5] == "copy:"]
    for above in (0.9, 0.8, 0.7, 0.6, 0.5):
        print(
            f"images, --above {above}: {np.mean(different >= above):.4%} of {len(different):,} pairs of different "
            f"photographs match, {np.mean(np.asarray(same) < above):.1%} of {len(same)} pairs of the same do not"
        )


if __name__ == "__main__":
    main()
