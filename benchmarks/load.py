"""Loading rates: parts to a collection, against the bare client's best way to insert the same rows.

    python benchmarks/load.py [--rows 10000] [--dimensions 384 768] [--uri http://127.0.0.1:19530] [--json FILE]

The bare client inserts and upserts lists of dicts with numpy vectors in messages of 1,000, 2,000 and 5,000 rows; its
best rate counts. vecbeam upserts the same rows from Arrow tables of 2,000 rows, and on a server also imports them as
Parquet files, from a folder that it can read. The index comes after either way and is left out; what is imported is
flushed already, so it is compared with upserting and flushing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import common
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.config import Collection
from schemas.milvus import CollectionSpec, VectorColumn
from transforms import milvus
from transforms.milvus.rows.bulk_import import BulkInsert
from transforms.milvus.rows.import_service import JobStage

WORDS = "a line of text that stands for the description of a package, with as many words as most of them have " * 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10000)
    parser.add_argument("--dimensions", type=int, nargs="+", default=[384, 768])
    parser.add_argument("--indexes", nargs="+", default=["FLAT", "HNSW"])
    parser.add_argument("--uri")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    figures = []
    with tempfile.TemporaryDirectory() as name:
        config = Collection(uri=given.uri or f"{name}/milvus.db")
        with milvus.connected(config) as connection:
            for index in given.indexes:
                for dimensions in given.dimensions:
                    figures.append(compare(connection, Path(name), given.rows, dimensions, index))
    common.show(figures, given.json)


def compare(connection: milvus.Milvus, folder: Path, rows: int, dimensions: int, index: str) -> dict[str, Any]:
    table = rows_table(rows, dimensions)
    spec = CollectionSpec(
        name="bench_load",
        alias="bench",
        space_id="s",
        snapshot_id="s",
        vectors=(VectorColumn("vector", dimensions, "COSINE", index),),
    )
    dicts = table.drop_columns(["vector"]).to_pylist()
    vectors = np.stack(table.column("vector").to_numpy(zero_copy_only=False))
    bare = {}
    for way in ("insert", "upsert"):
        for size in (1000, 2000, 5000):
            milvus.drop(connection, spec.name)
            milvus.create(connection, spec, "bench")
            start = time.perf_counter()
            for at in range(0, rows, size):
                batch = [
                    {**row, "vector": vector}
                    for row, vector in zip(dicts[at : at + size], vectors[at : at + size], strict=True)
                ]
                getattr(connection.client, way)(spec.name, batch)
            bare[f"{way} {size}"] = rows / (time.perf_counter() - start)
    best = max(bare, key=bare.__getitem__)
    milvus.drop(connection, spec.name)
    milvus.create(connection, spec, "bench")
    start = time.perf_counter()
    for at in range(0, rows, 2000):
        milvus.upsert(connection, spec, table.slice(at, 2000))
    ours = rows / (time.perf_counter() - start)
    figures = {"index": index, "dimensions": dimensions, "bare client": round(bare[best]), "its best": best}
    figures |= {"upsert": round(ours), "ratio": round(ours / bare[best], 2)}
    if not connection.settings.is_lite:
        connection.client.flush(spec.name)
        flushed = rows / (time.perf_counter() - start)
        imported = rows / import_seconds(connection, spec, table, folder)
        figures |= {"upsert, flushed": round(flushed), "import": round(imported)}
        figures |= {"import to upsert": round(imported / flushed, 2)}
    milvus.drop(connection, spec.name)
    return figures


def import_seconds(connection: milvus.Milvus, spec: CollectionSpec, table: pa.Table, folder: Path) -> float:
    milvus.drop(connection, spec.name)
    milvus.create(connection, spec, "bench")
    uri = folder / f"rows-{spec.vectors[0].dimensions}-{spec.vectors[0].index_type}.parquet"
    pq.write_table(table, uri, compression="zstd")
    start = time.perf_counter()
    service = BulkInsert(connection, spec.name)
    job = service.create([service.path_of(str(uri))], "")
    while (state := service.state(job)).stage is JobStage.RUNNING:
        time.sleep(0.2)
    if state.stage is JobStage.FAILED:
        raise SystemExit(state.reason)
    return time.perf_counter() - start


def rows_table(rows: int, dimensions: int) -> pa.Table:
    """Rows as a part has them, with random vectors (seeded)."""
    vectors = np.random.default_rng(0).standard_normal((rows, dimensions), dtype=np.float32)
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * dimensions)
    numbers = pa.array(np.zeros(rows, np.int64))
    ids = [f"item-{number}" for number in range(rows)]
    return pa.table(
        {
            "id": [f"{name}#0" for name in ids],
            "item_id": ids,
            "chunk": numbers,
            "text": [WORDS] * rows,
            "start": numbers,
            "end": numbers,
            "content_hash": ["0" * 32] * rows,
            "vector": pa.ListArray.from_arrays(offsets, pa.array(vectors.reshape(-1))),
            "tokens": numbers,
            "tokens_dropped": numbers,
        }
    )


if __name__ == "__main__":
    main()
