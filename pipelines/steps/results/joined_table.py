"""What a command found of each row, in front of the columns that say which row it is."""

from __future__ import annotations

import pyarrow as pa


def joined_table(facts: pa.Table, rows: pa.Table) -> pa.Table:
    """The columns of both. A column of the rows whose name the facts have gets the prefix `row_`.

    >>> joined_table(pa.table({"score": [1]}), pa.table({"id": ["a"], "score": ["b"]})).to_pylist()
    [{'score': 1, 'id': 'a', 'row_score': 'b'}]
    """
    for column in rows.column_names:
        name = f"row_{column}" if column in facts.column_names else column
        facts = facts.append_column(name, rows.column(column))
    return facts
