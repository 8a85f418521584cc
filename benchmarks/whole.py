"""The whole command against what users would pick instead, in turn: corpus to Milvus Lite collection, whole process.

    python benchmarks/whole.py ../shared/data/debian/corpus_10000.jsonl --peers ../shared/bench/peers \
        [--environments FOLDER] [--only naive haystack] [--json FILE]

Each peer is a script `bench_<peer>.py` of the peers' folder, run by `FOLDER/v_<peer>/bin/python` where that exists; the
loop by hand (`naive`) runs in this environment otherwise. Wall seconds from start to exit. Beside each: how many times
as fast vecbeam is. At the end the engine inside the pipeline is held against the engine alone on the same chunks.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common

from schemas.config import Encoder
from transforms.encoders import resolve


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--environments", type=Path)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--precisions", nargs="*", default=["float32", "bfloat16"])
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    inside = {}
    items = len(common.records(given.corpus))
    for precision in given.precisions:
        seconds, inside[precision] = ours(given.corpus, precision)
        rows.append({"what": f"vecbeam {precision}", "seconds": round(seconds, 1)})
    for script in sorted(given.peers.glob("bench_*.py")):
        peer = script.stem.removeprefix("bench_")
        python = given.environments / f"v_{peer}" / "bin" / "python" if given.environments else Path("none")
        if peer == "naive" and not python.exists():
            python = Path(sys.executable)
        if python.exists() and (not given.only or peer in given.only):
            rows.append({"what": peer, "seconds": round(theirs(script, python, given.corpus), 1)})
    for row in rows:
        row["rows/s"] = round(items / row["seconds"], 1)
        for mine in rows[: len(given.precisions)]:
            row[f"{mine['what']} is"] = f"{row['seconds'] / mine['seconds']:.2f}x"
    common.show(rows, given.json)
    for precision, report in inside.items():
        alone = engine_alone(given.corpus, precision)
        within = report["rates"]["tokens_per_second"]
        print(f"{precision}: {within:,.0f} tokens/s in the pipeline, {alone:,.0f} alone: {within / alone:.1%}")


def ours(corpus: Path, precision: str) -> tuple[float, dict[str, Any]]:
    """A backfill, after one of a few records that leaves the converted model behind, as any earlier run would."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        few = work / "few.jsonl"
        few.write_text("".join(corpus.read_text().splitlines(keepends=True)[:20]))
        encoder = {"model": "all-MiniLM-L6-v2", "precision": precision}
        (work / "first").mkdir()
        common.vecbeam("backfill", common.configure(work / "first", few, encoder=encoder))
        return common.vecbeam("backfill", common.configure(work, corpus, encoder=encoder))


def theirs(script: Path, python: Path, corpus: Path) -> float:
    """A peer's script on the same job."""
    folder = resolve(Encoder()).folder  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as work:
        start = time.perf_counter()
        subprocess.run(
            [
                python,
                "-B",
                script,
                "--input",
                corpus,
                "--model",
                folder,
                "--uri",
                f"{work}/milvus.db",
                "--collection",
                "c",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=work,
        )
        return time.perf_counter() - start


def engine_alone(corpus: Path, precision: str) -> float:
    """Tokens a second of the encoder over all texts at once."""
    texts = [record["text"] for record in common.records(corpus)]
    encoder = resolve(Encoder(precision=precision)).load()
    encoder.encode(texts[:64])
    start = time.perf_counter()
    found = encoder.encode(texts)
    return float(found.tokens.sum() / (time.perf_counter() - start))


if __name__ == "__main__":
    main()
