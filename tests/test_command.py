"""Commands from functions: options of the signature and the usual ones, results, exit codes."""

import json
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from corpora import configure, write_jsonl
from typer.testing import CliRunner, Result

from pipelines.run.terminal.command import Page, command

app = typer.Typer(rich_markup_mode=None)
seen: dict[str, Any] = {}


@command(app)
def greet(
    config: "Any",
    progress: "Any",
    as_given: list[str],
    code: Annotated[int, typer.Option(help="The exit code.")] = 0,
    loud: Annotated[bool, typer.Option("--loud", help="In capitals.")] = False,
) -> Page:
    """Greets the corpus."""
    seen.update(progress=progress, as_given=as_given)
    return Page(
        {"name": config.name}, config.name.upper() if loud else config.name, line=f"one {config.name}", exit_code=code
    )


@command(app)
def tour(where: Annotated[Path, typer.Argument(help="A folder.")] = Path("here")) -> None:
    """Prints on its own."""
    typer.echo(f"a tour of {where}")


class Panic(BaseException):
    """What a library in Rust raises at a fault of its own: no Exception."""


@command(app)
def fall() -> None:
    """Falls."""
    raise Panic("the library fell")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": "d", "text": "text"}])
    configure(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_has_the_options_of_the_signature_and_the_usual_ones() -> None:
    page = run("greet", "--help").stdout
    assert "Greets the corpus." in page
    options = [word for word in page.split() if word.startswith("--")]
    assert options == ["--set", "--code", "--loud", "--json", "--quiet", "--debug", "--help"]
    assert "as-given" not in page


def test_a_function_gets_configuration_and_options() -> None:
    assert run("greet").stdout == "tested\n"
    assert run("greet", "vecbeam.yaml", "--set", "name=other", "--loud").stdout == "OTHER\n"
    assert seen["as_given"] == ["vecbeam.yaml", "--set", "name=other"]
    assert run("greet", "--set", "name=").exit_code == 2


def test_a_page_is_json_where_that_is_asked_for_and_has_an_exit_code() -> None:
    done = run("greet", "--json", "--code", "10")
    assert json.loads(done.stdout) == {"format_version": 1, "exit_code": 10, "error": None, "name": "tested"}
    assert done.exit_code == 10
    assert run("greet", "--code", "10").exit_code == 10
    assert run("greet", "--quiet").stdout == "one tested\n"


def test_a_function_that_returns_nothing_has_no_json() -> None:
    assert run("tour").stdout == "a tour of here\n"
    assert run("tour", "there").stdout == "a tour of there\n"
    done = run("tour", "--json")
    assert done.exit_code == 2
    assert "--set" not in run("tour", "--help").stdout


def test_a_decorated_function_can_be_called_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    tour(Path("there"))
    assert capsys.readouterr().out == "a tour of there\n"


def test_a_panic_of_a_library_is_reported(capfd: pytest.CaptureFixture[str]) -> None:
    result = run("fall")
    assert result.exit_code == 1
    assert "unexpected Panic: the library fell" in result.output + capfd.readouterr().err
