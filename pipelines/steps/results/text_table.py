"""An Arrow table as lines of text for a terminal."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from pipelines.run.terminal import output


def text_table(table: pa.Table, characters: int) -> str:
    """Columns that are aligned, numbers to the right; safe on a terminal.

    Args:
        characters: most of a cell.

    >>> print(text_table(pa.table({"id": ["a", "bb"], "score": [0.5, 0.25]}), 10))
    id  score
    a  0.5000
    bb 0.2500
    """
    cells = [[_cell(value, characters) for value in column.to_pylist()] for column in table.columns]
    names = list(table.column_names)
    right = [pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in table.schema.types]
    widths = [max(map(len, [name, *column])) for name, column in zip(names, cells, strict=True)]
    lines = []
    for row in [names, *zip(*cells, strict=True)]:
        padded = [
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(row, widths, right, strict=True)
        ]
        lines.append(" ".join(padded).rstrip())
    return "\n".join(lines)


def _cell(value: Any, characters: int) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}"
    text = output.clean_line(", ".join(map(str, value)) if isinstance(value, list) else str(value))
    return text if len(text) <= characters else text[: characters - 1] + "…"
