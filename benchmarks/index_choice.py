"""Whether `collection.index: auto` is as good as the best of a full sweep in Milvus, and keeps its promise.

    python benchmarks/index_choice.py ../shared/data/debian/corpus.jsonl.gz [--rows 60000] [--server]

`--server` starts the server of the test extra; `--uri` names another one. Without them it is Milvus Lite.

It embeds package descriptions (`--encoder`, by default LSA, which is fast), publishes them with `index: auto` and two
filters, and measures with rows that the choice did not see: recall@10, also under the filters; bytes that a search
reads, which is what the choice minimises, and memory, both by formula; milliseconds of a search, the median of rounds
and the slowest of these over the fastest. Then it builds all candidates in the same Milvus, and finds the narrowest
search parameters of each that keep the recall. At the end it measures the chosen index again: what differs is noise.
"""

from __future__ import annotations

import gzip
import json
import statistics
import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml
from common import arguments, show

from pipelines.backfill import backfill
from pipelines.steps.collection.current_rows import current_rows
from pipelines.steps.collection.served import chosen_index, with_index
from pipelines.steps.corpus.source import open_checkpoint
from pipelines.steps.publish.index_candidates import candidates, with_candidate
from schemas.config import Config
from schemas.config.loader import load_config
from schemas.milvus import CollectionSpec, index_bytes
from transforms import milvus
from transforms.explore.candidate import Candidate
from transforms.explore.index_sweep import LADDER, PROBES
from transforms.explore.live_rows import LiveRows
from transforms.load.specification import collection_spec
from transforms.milvus.nearest import search_many

FILTERS = {"section": ["games", "libs"]}
RECALL = 0.97
UNSEEN = 4_711
"""Seed of the queries: another one than that of the choice and of the gate."""
QUERIES, ROUNDS, TIMED = 200, 5, 20


class Bench:
    """A published collection, and how an index of it does."""

    def __init__(self, config: Config, connection: milvus.Milvus) -> None:
        self._connection = connection
        self._rows: LiveRows = current_rows(config)
        state = milvus.state(connection, milvus.served(connection, config.name) or "")
        assert state is not None
        self.chosen = chosen_index(state)
        layout = open_checkpoint(config)[1].layout
        spec = collection_spec(with_index(config, state), self._rows.snapshot, layout)
        self.spec: CollectionSpec = replace(spec, name=state.name)
        self.candidates = candidates(config, open_checkpoint(config)[0], self._rows.snapshot, layout, written=False)
        sample = self._rows.sample("vector", most=QUERIES, seed=UNSEEN)
        self._queries = sample.vectors
        self._matching = {"": len(self._rows)}
        for section in FILTERS["section"]:
            expression = f'section == "{section}"'
            self._matching[expression] = sum(table.num_rows for table in self._parts(expression))

    def _parts(self, filter: str) -> Iterator[pa.Table]:
        for table in self._rows.tables(["id", "vector", "section"]):
            yield table.filter(pc.equal(table.column("section"), filter.split('"')[1])) if filter else table

    def recall(self, spec: CollectionSpec, filter: str) -> float:
        measured = milvus.measure_recall(
            self._connection,
            spec,
            partial(self._parts, filter),
            self._matching[filter],
            QUERIES,
            seed=UNSEEN,
            filter=filter,
        )
        assert measured is not None
        return measured.at_10

    def milliseconds(self, spec: CollectionSpec) -> list[float]:
        """Of one search, alone: of each round."""
        column = spec.vectors[0]
        times = []
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            for query in self._queries[:TIMED]:
                search_many(self._connection, spec.name, query[None, :], 10, column.search_parameters)
            times.append((time.perf_counter() - begun) / TIMED * 1000)
        return times

    def row(self, spec: CollectionSpec) -> dict[str, Any]:
        """Figures of an index that is built."""
        column = spec.vectors[0]
        memory = index_bytes(column.index_type, column.index_parameters, len(self._rows), column.dimensions)
        counted = next(
            one
            for one in self.candidates
            if (one.type, dict(one.parameters)) == (column.index_type, dict(column.index_parameters))
        )
        times = self.milliseconds(spec)
        return {
            "index": column.index_type,
            "build": json.dumps(column.index_parameters),
            "search": json.dumps(column.search_parameters),
            "reads MB": round(counted.searched(column.search_parameters).cost / 1e6, 3),
            "memory MB": round(memory / 1e6, 1),
            "ms": round(statistics.median(times), 1),
            "slowest": round(max(times) / min(times), 2),
            **{f"recall {filter}": round(self.recall(spec, filter), 4) for filter in self._matching},
        }

    def narrowest(self, candidate: Candidate) -> dict[str, Any] | None:
        """Figures of the narrowest search parameters that keep the recall; None if none does. Builds the index."""
        milvus.finish(self._connection, with_candidate(self.spec, candidate))
        name = next(iter(candidate.search), "")
        steps = (LADDER if name == "ef" else PROBES) if name else (0,)
        values = [value for value in steps if name != "nprobe" or value <= candidate.parameters["nlist"]]

        def searched(value: int) -> CollectionSpec:
            return with_candidate(self.spec, replace(candidate, search={name: value} if name else {}))

        def keeps(value: int) -> bool:
            return all(self.recall(searched(value), filter) >= RECALL for filter in self._matching)

        # A wider search finds no less.
        at = bisect_left(values, True, key=keeps)
        return self.row(searched(values[at])) if at < len(values) else None


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


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--encoder", default="lsa")
    parser.add_argument("--uri", default="./milvus.db", help="of a Milvus server; by default Milvus Lite")
    parser.add_argument("--server", action="store_true", help="the server of the test extra")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, started(Path(folder), given.server) as uri:
        work = Path(folder)
        with gzip.open(given.corpus, "rt") if given.corpus.suffix == ".gz" else given.corpus.open() as lines:
            (work / "corpus.jsonl").write_text("".join(islice(lines, given.rows)))
        filters = [f'section == "{one}"' for one in FILTERS["section"]]
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
        backfill(config)
        with milvus.connected(config.collection) as connection:
            bench = Bench(config, connection)
            rows = [{"": "chosen", **bench.row(bench.spec)}]
            for candidate in bench.candidates:
                found = bench.narrowest(candidate)
                rows += [{"": "sweep", **found}] if found is not None else []
            milvus.finish(connection, bench.spec)
            rows.append({"": "again", **bench.row(bench.spec)})
        milvus.release(config.collection)
    show(rows, given.json)
    best = {name: min(row[name] for row in rows[1:-1]) for name in ("reads MB", "memory MB", "ms")}
    print(
        "chosen against the best of the sweep:", {name: round(rows[0][name] / value, 3) for name, value in best.items()}
    )


if __name__ == "__main__":
    main()
