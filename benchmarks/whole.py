"""The whole command against what users would pick instead, in turn: corpus to Milvus Lite collection, whole process.

    python benchmarks/whole.py ../shared/data/debian/corpus_10000.jsonl --peers ../shared/bench/peers \
        [--environments FOLDER] [--only naive haystack] [--rounds 2] [--json FILE]

Each peer is a script `bench_<peer>.py` of the peers' folder, run by `FOLDER/v_<peer>/bin/python` where that exists; the
baseline loop (`naive`) runs in this environment otherwise. Wall seconds from start to exit. Next to each: how many
times as fast vecbeam is, by the mean of its runs before, between and after it, as the speed of a machine drifts. At
the end the engine inside the pipeline is compared with the engine alone, which is timed before and after each run.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import common

from schemas.config import EncoderConfig
from transforms.encoders import resolve, text_inputs

ALONE = 2000
"""Texts on which the engine alone is timed."""


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--environments", type=Path)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--precisions", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=1, help="runs of each peer, vecbeam's between them")
    given = parser.parse_args()
    items = len(common.records(given.corpus))
    warm(given.corpus, given.precisions)
    mine = {precision: [run(given.corpus, precision)] for precision in given.precisions}
    rows: list[dict[str, Any]] = []
    for peer, script, python in peers(given.peers, given.environments, given.only):
        compile_packages(python)
        took: list[float] = []
        for _ in range(given.rounds):
            took.append(theirs(script, python, given.corpus))
            print(f"{peer}: {took[-1]:.1f} s", file=sys.stderr)
            for precision, runs in mine.items():
                runs.append(run(given.corpus, precision))
        seconds = statistics.mean(took)
        row = {"what": peer, "seconds": seconds, "rows/s": items / seconds}
        for precision, runs in mine.items():
            row[f"vecbeam {precision} is"] = seconds / statistics.mean(own for own, _ in runs[-1 - given.rounds :])
        rows.append(row)
    means = {precision: statistics.mean(seconds for seconds, _ in runs) for precision, runs in mine.items()}
    for precision, seconds in means.items():
        row = {"what": f"vecbeam {precision}", "seconds": seconds, "rows/s": items / seconds}
        rows.append(row | {f"vecbeam {other} is": seconds / means[other] for other in means})
    common.show(rows, given.json)
    for precision, runs in mine.items():
        shares = ", ".join(f"{share:.1%}" for _, share in runs)
        print(f"{precision}: the engine in the pipeline has this share of its rate alone, run by run: {shares}")


def peers(folder: Path, environments: Path | None, only: Sequence[str] | None) -> Iterator[tuple[str, Path, Path]]:
    """Name, script and interpreter of each peer that can run here."""
    for script in sorted(folder.glob("bench_*.py")):
        peer = script.stem.removeprefix("bench_")
        python = environments / f"v_{peer}" / "bin" / "python" if environments else Path("none")
        if peer == "naive" and not python.exists():
            python = Path(sys.executable)
        if python.exists() and (not only or peer in only):
            yield peer, script, python


def warm(corpus: Path, precisions: Sequence[str]) -> None:
    """A backfill of a few records, which leaves the converted model behind, as any earlier run would."""
    for precision in precisions:
        with tempfile.TemporaryDirectory() as name:
            few = Path(name) / "few.jsonl"
            few.write_text("".join(corpus.read_text().splitlines(keepends=True)[:20]))
            encoder = {"model": "all-MiniLM-L6-v2", "precision": precision}
            common.vecbeam("backfill", common.configure(Path(name), few, encoder=encoder))


def run(corpus: Path, precision: str) -> tuple[float, float]:
    """A backfill: its seconds, and the share of the engine's rate alone, before and after it, that it reached."""
    before = engine_alone(corpus, precision)
    with tempfile.TemporaryDirectory() as name:
        encoder = {"model": "all-MiniLM-L6-v2", "precision": precision}
        seconds, report = common.vecbeam("backfill", common.configure(Path(name), corpus, encoder=encoder))
    alone = (before + engine_alone(corpus, precision)) / 2
    print(f"vecbeam {precision}: {seconds:.1f} s, {report['seconds']}", file=sys.stderr)
    return seconds, report["rates"]["tokens_per_second"] / alone


def theirs(script: Path, python: Path, corpus: Path) -> float:
    """A peer's script on the same job."""
    folder = resolve(EncoderConfig()).files.folder  # type: ignore[attr-defined]
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


def compile_packages(python: Path) -> None:
    """Leaves bytecode of all packages: not every installer does, and each start would compile thousands of modules."""
    line = "import compileall, sysconfig; compileall.compile_dir(sysconfig.get_path('purelib'), quiet=2, workers=0)"
    subprocess.run([python, "-c", line], check=True)


def engine_alone(corpus: Path, precision: str) -> float:
    """Tokens per second of the encoder over the first texts at once."""
    texts = [record["text"] for record in common.records(corpus, ALONE)]
    encoder = resolve(EncoderConfig.model_validate({"precision": precision})).load()
    encoder.encode(text_inputs(texts[:64]))
    start = time.perf_counter()
    found = encoder.encode(text_inputs(texts))
    return float(found.amount.sum() / (time.perf_counter() - start))


if __name__ == "__main__":
    main()
