"""What a corpus takes: shards, parts, bytes at each arrow, GPU-hours, and Milvus's time and memory.

    python benchmarks/scale.py                               # the two corpora of docs/scale.md
    python benchmarks/scale.py documents --set items=5e7 per_chunk=350 dimensions=768 gpu_rate=2e6
    python benchmarks/scale.py --inputs                      # each input, its value, and where it is from

Nothing is run: the table is arithmetic over the inputs. An input is `measured` where the place that it names has the
figure (a heading of docs/benchmarks.md), `setting` where it is a default of vecbeam's, and `assumption` where nobody
measured it here: put in your own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, NamedTuple

MIB = 1 << 20
HOUR = 3600
MEASURED, SETTING, ASSUMED, CORPUS = "measured", "setting", "assumption", "corpus"


class Input(NamedTuple):
    value: float
    kind: str
    source: str
    unit: str = ""


@dataclass(frozen=True)
class Corpus:
    """A column of the table, by its inputs; `per_chunk` is what the encoder counts: tokens of text, or images."""

    name: str
    inputs: Mapping[str, Input]

    def changed(self, values: Mapping[str, float]) -> Corpus:
        """The corpus with some inputs of the user's."""
        new = {
            name: self.inputs[name]._replace(value=value, kind="given", source="--set")
            for name, value in values.items()
        }
        return replace(self, inputs={**self.inputs, **new})


SHARED = {
    "workers": Input(100, CORPUS, "the question: one GPU each", "workers"),
    "worker_cores": Input(16, CORPUS, "those of the machine with the GPU that was measured", "cores"),
    "batch_rows": Input(2048, SETTING, "batch_rows", "items"),
    "shard_bytes": Input(64 * MIB, SETTING, "corpus.shard_bytes", "bytes"),
    "digest_bytes": Input(80, MEASURED, "architecture.md, The diff", "bytes per item"),
    "digest_rate": Input(1e6 / 13.5, MEASURED, "Sync: 1,000,000 in 13 to 14 s", "items/s"),
    "listing_bytes": Input(80, MEASURED, "The listing", "bytes per file"),
    "listing_rate": Input(1e6 / 68.1, MEASURED, "The listing, local files", "files/s"),
    "record_bytes": Input(300, ASSUMED, "a row of the snapshot; a shard or a record in a shuffle", "bytes"),
    "upsert_rate": Input(9672, MEASURED, "Loading: 50,000 rows of 384, flushed", "rows/s"),
    "import_rate": Input(12205, MEASURED, "Loading: 50,000 rows of 384, import", "rows/s"),
    "index_rate": Input(10341 / 2.25 / 2, MEASURED, "Steps: HNSW of 10,341 rows of 384, two cores", "rows/s a core"),
    "index_cores": Input(256, ASSUMED, "cores that build the index, of all nodes", "cores"),
    "links": Input(16, SETTING, "collection.index, M of HNSW", "links"),
    "verify_rate": Input(
        20000 / (12.2 - 6.6), MEASURED, "Verify: all columns, 10,000 and 30,000 rows", "rows/s a core"
    ),
    "segment_bytes": Input(512 * MIB, SETTING, "dataCoord.segment.maxSize of server 2.3.5", "bytes"),
}
DOCUMENTS = Corpus(
    "documents",
    {
        "items": Input(1e9, CORPUS, "the question", "items"),
        "item_bytes": Input(2000, ASSUMED, "a page of text", "bytes"),
        "file_bytes": Input(256 * MIB, ASSUMED, "JSONL files", "bytes"),
        "chunks": Input(2, ASSUMED, "a page in chunks of 256 tokens", "rows per item"),
        "per_chunk": Input(220, ASSUMED, "tokens of such a chunk", "tokens"),
        "dimensions": Input(384, CORPUS, "all-MiniLM-L6-v2"),
        "row_bytes": Input(700, ASSUMED, "ids, text and metadata of a row, compressed", "bytes"),
        "gpu_rate": Input(10_854_325, MEASURED, "The forward pass alone: 256 tokens", "tokens/s"),
        "gpu_reached": Input(0.62, MEASURED, "A GPU: MiniLM, mixed lengths, tokenized before", "share"),
        "core_rate": Input(244_000, MEASURED, "A GPU: MiniLM, about 200 tokens, of 16 vCPUs", "tokens/s"),
        **SHARED,
    },
)
IMAGES = Corpus(
    "images",
    {
        "items": Input(1e8, CORPUS, "the question", "items"),
        "item_bytes": Input(150_000, ASSUMED, "a JPEG of half a megapixel", "bytes"),
        "file_bytes": Input(150_000, CORPUS, "a file is an item", "bytes"),
        "chunks": Input(1, SETTING, "an image is a row", "rows per item"),
        "per_chunk": Input(1, SETTING, "an image is a row", "images"),
        "dimensions": Input(512, CORPUS, "ViT-B-32"),
        "row_bytes": Input(200, ASSUMED, "ids, uri and metadata of a row, compressed", "bytes"),
        "gpu_rate": Input(29_460, MEASURED, "The forward pass alone: ViT-B-32", "images/s"),
        "gpu_reached": Input(0.5, ASSUMED, "of the forward pass alone, with copies and waits", "share"),
        "core_rate": Input(65, MEASURED, "A GPU: photographs, decoding alone, of 16 vCPUs", "images/s"),
        **SHARED,
    },
)
CORPORA = {"documents": DOCUMENTS, "images": IMAGES}


class Row(NamedTuple):
    what: str
    value: float
    unit: str
    how: str


def rows_of(corpus: Corpus) -> list[Row]:
    """The table of a corpus: each figure with the arithmetic behind it."""
    at = {name: one.value for name, one in corpus.inputs.items()}
    items, workers = at["items"], at["workers"]
    size, rows = items * at["item_bytes"], items * at["chunks"]
    files = ceil(size / at["file_bytes"])
    shards = ceil(size / at["shard_bytes"])
    batches = max(shards, ceil(items / at["batch_rows"]))
    vector = at["dimensions"] * 4
    checkpoint = rows * (vector + at["row_bytes"])
    amount = rows * at["per_chunk"]
    rate = min(at["gpu_rate"] * at["gpu_reached"], at["core_rate"] * at["worker_cores"])
    gpu_hours = amount / rate / HOUR
    graph = vector + 2 * at["links"] * 4 * 1.05
    memory = rows * graph
    segments = ceil(rows * vector / at["segment_bytes"])
    import_hours = rows / at["import_rate"] / HOUR
    return [
        Row("files", files, "", "items x item_bytes / file_bytes"),
        Row("bytes of the corpus", size, "B", "items x item_bytes"),
        Row("rows", rows, "", "items x chunks"),
        Row("shards", shards, "", "bytes / shard_bytes; small files share one"),
        Row("parts", batches, "", "items / batch_rows, and at least one for each shard"),
        Row("bytes of the checkpoint", checkpoint, "B", "rows x (4 x dimensions + row_bytes)"),
        Row("bytes of a part", checkpoint / batches, "B", ""),
        Row("store -> read", size, "B", "each byte once; a sync reads changed files twice"),
        Row("read ~> embed, shuffled: shards", shards * at["record_bytes"], "B", "names only"),
        Row("embed -> checkpoint", checkpoint, "B", "from the worker that embedded it"),
        Row("checkpoint ~> snapshot, shuffled: records", batches * at["record_bytes"], "B", "one a part"),
        Row("digests, shuffled by a sync that reads all", items * at["digest_bytes"], "B", "80 a changed item"),
        Row("checkpoint -> Milvus", checkpoint, "B", ""),
        Row("launcher's memory: listing", files * at["listing_bytes"], "B", "80 a file"),
        Row("launcher's memory: parts", batches * at["record_bytes"], "B", ""),
        Row("hours to list from one machine", files / at["listing_rate"] / HOUR, "h", ""),
        Row("CPU-hours to compare all digests", items / at["digest_rate"] / HOUR, "h", "spread over the workers"),
        Row("rate of a worker", rate, "1/s", "the smaller of gpu_rate x gpu_reached and core_rate x worker_cores"),
        Row("GPU-hours", gpu_hours, "h", "rows x per_chunk / rate of a worker"),
        Row("hours to embed", gpu_hours / workers, "h", "GPU-hours / workers"),
        Row("seconds of a batch", amount / batches / rate, "s", "lost at most, a worker and kill"),
        Row(
            "writes of parts a second",
            2 * batches / (gpu_hours / workers * HOUR),
            "1/s",
            "part and items file, all workers",
        ),
        Row("hours to upsert, one server as measured", rows / at["upsert_rate"] / HOUR, "h", ""),
        Row("hours to import, one server as measured", import_hours, "h", ""),
        Row("import jobs", ceil(batches / 1024), "", "1,024 files per job"),
        Row("segments", segments, "", "rows x 4 x dimensions / segment_bytes"),
        Row("core-hours of the index build", rows / at["index_rate"] / HOUR, "h", "at the rate of small segments"),
        Row("hours of the index build", rows / at["index_rate"] / at["index_cores"] / HOUR, "h", "/ index_cores"),
        Row("memory of the index", memory, "B", "rows x (4 x dimensions + 2 M links of 4 B, and 5% above)"),
        Row("core-hours to verify all columns", rows / at["verify_rate"] / HOUR, "h", ""),
    ]


def text(row: Row) -> str:
    """The value as a person writes it."""
    value = row.value
    if row.unit == "B":
        for name in ("B", "kB", "MB", "GB", "TB"):
            if value < 1000 or name == "TB":
                return f"{value:,.3g} {name}" if value < 100 else f"{value:,.0f} {name}"
            value /= 1000
    shown = f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2g}"
    return f"{shown} {row.unit}".strip()


def table(corpora: Sequence[Corpus]) -> list[str]:
    """The lines of a Markdown table: a column for each corpus, and how each figure is computed."""
    columns = [rows_of(corpus) for corpus in corpora]
    lines = ["| " + " | ".join(["what", *(corpus.name for corpus in corpora), "from"]) + " |"]
    lines.append("|---" * (len(corpora) + 2) + "|")
    lines += [
        "| " + " | ".join([row[0].what, *map(text, row), row[0].how]) + " |" for row in zip(*columns, strict=True)
    ]
    return lines


def inputs_table(corpora: Sequence[Corpus]) -> list[str]:
    """The lines of a Markdown table of the inputs."""
    lines = ["| " + " | ".join(["input", *(corpus.name for corpus in corpora), "unit", "kind", "source"]) + " |"]
    lines.append("|---" * (len(corpora) + 4) + "|")
    for name in corpora[0].inputs:
        each = [corpus.inputs[name] for corpus in corpora]
        kinds = dict.fromkeys(one.kind for one in each)
        sources = dict.fromkeys(one.source for one in each)
        units = dict.fromkeys(one.unit for one in each)
        cells = [name, *(f"{one.value:,.6g}" if one.value < 1e6 else f"{one.value:,.0f}" for one in each)]
        lines.append("| " + " | ".join([*cells, "; ".join(units), "; ".join(kinds), "; ".join(sources)]) + " |")
    return lines


def given_inputs(words: Sequence[str]) -> dict[str, float]:
    """The inputs of `--set`, checked.

    Raises:
        SystemExit: for an unknown name, and a value that is not a positive number.
    """
    values: dict[str, Any] = {}
    known = DOCUMENTS.inputs
    for word in words:
        name, _, number = word.partition("=")
        if name not in known:
            sys.exit(f"--set {word}: unknown input {name!r}; the inputs are {', '.join(known)}")
        try:
            values[name] = float(number)
        except ValueError:
            sys.exit(f"--set {word}: {number!r} is not a number")
        if not 0 < values[name] < float("inf"):
            sys.exit(f"--set {word}: {name} must be positive")
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", nargs="*", metavar="CORPUS", help=", ".join(CORPORA))
    parser.add_argument("--set", nargs="+", default=[], metavar="INPUT=NUMBER")
    parser.add_argument("--inputs", action="store_true")
    given = parser.parse_args()
    for name in given.corpora:
        if name not in CORPORA:
            sys.exit(f"{name!r} is not a corpus; use one of {', '.join(CORPORA)}")
    chosen = [CORPORA[name].changed(given_inputs(given.set)) for name in given.corpora or CORPORA]
    for line in (inputs_table if given.inputs else table)(chosen):
        print(line)


if __name__ == "__main__":
    main()
