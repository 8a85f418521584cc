"""How descriptions of work are written into a table; `transforms.support.work_list` brings it to the workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import pyarrow as pa

Work = TypeVar("Work")


class WorkRows(NamedTuple, Generic[Work]):
    """How one kind of work is written: as a row of a table, and not as a pickle.

    Whoever may write to a checkpoint can't run code on workers by that.

    Attributes:
        schema: of the table.
        to_row: values of a row by column.
        from_row: the work that a row describes. Both are functions of modules, so that they travel by name.
    """

    schema: pa.Schema
    to_row: Callable[[Work], Mapping[str, Any]]
    from_row: Callable[[dict[str, Any]], Work]
