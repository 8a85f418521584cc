"""Runs every case of ../shared/cases as its README says and holds it against the right outcome: `make cases`.

A case is a folder of small files that once went wrong. Each has a check of its own here; it runs in a temporary copy,
with the commands in this process, except for those that need an environment or streams of their own. Prints a table,
and ends with exit code 1 where a case is not right.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"
PROCESSES = 2
LIMIT_S = 120
QUIET = "--quiet"

Check = Callable[[], str]
CHECKS: dict[str, Check] = {}


class Done(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return self.out + self.err


def case(check: Check) -> Check:
    """Registers a check; it runs in a copy of its case's folder and returns the outcome in a few words."""
    CHECKS[check.__name__.replace("_", "-")] = check
    return check


def vecbeam(*words: str) -> Done:
    """A command, in this process."""
    from typer.testing import CliRunner

    from pipelines.cli import app

    done = CliRunner().invoke(app, list(words))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Done(done.exit_code, done.stdout, done.stderr)


def shell(command: str, **environment: str) -> Done:
    """A command line in a process of its own."""
    release()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    return Done(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))


def release() -> None:
    """Releases all Milvus Lite files of this process."""
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_all()


def rows(config: str = "vecbeam.yaml") -> list[dict[str, Any]]:
    """What is served, by id."""
    from pipelines.steps.collection.served import find_served, open_for_search
    from schemas.config.loader import load_config
    from transforms import milvus

    settings = load_config(Path(config))
    with milvus.connected(settings.collection) as connection:
        served = find_served(connection, settings)
        if served is None:
            return []
        open_for_search(connection, served.name)
        found = connection.client.query(served.name, filter="", limit=16384, output_fields=["*"])
    return sorted(found, key=lambda row: str(row["id"]))


def texts(config: str = "vecbeam.yaml") -> dict[str, str]:
    """Texts of what is served, by item."""
    return {row["item_id"]: row["text"] for row in rows(config)}


def backfilled(*words: str, config: str = "vecbeam.yaml") -> Done:
    """A backfill that must succeed."""
    done = vecbeam("backfill", config, QUIET, *words)
    assert done.code == 0, f"backfill ended with {done.code}: {done.err.strip()}"
    return done


@case
def backslash_name() -> str:
    Path("d/back").mkdir(parents=True)
    Path("d/back\\slash.txt").write_text("one\n")
    Path("d/back/slash.txt").write_text("two\n")
    backfilled()
    found = texts()
    assert sorted(text.strip() for text in found.values()) == ["one", "two"], found
    return f"two items: {', '.join(found)}"


@case
def brackets_checkpoint() -> str:
    os.chdir("proj[1]")
    backfilled()
    lines = Path("c.jsonl").read_text().splitlines()
    Path("c.jsonl").write_text("\n".join(lines[:3]) + "\n")
    refused = vecbeam("sync", "vecbeam.yaml", QUIET)
    assert refused.code == 3, f"sync ended with {refused.code}"
    assert len(rows()) == len(lines) == 10, "rows were deleted"
    verified = vecbeam("verify", "vecbeam.yaml", QUIET)
    assert verified.code == 0, f"verify ended with {verified.code}: {verified.err}"
    assert vecbeam("report", "vecbeam.yaml").code == 0, "no report was found"
    return "sync is refused, verify and report find all"


@case
def csv_split() -> str:
    lines = ["id,text", *(f"r{i},row {i} " + "lorem ipsum dolor " * 95 for i in range(3000))]
    Path("c.csv").write_text("\n".join(lines) + "\n")
    # In the table, as all that is compared is the text as a CSV reader has it.
    wanted = dict(list(csv.reader(lines))[1:])
    backfilled()
    assert texts() == wanted, f"{len(rows())} rows"
    backfilled("--set", "name=u", "--set", "corpus.on_duplicate=error")
    backfilled(config="small.yaml")
    small = dict(list(csv.reader(Path("small.csv").read_text().splitlines()))[1:])
    assert texts("small.yaml") == small, f"small: {len(rows('small.yaml'))} rows of {len(small)}"
    return f"{len(wanted):,} and {len(small)} rows, each with its text"


@case
def duplicates_hnsw() -> str:
    same = [{"id": f"d{i}", "text": "This page was intentionally left blank."} for i in range(300)]
    other = [{"id": f"u{i}", "text": f"words number w{i} w{i * 7} w{i * 13} w{i % 11}"} for i in range(60)]
    Path("c.jsonl").write_text("".join(json.dumps(record) + "\n" for record in same + other))
    stopped = vecbeam("backfill", "vecbeam.yaml", QUIET)
    if stopped.code == 0:
        assert len(rows()) == 360, f"{len(rows())} rows"
        return "passes"
    assert stopped.code == 3, f"exit code {stopped.code}"
    assert "FLAT" in stopped.err, f"no remedy that helps: {stopped.err}"
    assert "equal" in stopped.err or "same" in stopped.err, f"does not say why: {stopped.err}"
    backfilled("--set", "collection.index={type: FLAT}")
    return "stopped, naming equal vectors and FLAT, which passes"


@case
def empty_parts() -> str:
    json_lines, parquet = vecbeam("backfill", "vecbeam.yaml", QUIET), vecbeam("backfill", "p.yaml", QUIET)
    assert json_lines.code == parquet.code, f"exit codes {json_lines.code} and {parquet.code}"
    rejects = [last_report(config)["rejects"] for config in ("vecbeam.yaml", "p.yaml")]
    assert rejects[0] == rejects[1], f"rejects {rejects}"
    return f"the same: exit code {parquet.code}, rejects {rejects[0] or 'none'}"


def last_report(config: str = "vecbeam.yaml") -> dict[str, Any]:
    """The report of the last run."""
    found: dict[str, Any] = json.loads(vecbeam("report", config, "--json").out)
    return found


@case
def env_proxy() -> str:
    done = shell("vecbeam backfill vecbeam.yaml --quiet", http_proxy="http://127.0.0.1:9")
    if done.code:
        assert "proxy" in done.err, done.err
        assert "move it away" not in done.err, done.err
        return "the message names the proxy"
    return "reached past the proxy"


@case
def folder_of_parts_skipped() -> str:
    done = vecbeam("backfill", "vecbeam.yaml", QUIET)
    assert done.code == 2, f"exit code {done.code}"
    assert "is a folder where a file is expected" in done.err, done.err
    return "refused"


@case
def html_fragment() -> str:
    backfilled()
    found = texts()
    assert len(found) == 3, found
    assert all(text.strip() for text in found.values()), found
    return "three items"


@case
def html_no_charset() -> str:
    done = vecbeam("backfill", "vecbeam.yaml", QUIET)
    if done.code == 4:
        assert "InvalidUtf8" in done.said, done.said
        return "rejected as InvalidUtf8"
    assert done.code == 0, done.err
    assert "très agréable à Genève, où l'été" in texts()["a.html"], texts()
    return "read as windows-1252"


@case
def index_bad_text() -> str:
    from pipelines.index import Index
    from schemas.errors import VecbeamError

    index = Index("v")
    index.index("hello there", id="x")
    with contextlib.suppress(VecbeamError):
        index.index("   ", id="blank")
    index.index("good text", id="good")
    found = [hit["item_id"] for hit in index.search("good text")]
    assert found[0] == "good", found
    assert set(found) == {"good", "x"}, found
    return "the blank text alone is refused"


@case
def index_empty_text() -> str:
    from pipelines.index import Index
    from schemas.errors import VecbeamError

    os.chdir("home")
    index = Index("../v")
    index.index("hello there", id="x")
    outcome = "taken as an item"
    try:
        index.index("")
    except (VecbeamError, ValueError):
        outcome = "refused"
    assert [hit["item_id"] for hit in index.search("private")] == ["x"], "the working directory joined the corpus"
    assert "home" not in Path("../v/vecbeam.yaml").read_text().split("chunk:")[0].replace(str(Path.cwd().parent), "")
    return outcome


@case
def init_brackets() -> str:
    done = vecbeam("init", "data [v1]")
    assert done.code == 0, done.err
    backfilled("--set", "encoder={model: fake, dimensions: 8}")
    from pipelines.index import Index

    index = Index("ix")
    index.index("data [v1]")
    assert index.search("hello", k=1), "nothing was indexed"
    return f"a configuration for that folder; {len(rows())} rows"


@case
def init_ids() -> str:
    outcomes = []
    for name in ("float.jsonl", "list.jsonl", "bool.jsonl", "uuid.parquet", "date.parquet"):
        Path("vecbeam.yaml").unlink(missing_ok=True)
        done = vecbeam("init", name)
        if done.code:
            assert done.code == 2, f"{name}: {done.said}"
            assert "id" in done.err, done.err
            outcomes.append(f"{name}: refused")
            continue
        fake = ("--set", "encoder={model: fake, dimensions: 8}", "--set", f"checkpoint=ck-{name}")
        ran = vecbeam("backfill", "vecbeam.yaml", QUIET, *fake)
        assert ran.code == 0, f"{name}: {ran.err}"
        chosen = next((line for line in done.out.splitlines() if line.startswith("id")), "")
        outcomes.append(f"{name}: {chosen.split(';')[0]}")
    return "; ".join(outcomes)


@case
def metadata_names() -> str:
    for config, name in (("interval.yaml", "interval"), ("like.yaml", "like")):
        done = vecbeam("backfill", config, QUIET)
        assert done.code == 2, f"{config}: exit code {done.code}: {done.said}"
        assert name in done.err, done.err
    assert not list(Path().rglob("parts/*.parquet")), "something was embedded"
    return "refused with the configuration"


@case
def metadata_null() -> str:
    done = backfilled()
    said = done.said + " ".join(last_report()["warnings"])
    assert "autor" in said, f"not a word of 'autor': {said}"
    years = {row["year"] for row in rows()}
    assert "year" in said or years == {2024}, f"not a word of 'year': {said}"
    return "the misspelt column is named; year is " + ("the partition's" if years == {2024} else "named too")


@case
def pdf_form() -> str:
    backfilled()
    assert "Form value text" in texts()["form.pdf"], texts()
    return "what was filled in exists"


@case
def rejects_not_shown() -> str:
    done = vecbeam("backfill", "vecbeam.yaml", QUIET)
    assert done.code in (2, 4), f"exit code {done.code}"
    assert "id;text" in done.err, f"the reason is missing: {done.err}"
    assert "delimiter" in done.err, f"no hint at the delimiter: {done.err}"
    return f"exit code {done.code}, with header and delimiter in the message"


@case
def remedies() -> str:
    backfilled()
    planned = vecbeam("plan", "vecbeam.yaml", QUIET)
    assert planned.code == 0, planned.err
    assert "by )" not in planned.out, planned.out
    Path("c.jsonl").rename("d.json")
    done = vecbeam("sync", "vecbeam.yaml", QUIET)
    assert done.code == 2, f"exit code {done.code}"
    assert "parquet" not in done.err, done.err
    return "no empty parentheses, no checkpoint proposed as corpus"


@case
def score_column() -> str:
    done = vecbeam("backfill", "vecbeam.yaml", QUIET)
    if done.code == 2:
        assert "score" in done.err, done.err
        backfilled("--set", "corpus.metadata={score_: {type: float, from: score}}")
        Path("vecbeam.yaml").write_text(Path("vecbeam.yaml").read_text().replace("score: float", RENAMED))
    else:
        assert done.code == 0, done.err
    hits = json.loads(vecbeam("search", "vecbeam.yaml", "hello", "--json").out)["hits"]
    assert len(hits) == 2, hits
    assert all(isinstance(hit["score"], float) and -1.001 <= hit["score"] <= 1.001 for hit in hits), hits
    table = vecbeam("search", "vecbeam.yaml", "hello")
    assert (table.code, "good bye" in table.out) == (0, True), table.said
    return "refused with a way to rename; score is the distance" if done.code else "score is the distance"


RENAMED = "score_: {type: float, from: score}"


@case
def stdout_encoding() -> str:
    backfilled()
    plain = shell("vecbeam search vecbeam.yaml x", PYTHONIOENCODING="ascii")
    assert plain.code == 0, plain.err
    assert "score" in plain.out, plain.out
    as_json = shell("vecbeam search vecbeam.yaml x --json", PYTHONIOENCODING="latin-1")
    assert as_json.code == 0, as_json.err
    assert json.loads(as_json.out)["hits"][0]["text"] == json.loads(Path("c.jsonl").read_text())["text"]
    refused = shell("vecbeam search vecbeam.yaml $'caf\\xe9'")
    assert refused.code == 2, f"exit code {refused.code}: {refused.err}"
    assert "unexpected" not in refused.err, refused.err
    return "escapes, JSON in ASCII, exit code 2"


@case
def terminal() -> str:
    backfilled()
    found = vecbeam("search", "vecbeam.yaml", "x")
    assert found.code == 0, found.err
    assert "\x1b" not in found.out, repr(found.out)
    narrow = shell("COLUMNS=0 vecbeam search vecbeam.yaml x")
    assert narrow.code == 0, narrow.err
    assert "text" in narrow.out, f"COLUMNS=0 prints {narrow.out!r}"
    piped = shell("set -o pipefail; vecbeam search vecbeam.yaml x | true")
    assert piped.code == 0, f"a closed pipe is exit code {piped.code}: {piped.err}"
    return "no control characters, something at width 0, a closed pipe is 0"


@case
def tsv_quotes() -> str:
    done = vecbeam("backfill", "vecbeam.yaml", QUIET)
    found = texts()
    if set(found) == {"1", "2", "3", "4"}:
        assert "that is the question" in found["2"], found
        return "four items"
    assert done.code == 4 or last_report()["warnings"], f"two items, and not a word: {found}"
    return "rejected, or warned of"


@case
def yaml_merge() -> str:
    backfilled()
    return f"understood; {len(rows())} rows"


@case
def zstd_long() -> str:
    done = vecbeam("backfill", "vecbeam.yaml", QUIET)
    if done.code == 0:
        assert len(rows()) == 2, rows()
        return "two items"
    assert "corrupt" not in done.said, done.said
    assert "window" in done.said or "memory" in done.said, done.said
    return "a reason that is true"


@contextlib.contextmanager
def copied(name: str) -> Iterator[Path]:
    """A copy of a case, as the working directory, for the length of a block."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="vecbeam-case-") as folder:
        copy = Path(shutil.copytree(CASES / name, Path(folder) / name))
        for path in (copy, *copy.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        os.chdir(copy)
        try:
            yield copy
        finally:
            os.chdir(before)
            release()


def run(name: str) -> tuple[str, bool, float]:
    """Runs one case; returns its outcome, whether it is right, and seconds."""
    start = time.monotonic()
    if name not in CHECKS:
        return "there is no check of it", False, 0.0
    noise = io.StringIO()
    try:
        with copied(name), contextlib.redirect_stderr(noise):
            return CHECKS[name](), True, time.monotonic() - start
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = "" if isinstance(error, AssertionError) else f"{type(error).__name__} at {last.name}: "
        return f"{where}{' '.join(str(error).split())}"[:300], False, time.monotonic() - start


def names() -> list[str]:
    """Names of the existing cases."""
    return sorted(folder.name for folder in CASES.iterdir() if folder.is_dir()) if CASES.is_dir() else []


def main(wanted: Sequence[str]) -> int:
    """Runs cases, all or those named, and prints the table."""
    chosen = list(wanted) or names()
    if not chosen:
        print(f"{CASES} is not there")
        return 0
    wrong = 0
    os.environ.setdefault("VECBEAM_CACHE", tempfile.mkdtemp(prefix="vecbeam-cache-"))
    print(f"{'case':<24} {'ok':<4} {'s':>5}  outcome")
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        for name, (outcome, ok, seconds) in zip(chosen, pool.map(run, chosen), strict=True):
            wrong += not ok
            print(f"{name:<24} {'yes' if ok else 'NO':<4} {seconds:>5.1f}  {outcome}", flush=True)
    print(f"{len(chosen) - wrong} of {len(chosen)} as they should be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
