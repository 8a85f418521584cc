"""A finding: a few figures and a table of rows, with what they were computed from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.steps.results.page_file import PageSection, write_page
from pipelines.steps.results.shown import shown
from pipelines.steps.results.table_file import write_table_file
from transforms.explore.live_rows import LiveRows, Sample

SHOWN_ROWS = 20
SHOWN_CHARACTERS = 60
WORD_WIDTH = 16
"""Least width of the names of figures on a terminal."""


@dataclass(frozen=True)
class Finding:
    """What a command found.

    Attributes:
        title: the command, in words.
        basis: what it was computed from; see `basis_of`.
        figures: the result in a few numbers or words, by name.
        table: the result row by row, the most telling first.
        notes: what a reader has to know in addition, one sentence each.
        plots: makes the figures of the page, as plotly figures with their titles; called only for a page.
        exit_code: of the command.
        tables: further tables, by name, each shown before `table`.
    """

    title: str
    basis: Mapping[str, Any]
    figures: Mapping[str, Any]
    table: pa.Table
    notes: Sequence[str] = ()
    plots: Callable[[], Sequence[tuple[str, Any]]] = field(default=lambda: ())
    exit_code: int = 0
    tables: Mapping[str, pa.Table] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The finding as plain values; `rows` is the whole table."""
        tables = {name: table.to_pylist() for name, table in self.tables.items()}
        return {**self.basis, **self.figures, **tables, "notes": list(self.notes), "rows": self.table.to_pylist()}

    def written(self, out: str | Path | None = None, html: str | Path | None = None) -> Finding:
        """Writes the tables, the page, or both.

        Args:
            out: a file whose suffix is .parquet, .jsonl or .csv. Further tables are written next to it; see
                `further_file`.
            html: one file, which needs no network.

        Raises:
            ConfigurationError: for another suffix, or a folder that does not exist.
            StorageError: if a file can't be written.
        """
        if out is not None:
            write_table_file(Path(out), self.table)
            for name, table in self.tables.items():
                write_table_file(further_file(Path(out), name), table)
        if html is not None:
            write_page(Path(html), self.title, self.basis, self.figures, self.notes, self._sections())
        return self

    def _sections(self) -> list[PageSection]:
        figures = [PageSection(title, figure=figure) for title, figure in self.plots()]
        figures += [PageSection(name.capitalize(), table=table) for name, table in self.tables.items()]
        return [*figures, PageSection("Rows", table=self.table)] if self.table.num_rows else figures

    def line(self) -> str:
        """The figures in one line."""
        values = {
            name: value["value"] if isinstance(value, Mapping) and "value" in value else value
            for name, value in self.figures.items()
        }
        words = ", ".join(f"{name.replace('_', ' ')} {shown(value)}" for name, value in values.items())
        return f"{self.title}: {words}"

    def text(self) -> str:
        """The finding for people: the first rows alone."""
        from pipelines.steps.results.text_table import text_table

        words = {name: name.replace("_", " ") for name in self.figures}
        width = max(WORD_WIDTH, *(len(word) + 1 for word in words.values()))
        lines = [f"{words[name]:<{width}}{shown(value)}" for name, value in self.figures.items()]
        lines += [f"{'note':<{width}}{note}" for note in self.notes]
        lines.append(f"{'of':<{width}}{_basis_text(self.basis)}")
        for name, table in self.tables.items():
            lines += ["", f"{name}:", text_table(table, SHOWN_CHARACTERS)]
        if self.table.num_rows:
            lines += ["", text_table(self.table.slice(0, SHOWN_ROWS), SHOWN_CHARACTERS)]
        if (left := self.table.num_rows - SHOWN_ROWS) > 0:
            lines.append(f"... and {left:,} more rows: --out FILE.jsonl writes all")
        return "\n".join(lines)


def further_file(out: Path, name: str) -> Path:
    """Where a further table of a finding is written.

    >>> str(further_file(Path("found.csv"), "slices"))
    'found-slices.csv'
    """
    return out.with_name(f"{out.stem}-{name}{out.suffix}")


def basis_of(rows: LiveRows, sample: Sample | None = None, vector: str = "") -> dict[str, Any]:
    """What a finding was computed from: the snapshot, its space, and how many of its rows.

    Args:
        sample: the rows that were looked at; all, if None.
    """
    seen = len(rows) if sample is None else len(sample)
    found: dict[str, Any] = {
        "snapshot": rows.snapshot.id,
        "space": rows.snapshot.space_id,
        "rows_total": len(rows),
        "rows_seen": seen,
    }
    if sample is not None and not sample.is_whole:
        found["seed"] = sample.seed
    return found | ({"vector": vector} if vector else {})


def _basis_text(basis: Mapping[str, Any]) -> str:
    if "rows_total" not in basis:
        return ", ".join(f"{name} {value}" for name, value in basis.items())
    seen, total = basis["rows_seen"], basis["rows_total"]
    rows = f"{total:,} rows" if seen == total else f"{seen:,} of {total:,} rows"
    rows += f" (a sample, seed {basis['seed']})" if "seed" in basis else ""
    vector = f", vector {basis['vector']}" if "vector" in basis else ""
    return f"{rows}, snapshot {basis['snapshot']}, space {basis['space'][:16]}{vector}"
