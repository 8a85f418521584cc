"""The command line: one function per command. Its signature is the options, its docstring the help."""

from pipelines.cli.root import app

__all__ = ["app"]
