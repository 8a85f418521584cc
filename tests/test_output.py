"""Standard streams of the command line: safe, whole and alone, whatever is written to and by whom."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys

import pytest

from pipelines.run.terminal import environment, output

PREPARED = "import os, sys; from pipelines.run.terminal import output; output.take_streams();"


def run(code: str, redirection: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    command = f'exec "$0" -c "$1" {redirection}'
    return subprocess.run(
        ["bash", "-c", command, sys.executable, PREPARED + code],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", **environment},
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\r\nb\tc", "a\\x0d\nb\tc"),
        ("\x9b2J \x7f", "\\x9b2J \\x7f"),
        ("caf\udce9", "caf\\xe9"),
        ("\ud800", "\\ud800"),
        ("abc\u202egnp.exe", "abc\\u202egnp.exe"),
        ("Genève 日本 🙂", "Genève 日本 🙂"),
    ],
)
def test_what_would_change_the_terminal_is_escaped(text: str, shown: str) -> None:
    assert output.clean(text) == shown


def test_a_line_is_one_line() -> None:
    assert output.clean_line("a\n\x1b[2J b\r\nc") == "a \\x1b[2J b c"


NOISE = "os.write(1, b'noise'); os.write(2, b'noise'); print('noise'); print('noise', file=sys.stderr);"


def test_json_is_alone_on_standard_output_whatever_libraries_print() -> None:
    done = run(f"output.shield(debug=False); {NOISE} output.result_as_json({{'a': 'é'}}); {NOISE}")
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"format_version": 1, "exit_code": 0, "error": None, "a": "é"}
    assert done.stdout.isascii()
    assert done.stderr == ""


def test_with_debug_what_libraries_print_is_shown_on_standard_error() -> None:
    done = run(f"output.shield(debug=True); {NOISE} output.result('result')")
    assert done.stdout == "result\n"
    assert done.stderr.count("noise") == 4


def test_characters_that_the_encoding_lacks_are_escaped() -> None:
    assert run("output.result('e日')", PYTHONIOENCODING="latin-1:strict").stdout == "e\\u65e5\n"
    assert run("output.result('è日')", PYTHONIOENCODING="ascii").stdout == "\\xe8\\u65e5\n"


@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [
        (">/dev/full", 1, "can't write to standard output: No space left on device"),
        (">&-", 1, "standard output is closed"),
        ("2>&-", 0, ""),
        ("2>/dev/full", 0, ""),
        ("<&-", 0, ""),
        ("| true", 0, ""),
    ],
)
@pytest.mark.parametrize("option", ["--version", "--help"])
def test_closed_and_full_streams_end_clearly(option: str, redirection: str, code: int, said: str) -> None:
    command = f'set -o pipefail; "$0" -m pipelines.entry {option} {redirection}'
    done = subprocess.run(["bash", "-c", command, sys.executable], capture_output=True, text=True)
    assert done.returncode == code
    assert done.stderr == (f"vecbeam: {said}\n" if said else "")


def test_no_file_that_is_opened_later_gets_the_number_of_a_closed_stream(tmp_path: object) -> None:
    done = run("print(os.open('/dev/null', os.O_RDONLY) > 2, file=sys.stderr)", ">&- <&-")
    assert done.stderr == "True\n"


def test_variables_of_libraries_do_not_change_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"MILVUS_URI": "nonsense", "MILVUS_CONN_TIMEOUT": "soon", "OMP_NUM_THREADS": "many", "HOST": "there"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MKL_NUM_THREADS", "2")
    monkeypatch.setenv("PYTHON_DOTENV_DISABLED", "")
    monkeypatch.setattr(environment, "_given", environment.given())
    environment.prepare()
    assert [name for name in given if name in environment.os.environ] == ["HOST"]
    assert environment.os.environ["MKL_NUM_THREADS"] == "2"
    assert environment.os.environ["PYTHON_DOTENV_DISABLED"] == "1"
    # ${MILVUS_URI} in a configuration still means what the process was started with.
    assert {name: environment.given()[name] for name in given} == given


COMPUTES = """
import sys, time
import typer
from pipelines.run.terminal import output, waiting
from pipelines.run.terminal.command import Page, command

waiting.AFTER_S = float(sys.argv[1])
app = typer.Typer()

@command(app)
def clusters() -> Page:
    time.sleep(0.5)
    output.notice("a notice")
    return Page({}, "the result")

@command(app)
def other() -> Page:
    raise AssertionError

app(["clusters"])
"""


def on_a_terminal(*words: str) -> tuple[str, str]:
    """Standard output, and what a terminal gets as standard error."""
    terminal, end = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", *words], stdout=subprocess.PIPE, stderr=end, text=True) as process:
        os.close(end)
        said = b""
        with contextlib.suppress(OSError):  # Linux ends a terminal without processes so
            while chunk := os.read(terminal, 4096):
                said += chunk
        os.close(terminal)
        assert process.stdout is not None
        return process.stdout.read(), said.decode()


def test_a_terminal_shows_that_a_command_without_steps_is_at_work() -> None:
    out, said = on_a_terminal(COMPUTES, "0")
    assert out == "the result\n"
    assert "clusters  0:00" in said
    assert "a notice" in said
    assert said.endswith("\x1b[2K")  # the line is gone
    assert on_a_terminal(COMPUTES, "60") == ("the result\n", "a notice\r\n")


def test_a_log_gets_no_line_of_a_command_that_is_at_work() -> None:
    done = subprocess.run([sys.executable, "-c", COMPUTES, "0"], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("the result\n", "a notice\n")
