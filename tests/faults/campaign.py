"""Runs campaigns of faults, and prints a table: what was lost, duplicated, orphaned, changed, and done twice.

    python tests/faults/campaign.py                          # all of them, to their whole amount: many hours
    python tests/faults/campaign.py --only kills-lite --amount 40
    python tests/faults/campaign.py --minutes 10             # some minutes of each; the same command continues

Results are in a folder (`--state`), a line of JSON each, written as they come with their seeds. So a campaign that is
interrupted continues with the seeds that are missing, and one that is complete is only shown. Exit code 1 if anything
was lost, duplicated, orphaned or changed, or if a command that was run again failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lives import COMMANDS, FAULTS
from race import BUCKET, CREDENTIALS, s3_server

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
COLUMNS = ("lost", "duplicated", "orphaned", "wrong", "failed", "twice")
LIVES_OF_A_BLOCK = 8
ERRORS_SHARE = 0.05
Line = dict[str, Any]


@dataclass
class Context:
    """What a campaign runs with.

    Attributes:
        folder: its own, for files that the next start uses again.
        lines: results of earlier starts.
        amount: how many of its unit there are to be.
    """

    folder: Path
    lines: list[Line]
    amount: int
    workers: int

    def missing(self, count: int) -> list[int]:
        """The first seeds, from 0 on, that no line has."""
        have = {line["seed"] for line in self.lines}
        return [seed for seed in range(count + len(have)) if seed not in have][:count]


@dataclass(frozen=True)
class Campaign:
    """One row of the table.

    Attributes:
        what: is done.
        unit: of which there are `amount`.
        run: yields lines, each with its seed and, where they are not 0, the numbers of `COLUMNS`.
        count: how many units some lines are.
    """

    what: str
    unit: str
    amount: int
    run: Callable[[Context], Iterator[Line]]
    count: Callable[[list[Line]], int] = len


def output_of(command: Sequence[object], environment: dict[str, str] | None = None) -> Iterator[str]:
    """The lines that a command prints, as they come; ends the command where the caller stops.

    Raises:
        RuntimeError: if the command fails.
    """
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
    )
    assert process.stdout is not None
    try:
        yield from process.stdout
        if code := process.wait():
            raise RuntimeError(f"{command[0]} ended with {code}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its forks too: the session is its own
        process.wait()


def lines_of(command: Sequence[object], environment: dict[str, str] | None = None) -> Iterator[Line]:
    """The JSON lines that a command prints."""
    for text in output_of(command, environment):
        yield json.loads(text)


def killed(lines: list[Line]) -> int:
    return sum(line["killed"] for line in lines)


def run_lives(
    context: Context,
    options: Sequence[object] = (),
    environment: dict[str, str] | None = None,
    workers: int | None = None,
) -> Iterator[Line]:
    """Lives until so many of their commands were killed: some end before their moment comes."""
    while (left := context.amount - killed(context.lines)) > 0:
        ended = {line["seed"] for line in context.lines if line["command"] == COMMANDS[-1] or bad(line)}
        lives = min(LIVES_OF_A_BLOCK, -(-left // len(COMMANDS)))
        seeds = [seed for seed in range(len(ended) + lives) if seed not in ended][:lives]
        command = [HERE / "lives.py", context.folder, "--workers", workers or context.workers, *options]
        command += ["--seeds", *seeds]
        yield from lines_of(command, environment)


def kills_on_lite(context: Context) -> Iterator[Line]:
    return run_lives(context, ["--place", "lite"])


def kills_on_the_server(context: Context) -> Iterator[Line]:
    sys.path.append(str(HERE.parent))
    from milvus_server import start_server

    server = start_server(context.folder / "milvus")
    try:
        yield from run_lives(context, ["--place", "server", "--uri", server.uri])
    finally:
        server.stop()


def kills_on_s3(context: Context) -> Iterator[Line]:
    with s3_server("weed") as address:
        yield from run_lives(context, ["--place", "s3", "--checkpoint", f"s3://{BUCKET}/lives"], s3(address))


def s3(address: str) -> dict[str, str]:
    return {**CREDENTIALS, "AWS_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "us-east-1"}


def store_answers_503(context: Context) -> Iterator[Line]:
    """Lives that nothing kills, on a store that answers one call in twenty with 503."""
    sys.path.append(str(HERE.parent))
    from store_proxy import proxied

    options = [context.folder, "--place", "s3", "--checkpoint", f"s3://{BUCKET}/answers", "--workers", context.workers]
    with s3_server("weed") as address, proxied(address) as proxy:
        yield from lines_of([HERE / "lives.py", *options], s3(address))  # the undisturbed life, without errors
        proxy.chance = random.Random(len(context.lines))
        while len(context.lines) < context.amount:
            proxy.share, before, errors = ERRORS_SHARE, len(proxy.requests), proxy.drawn
            seeds = context.missing(1)
            for line in lines_of([HERE / "lives.py", *options, "--undisturbed", "--seeds", *seeds], s3(proxy.address)):
                calls, before = len(proxy.requests) - before, len(proxy.requests)
                answers, errors = proxy.drawn - errors, proxy.drawn
                yield {**line, "calls": calls, "answers 503": answers}


def store_refuses(context: Context) -> Iterator[Line]:
    """Lives each of whose commands meets a store that refuses everything from a moment on, then the same command."""
    sys.path.append(str(HERE.parent))
    from store_proxy import proxied

    refusing = context.folder / "refusing"
    refusing.unlink(missing_ok=True)
    options = ["--place", "s3", "--checkpoint", f"s3://{BUCKET}/refused", "--refusing", refusing]
    with s3_server("weed") as address, proxied(address) as proxy:
        proxy.refuses = refusing.exists
        yield from run_lives(context, options, s3(proxy.address), workers=1)


def server_killed(context: Context) -> Iterator[Line]:
    """Loads, one after the other, until the server was killed so many times."""
    while total("kills", context.lines) < context.amount:
        yield from lines_of([HERE / "outages.py", context.folder, "--first", *context.missing(1)])


def disk_full(context: Context) -> Iterator[Line]:
    """Lives on a disk that has one free page more each time, until each command has enough space."""
    lives: dict[int, list[bool]] = {}
    for line in context.lines:
        lives.setdefault(line["seed"], []).append(line["complete"])
    if not any(len(complete) == len(COMMANDS) and all(complete) for complete in lives.values()):
        first = 1 + max((seed for seed, complete in lives.items() if len(complete) == len(COMMANDS)), default=0)
        yield from lines_of([HERE / "full_disk.py", context.folder, "--first", first])


def histories(context: Context) -> Iterator[Line]:
    while (left := context.amount - total("histories", context.lines)) > 0:
        yield from lines_of([HERE / "histories.py", "--seeds", *context.missing(-(-left // 5))])


def total(key: str, lines: list[Line]) -> int:
    return sum(line.get(key, 0) for line in lines)


def counting(key: str) -> Callable[[list[Line]], int]:
    return lambda lines: total(key, lines)


def script(
    pattern: str,
    lost: str,
    *command: object,
    amount_option: str | None = None,
    environment: dict[str, str] | None = None,
) -> Callable[[Context], Iterator[Line]]:
    """A campaign of a script of its own, in one step.

    Args:
        pattern: finds in its output how many there were, as `count`.
        lost: finds there how many of them were lost, as `lost`, or how many were whole, as `whole`.
        amount_option: comes before how many there are to be; None if the script does not take that.
    """

    def run(context: Context) -> Iterator[Line]:
        amount = [*([amount_option] if amount_option else []), context.amount] if amount_option is not None else []
        output, failed = "", 0
        try:
            for text in output_of([*command, *amount], environment):
                output += text
        except RuntimeError:
            failed = 1
        line: Line = {"seed": 0, "failed": failed, "output": output[-2000:]}
        if found := re.search(pattern, output, re.MULTILINE):
            line["count"] = int(found["count"])
        if found := re.search(lost, output, re.MULTILINE):
            groups = found.groupdict()
            line["lost"] = int(groups["lost"]) if "lost" in groups else line["count"] - int(groups["whole"])
        yield line

    return run


def pytests(*names: str, environment: dict[str, str] | None = None) -> Callable[[Context], Iterator[Line]]:
    """A campaign of test files, which count their own steps."""
    files = [HERE / f"test_{name}.py" for name in names]
    return script(r"(?P<count>\d+) passed", NOTHING, "-m", "pytest", "-q", *files, environment=environment)


def remedies(world: str, amount: int) -> Campaign:
    run = script(
        r"^(?P<count>\d+) sequences",
        r"(?P<lost>\d+) lost",
        HERE / "remedies.py",
        "--world",
        world,
        amount_option="--sequences",
    )
    return Campaign(f"faults, then what messages recommend ({world})", "sequences", amount, run, counting("count"))


NOTHING = r"(?!)"
CAMPAIGNS = {
    "kills-lite": Campaign("SIGKILL, Milvus Lite", "kills", 334, kills_on_lite, killed),
    "kills-server": Campaign("SIGKILL, Milvus 2.3.5", "kills", 333, kills_on_the_server, killed),
    "kills-s3": Campaign("SIGKILL, checkpoint on S3 (SeaweedFS), Lite", "kills", 333, kills_on_s3, killed),
    "store-503": Campaign("S3 answers 5% of calls with 503", "commands", 40, store_answers_503),
    "store-refuses": Campaign(
        "S3 refuses everything from a moment on", "commands that failed", 200, store_refuses, killed
    ),
    "server-killed": Campaign(
        "Milvus 2.3.5 killed every 5 s of a load", "server kills", 50, server_killed, counting("kills")
    ),
    "disk-full": Campaign("disk full, a page later each time", "commands", 4000, disk_full),
    "histories": Campaign("histories against a dictionary", "histories", 10_000, histories, counting("histories")),
    "kill-points": Campaign(
        "SIGKILL at each named point",
        "tests",
        1,
        pytests("sigkill", "sigkill_sync", "sigkill_server", environment={"VECBEAM_KILL_POINTS": "all"}),
        counting("count"),
    ),
    "sync-machine": Campaign(
        "steps of four kinds of corpus against a dictionary",
        "tests",
        1,
        pytests("sync_machine", environment={"VECBEAM_STEPS": "10000"}),
        counting("count"),
    ),
    "remedies": remedies("texts", 2000),
    "remedies-two-vectors": remedies("two_vectors", 50),
    "remedies-pictures": remedies("pictures", 50),
    "damages": Campaign(
        "rows damaged, then verify --repair",
        "damages",
        1000,
        script(
            r"^all +(?P<count>\d+)", r"^all +\d+ +\d+ +(?P<whole>\d+)", HERE / "damages.py", amount_option="--damages"
        ),
        counting("count"),
    ),
    "ctrl-c": Campaign(
        "Ctrl-C on a terminal",
        "runs stopped",
        20,
        script(r"(?P<count>\d+) runs stopped", NOTHING, HERE / "ctrl_c.py", amount_option=""),
        counting("count"),
    ),
    "races": Campaign(
        "two runs on one checkpoint on S3 (SeaweedFS)",
        "pairs",
        50,
        script(
            r"(?P<count>\d+) pairs",
            r"exactly one went on (?P<whole>\d+)",
            *(HERE / "race.py", "--server", "weed"),
            amount_option="--pairs",
        ),
        counting("count"),
    ),
    "splitting": Campaign(
        "files split at any place",
        "files",
        5000,
        script(r"(?P<count>\d+) files", NOTHING, ROOT / "benchmarks" / "splitting.py", amount_option="--files"),
        counting("count"),
    ),
}


def bad(line: Line) -> bool:
    return any(line.get(name) for name in FAULTS)


def read(path: Path) -> list[Line]:
    """The lines of a campaign; of two of one seed and command the newer. A line that was cut by a kill is left out."""
    lines: dict[tuple[int, str], Line] = {}
    for text in path.read_text().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            line = json.loads(text)
            lines[line["seed"], line.get("command", "")] = line
    return list(lines.values())


def run(name: str, campaign: Campaign, context: Context, path: Path, seconds: float) -> None:
    """Runs a campaign until its amount or for some seconds, and writes each line as it comes."""
    if campaign.count(context.lines) >= context.amount or any(bad(line) for line in context.lines):
        return
    begun, shown = time.monotonic(), time.monotonic()
    facts = {"commit": commit(), "time": time.strftime("%Y-%m-%d %H:%M")}
    with open(path, "a") as stream, contextlib.closing(campaign.run(context)) as lines:
        for line in lines:
            context.lines.append(line)
            stream.write(json.dumps(line | facts) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
            now = time.monotonic()
            if bad(line) or now - shown > 30:
                shown = now
                print(f"{name}: {campaign.count(context.lines)} {campaign.unit}, seed {line['seed']}", file=sys.stderr)
            if bad(line):
                print(json.dumps(line), file=sys.stderr)
            if now - begun > seconds:
                return


def commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def table(rows: dict[str, list[Line]]) -> list[list[str]]:
    """The rows of the table, its head first."""
    cells = [["campaign", "what", "how many", *COLUMNS, "seeds"]]
    for name, lines in rows.items():
        campaign = CAMPAIGNS[name]
        seeds = [line["seed"] for line in lines]
        numbers = [str(total(column, lines)) for column in COLUMNS]
        count = f"{campaign.count(lines):,} {campaign.unit}"
        cells.append([name, campaign.what, count, *numbers, f"{min(seeds)}-{max(seeds)}" if seeds else ""])
    return cells


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CAMPAIGNS, default=list(CAMPAIGNS), metavar="CAMPAIGN")
    parser.add_argument("--state", type=Path, default=ROOT / "build" / "campaign", help="folder of the results")
    parser.add_argument("--amount", type=int, help="how many, instead of the whole amount of each")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="at most so many of each")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--show", action="store_true", help="runs nothing: the table of what was run")
    given = parser.parse_args()
    given.state.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[Line]] = {}
    broken = False
    for name in given.only:
        campaign, path = CAMPAIGNS[name], given.state / f"{name}.jsonl"
        folder = given.state.resolve() / name
        folder.mkdir(exist_ok=True)
        context = Context(folder, read(path), given.amount or campaign.amount, given.workers)
        if not given.show:
            try:
                run(name, campaign, context, path, given.minutes * 60)
            except (RuntimeError, OSError) as error:
                broken = True
                print(f"{name}: {error}", file=sys.stderr)
        rows[name] = read(path)
    for cells in table(rows):
        print(" | ".join(cells), flush=True)
    return int(broken or any(bad(line) for lines in rows.values() for line in lines))


if __name__ == "__main__":
    sys.exit(main())
