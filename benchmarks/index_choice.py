"""Whether `collection.index: auto` is as good as the best of a full sweep in Milvus, and keeps its promise.

    python benchmarks/index_choice.py ../shared/data/debian/corpus.jsonl.gz [--rows 60000] [--server]

`--server` starts the server of the test extra; `--uri` names another one. Without them it is Milvus Lite.

It holds out a quarter of the packages of two sections, and those after the rows. It embeds the descriptions of the rows
(`--encoder`, by default LSA, which is fast), and publishes them with `index: auto` and the two sections as filters. The
packages that were held out are the queries; the collection does not have them. Of the chosen index it measures
recall@10, also under the filters; bytes that a search reads, which is what the choice minimises, and memory, both by
formula; milliseconds of a search, the median of rounds and the slowest of these over the fastest, with a consistency
that does not make a server wait. Then it builds all candidates in the same Milvus, and finds the narrowest search of
each whose recall of these queries is as promised. Then it builds and measures the chosen index again. At the end the
same rows become a second collection with the fastest index of the sweep, and rounds of searches of both take turns,
because what is measured minutes apart differs by more than the indexes do.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from common import arguments, records, show

from pipelines.backfill import backfill
from pipelines.steps.collection.current_rows import current_rows
from pipelines.steps.collection.served import with_index
from pipelines.steps.corpus.source import open_checkpoint
from pipelines.steps.publish.index_candidates import candidates, with_candidate
from schemas.config import Config
from schemas.config.loader import load_config
from schemas.milvus import CollectionSpec, index_bytes
from transforms import milvus
from transforms.encoders.base import text_inputs
from transforms.explore.candidate import Candidate
from transforms.explore.live_rows import Floats
from transforms.explore.search_width import narrowest
from transforms.load.specification import collection_spec
from transforms.milvus.nearest import search_many
from transforms.milvus.recall import Asked
from transforms.support.vectors import matrix_of

SECTIONS = ("games", "libs")
RECALL = 0.97
HELD_EVERY = 4
QUERIES, FEW = 1_000, 200
"""Most queries of a section; how many of them are enough where the recall is not near the promise."""
ROUNDS, TIMED = 15, 20
TURNS = 75


class Unseen:
    """Queries that are not in the collection.

    Attributes:
        rows: the table with the columns id and vector of the rows that match their filter.
        vectors: float32[n, dimensions].
    """

    def __init__(self, rows: pa.Table, vectors: Floats) -> None:
        self.rows = rows
        self.vectors = vectors

    def recall(self, connection: milvus.Milvus, spec: CollectionSpec, filter: str, most: int) -> milvus.Recall:
        """Recall@10 of an index that is built."""
        column, some = spec.vectors[0], self.vectors[:most]
        hits = search_many(connection, spec.name, some, 10, column.search_parameters, filter)
        asked = Asked(column, some, [[hit.id for hit in row] for row in hits], 10)
        exact = asked.exact()
        exact.add(self.rows)
        return asked.recall(exact)


class Bench:
    """A published collection, and how an index of it does."""

    def __init__(self, config: Config, connection: milvus.Milvus, held_out: Sequence[dict[str, Any]]) -> None:
        self._connection = connection
        rows = current_rows(config)
        checkpoint, models = open_checkpoint(config)
        self.spec = served_spec(config, connection)
        self.candidates = candidates(config, checkpoint, rows.snapshot, models.layout, written=False)
        self._rows = len(rows)
        table = pa.concat_tables(rows.tables(["id", "vector", "section"]))
        encoder = models.by_name["vector"].load()
        self._unseen = {}
        for section in (*SECTIONS, ""):
            texts = [one["text"] for one in held_out if section in ("", one["section"])]
            matching = table.filter(pc.equal(table.column("section"), section)) if section else table
            # The packages after the rows come last, and are of all sections.
            encoded = encoder.encode(text_inputs(texts[-QUERIES:]), query=True)
            filter = f'section == "{section}"' if section else ""
            self._unseen[filter] = Unseen(matching, matrix_of(encoded.vectors))

    def milliseconds(self, spec: CollectionSpec) -> float:
        """Of one search, alone: the mean of a round."""
        column = spec.vectors[0]
        begun = time.perf_counter()
        for query in self._unseen[""].vectors[:TIMED]:
            self._connection.client.search(
                spec.name,
                [query],
                anns_field=column.name,
                limit=10,
                search_params={"params": dict(column.search_parameters)},
                consistency_level="Eventually",
            )
        return (time.perf_counter() - begun) / TIMED * 1000

    def ratios(self, first: CollectionSpec, second: CollectionSpec) -> Floats:
        """Time of a search of one collection over that of another, of each pair of rounds."""
        pairs = [(self.milliseconds(first), self.milliseconds(second)) for _ in range(TURNS)]
        return np.array([one / other for one, other in pairs], np.float32)

    def row(self, spec: CollectionSpec) -> dict[str, Any]:
        """Figures of an index that is built."""
        column = spec.vectors[0]
        memory = index_bytes(column.index_type, column.index_parameters, self._rows, column.dimensions)
        counted = next(
            one
            for one in self.candidates
            if (one.type, dict(one.parameters)) == (column.index_type, dict(column.index_parameters))
        )
        times = [self.milliseconds(spec) for _ in range(ROUNDS)]
        recalls = {
            filter: unseen.recall(self._connection, spec, filter, QUERIES) for filter, unseen in self._unseen.items()
        }
        return {
            "index": column.index_type,
            "build": json.dumps(column.index_parameters),
            "search": json.dumps(column.search_parameters),
            "reads MB": round(counted.searched(column.search_parameters).cost / 1e6, 3),
            "memory MB": round(memory / 1e6, 1),
            "ms": round(statistics.median(times), 1),
            "slowest": round(max(times) / min(times), 2),
            **{
                f"recall {filter} of {one.queries:,}": f"{one.at_10:.4f} ±{one.error:.4f}"
                for filter, one in recalls.items()
            },
        }

    def narrowest(self, candidate: Candidate) -> dict[str, Any] | None:
        """Figures of the narrowest search that keeps the recall; None if none does. Builds the index."""
        milvus.finish(self._connection, with_candidate(self.spec, candidate))

        def searched(search: Mapping[str, int]) -> CollectionSpec:
            return with_candidate(self.spec, replace(candidate, search=search))

        def keeps(search: Mapping[str, int]) -> bool:
            return all(self._keeps(searched(search), filter) for filter in self._unseen)

        found = narrowest(candidate.type, candidate.search, candidate.parameters.get("nlist", 1), keeps)
        return self.row(searched(found)) if found is not None else None

    def _keeps(self, spec: CollectionSpec, filter: str) -> bool:
        found = self._unseen[filter].recall(self._connection, spec, filter, FEW)
        if abs(found.at_10 - RECALL) < 3 * found.error:
            found = self._unseen[filter].recall(self._connection, spec, filter, QUERIES)
        return found.at_10 >= RECALL


def served_spec(config: Config, connection: milvus.Milvus) -> CollectionSpec:
    """The collection that is served, with its index and the parameters of a search."""
    state = milvus.state(connection, milvus.served(connection, config.name) or "")
    assert state is not None
    _, models = open_checkpoint(config)
    spec = collection_spec(with_index(config, state), current_rows(config).snapshot, models.layout)
    return replace(spec, name=state.name)


def split(packages: Sequence[dict[str, Any]], rows: int) -> tuple[Sequence[dict[str, Any]], Sequence[dict[str, Any]]]:
    """The rows of the collection, and the packages that are held out; those after the rows come last."""
    of_sections = {section: [one for one in packages if one["section"] == section] for section in SECTIONS}
    held_out = [one for some in of_sections.values() for one in some[::HELD_EVERY]]
    ids = {one["id"] for one in held_out}
    others = [one for one in packages if one["id"] not in ids]
    return others[:rows], [*held_out, *others[rows:]]


@contextmanager
def started(folder: Path, wanted: bool) -> Iterator[str]:
    """The address of the server of the test extra, started in a folder; "" if it is not wanted."""
    if not wanted:
        yield ""
        return
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    start_server = import_module("milvus_server").start_server
    (folder / "server").mkdir()
    server = start_server(folder / "server")
    try:
        yield server.uri
    finally:
        server.stop()


def median_words(values: Floats) -> str:
    """The median with its 95% interval by bootstrap."""
    drawn = np.random.default_rng(0).choice(values, (10_000, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return f"{np.median(values):.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--encoder", default="lsa")
    parser.add_argument("--uri", default="./milvus.db", help="of a Milvus server; by default Milvus Lite")
    parser.add_argument("--server", action="store_true", help="the server of the test extra")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, started(Path(folder), given.server) as uri:
        work = Path(folder)
        rows, held_out = split(records(given.corpus), given.rows)
        (work / "corpus.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
        filters = [f'section == "{one}"' for one in SECTIONS]
        promise = {"type": "auto", "recall_at_10": RECALL, "filters": filters}
        values = {
            "name": "bench",
            "corpus": {"paths": ["corpus.jsonl"], "content": ["text"], "metadata": {"section": "string"}},
            "chunk": False,
            "encoder": {"model": given.encoder},
            "checkpoint": "checkpoint",
            "collection": {"uri": uri or given.uri, "index": promise},
            "verify": {"max_rejected": 0.1, "max_dropped_tokens": 1.0, "recall_at_10": 0.5},
        }
        path = work / "vecbeam.yaml"
        path.write_text(yaml.safe_dump(values))
        config = load_config(path)
        begun = time.perf_counter()
        report = backfill(config)
        print(f"backfill took {time.perf_counter() - begun:.0f} s; {report.verify.index_chosen}", flush=True)
        with milvus.connected(config.collection) as connection:
            bench = Bench(config, connection, held_out)
            figures = [{"": "chosen", **bench.row(bench.spec)}]
            for candidate in bench.candidates:
                found = bench.narrowest(candidate)
                figures += [{"": "sweep", **found}] if found is not None else []
            milvus.finish(connection, bench.spec)
            figures.append({"": "again", **bench.row(bench.spec)})
            show(figures, given.json)
            fastest = min(figures[1:-1], key=lambda row: float(row["ms"]))
            build, search = json.loads(fastest["build"]), json.loads(fastest["search"])
            parameters = {"index": {"type": fastest["index"], **build}, "search": search}
            overrides = [f"collection.{name}={json.dumps(value)}" for name, value in parameters.items()]
            other = load_config(path, ["name=fastest", "checkpoint=fastest", *overrides])
            backfill(other)
            times = bench.ratios(bench.spec, served_spec(other, connection))
            print(f"ms of the chosen over {fastest['index']} {build} {search}, in turn: {median_words(times)}")
        milvus.release(config.collection)
    best = {name: min(row[name] for row in figures[1:-1]) for name in ("reads MB", "memory MB", "ms")}
    ratios = {name: round(figures[0][name] / value, 3) for name, value in best.items()}
    print("chosen against the best of the sweep:", ratios)


if __name__ == "__main__":
    main()
