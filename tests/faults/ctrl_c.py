"""Ctrl-C at many moments of real runs, typed into a terminal: how soon it ends, how, and that nothing is lost.

python tests/faults/ctrl_c.py [POINTS] [--terminal tmux|pty]

It types commands into a shell in a terminal of its own (tmux, or a pseudo-terminal), and Ctrl-C at moments spread over
the whole of each run, with the real model. It prints a table: each must end within five seconds, with exit code 130,
and the shell's prompt must be on a line of its own. After every few it runs the same command to its end, and compares
the rows with those of a run that nobody stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import tempfile
import termios
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

LONGEST_S = 5.0
PROMPT = re.compile(r"\[(\d+)\] READY> ?$")
COMMAND = f"{sys.executable} -m pipelines.entry"
TEXTS = 200
_SHELL = ["bash", "--norc", "--noprofile", "-i"]
_PS1 = "[$?] READY> "
_ENVIRONMENT = {**os.environ, "PS1": _PS1, "TERM": "xterm", "HISTFILE": "/dev/null"}


class Pty:
    """A shell on a pseudo-terminal."""

    def __init__(self, folder: Path) -> None:
        self.shell, self._fd = pty.fork()
        if not self.shell:
            os.chdir(folder)
            os.execvpe(_SHELL[0], _SHELL, _ENVIRONMENT)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, b"\x28\0\xc8\0\0\0\0\0")
        self._seen = ""

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def last_line(self) -> str:
        """The line that the cursor is on."""
        while select.select([self._fd], [], [], 0)[0]:
            self._seen = (self._seen + os.read(self._fd, 65536).decode(errors="replace"))[-20_000:]
        line = self._seen.rsplit("\n", 1)[-1]
        # Erased text is gone; a carriage return alone is not enough, as the prompt would be inside older text.
        line = line.rsplit("\x1b[2K", 1)[-1]
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).strip("\r")

    def close(self) -> None:
        os.close(self._fd)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.shell, 0)


class Tmux:
    """A shell in tmux, which shows what a person would see."""

    def __init__(self, folder: Path) -> None:
        # A new one each time: a server that is about to end may still hold the old one.
        self._socket = str(Path(tempfile.mkdtemp(dir=folder)) / "tmux")
        self._run("new-session", "-d", "-x", "200", "-y", "40", "-c", str(folder), "env", f"PS1={_PS1}", *_SHELL)
        self.shell = int(self._run("display-message", "-p", "#{pane_pid}"))

    def _run(self, *arguments: str) -> str:
        command = ["tmux", "-S", self._socket, "-f", "/dev/null", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=_ENVIRONMENT).stdout

    def type(self, text: str) -> None:
        keys = {"\x03": ["C-c"], "\n": ["Enter"]}
        for part in re.split("([\x03\n])", text):
            if part:
                self._run("send-keys", *keys.get(part, ["-l", part]))

    def last_line(self) -> str:
        """The line that the cursor is on."""
        row = int(self._run("display-message", "-p", "#{cursor_y}"))
        return self._run("capture-pane", "-p", "-S", str(row), "-E", str(row)).rstrip("\n")

    def close(self) -> None:
        self._run("kill-server")


@dataclass(frozen=True)
class Ended:
    """How a command ended that was typed into a terminal.

    Attributes:
        seconds: after Ctrl-C; 0 if it ended before that.
        code: its exit code; -1 where there was no prompt on a line of its own.
    """

    seconds: float
    code: int


def run_in(terminal: Pty | Tmux, command: str, stop_after_s: float | None, marker: Path | None = None) -> Ended:
    """Types a command, and Ctrl-C after some seconds or once a file exists.

    Raises:
        TimeoutError: if no prompt comes.
    """
    _await_prompt(terminal, 30)
    terminal.type(f"{command}\n")
    _await_start(terminal)
    began = time.monotonic()
    while (stop_after_s is None or time.monotonic() - began < stop_after_s) and not (marker and marker.exists()):
        if PROMPT.fullmatch(terminal.last_line()):
            break
        time.sleep(0.05)
    else:
        terminal.type("\x03")
        began = time.monotonic()
        code = _await_prompt(terminal, 30)
        return Ended(time.monotonic() - began, code)
    return Ended(0.0, _await_prompt(terminal, 5))


def _await_start(terminal: Pty | Tmux) -> None:
    """Until then Ctrl-C would be the shell's."""
    shell = psutil.Process(terminal.shell)
    for _ in range(1000):
        for child in shell.children():
            with contextlib.suppress(psutil.Error):
                if "pipelines.entry" in child.cmdline():
                    return
        time.sleep(0.01)


def _await_prompt(terminal: Pty | Tmux, seconds: float) -> int:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        line = terminal.last_line()
        if found := PROMPT.search(line):
            return int(found[1]) if found.start() == 0 else -1
        time.sleep(0.02)
    raise TimeoutError(f"no prompt after {seconds} s; the last line is {terminal.last_line()!r}")


def write(folder: Path, model: str = "all-MiniLM-L6-v2", texts: int = TEXTS) -> None:
    """A corpus and its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    words = "the model turns each text into a vector and a run may be stopped at any moment without loss; "
    lines = [json.dumps({"id": f"d{n}", "text": f"text {n}: {words[n % 40 :]}{words * 5}"}) for n in range(texts)]
    (folder / "a.jsonl").write_text("\n".join(lines))
    (folder / "vecbeam.yaml").write_text(
        f"name: stopped\ncorpus: {{paths: ['*.jsonl']}}\nencoder: {{model: {model}}}\nbatch_rows: 64\n"
        "checkpoint: checkpoint\ncollection: {uri: ./milvus.db}\n"
    )


def rows(folder: Path) -> tuple[int, int, str]:
    """Rows that a complete run finds in the collection, rows missing, and its error."""
    done = subprocess.run(f"{COMMAND} verify --json", shell=True, cwd=folder, capture_output=True, text=True)
    report = json.loads(done.stdout)
    return report["verify"]["found"], report["verify"]["missing"], str(report["error"])


def main() -> int:
    """Prints the table; 1 where a point is not as it should be."""
    parser = argparse.ArgumentParser()
    parser.add_argument("points", type=int, nargs="?", default=20)
    parser.add_argument("--terminal", choices=("tmux", "pty"), default="tmux" if shutil.which("tmux") else "pty")
    given = parser.parse_args()
    opened = {"tmux": Tmux, "pty": Pty}[given.terminal]
    bad = early = 0
    with tempfile.TemporaryDirectory() as name:
        whole = Path(name) / "whole"
        write(whole)
        began = time.monotonic()
        subprocess.run(f"{COMMAND} backfill --quiet", shell=True, cwd=whole, check=True, stdout=subprocess.DEVNULL)
        length = time.monotonic() - began
        print(f"{given.terminal}; a backfill of {TEXTS} texts that nobody stops takes {length:.1f} s")
        print("command                      Ctrl-C after  ended after  exit code  prompt on its own line")
        others = ["init a.jsonl -o other.yaml", "plan", "search 'a vector'", "verify", "load", "sync"]
        of_backfill = max(1, given.points - len(others))
        folder = Path(name) / "stopped"
        for point in range(given.points):
            if point >= of_backfill:
                command, after = (
                    others[(point - of_backfill) % len(others)],
                    min(length, 8.0) * (0.2 + 0.1 * (point % 5)),
                )
                place = whole
            else:
                # Each run resumes where the previous one was stopped; every fifth begins from scratch.
                if point % 5 == 0:
                    shutil.rmtree(folder, ignore_errors=True)
                    write(folder)
                command, after, place = "backfill", 0.2 + length * 0.95 * point / of_backfill, folder
            terminal = opened(place)
            try:
                ended = run_in(terminal, f"{COMMAND} {command}", after)
            finally:
                terminal.close()
            missed = ended.seconds == 0
            fine = missed or (ended.code == 130 and ended.seconds <= LONGEST_S)
            bad += not fine
            early += missed
            shown = "done before" if missed else f"{ended.seconds:.2f} s"
            print(
                f"{command:<27} {after:>11.1f} s  {shown:>11}  {ended.code:>9}  {'yes' if ended.code >= 0 else 'NO'}"
                f"{'' if fine else '   <-- BAD'}",
                flush=True,
            )
            if place is whole or point % 5 == 4 or point == of_backfill - 1:
                if place is folder:
                    subprocess.run(
                        f"{COMMAND} backfill --quiet", shell=True, cwd=folder, check=True, stdout=subprocess.DEVNULL
                    )
                found, missing, error = rows(place)
                right = (found, missing, error) == (TEXTS, 0, "None")
                bad += not right
                print(f"  completed: {found} of {TEXTS} rows, {missing} missing{'' if right else ' <-- BAD ' + error}")
    print(f"{given.points - early} runs stopped, {early} done before Ctrl-C; {bad} not as they should be")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
