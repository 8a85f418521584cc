"""Standard streams of the command line: safe, whole and alone, whatever is written to and by whom."""

from __future__ import annotations

import json
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
