"""Compares parts with the collection on workers, as many at once as may write to it, and writes what they find.

The file of a group is `<folder>/rows/<first position>.json`. A group whose file exists is not compared again: a bundle
that Beam repeats continues where it failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from schemas.config import Collection
from schemas.milvus import CollectionSpec
from transforms import milvus
from transforms.load.writers import DealToWriters
from transforms.milvus.rows.row_check import check_duplicates, check_part
from transforms.support import metrics
from transforms.support.storage import filesystem
from transforms.verify.part_groups import PartGroup, SnapshotRows, WithRows, name_of


@dataclass(eq=False)
class CheckParts(beam.PTransform):  # type: ignore[misc]
    """PCollection of `PartGroup` -> PCollection of the names of the files with what was found.

    Attributes:
        config: the collection's section of the configuration.
        spec: the collection.
        rows: what it should hold.
        columns: that are read; without the vectors and others, only ids and hashes are compared.
        folder: of the findings.
        readers: most groups at once.
        every_column: compares all columns that are read, and not just ids and hashes.
        duplicates: looks for ids that the collection has more than once, and for nothing else.
    """

    config: Collection
    spec: CollectionSpec
    rows: SnapshotRows
    columns: list[str]
    folder: str
    readers: int
    every_column: bool = False
    duplicates: bool = False

    def expand(self, groups: beam.PCollection) -> beam.PCollection:
        return groups | "Readers" >> DealToWriters(self.readers, name_of) | "Compare" >> beam.ParDo(_Compare(self))


class _Compare(WithRows):
    def __init__(self, given: CheckParts) -> None:
        super().__init__(given.rows)
        self._config, self._spec, self._columns, self._folder = given.config, given.spec, given.columns, given.folder
        self._compared = given.spec if given.every_column else None
        self._duplicates = given.duplicates
        self._connection: Any = None

    def setup(self) -> None:
        super().setup()
        self._connection = milvus.connect(self._config, create=False)

    def process(self, given: tuple[int, Iterable[PartGroup]]) -> Iterator[str]:
        for group in given[1]:
            uri = filesystem.join(self._folder, "rows", f"{name_of(group)}.json")
            if not filesystem.exists(uri):
                with metrics.timed("verify"):
                    filesystem.write_atomic(uri, self._found(group).as_json())
            yield name_of(group)

    def _found(self, group: PartGroup) -> milvus.RowCheck:
        check, name = milvus.RowCheck(), self._spec.name
        for position, rows in self._rows.of(group, self._columns):
            if self._duplicates:
                check_duplicates(self._connection, name, position, rows, check)
            else:
                check_part(self._connection, name, position, rows, self._compared, check)
        return check

    def teardown(self) -> None:
        if self._connection is not None:
            self._connection.close()


def checks_in(folder: str) -> list[milvus.RowCheck]:
    """What was found, in the order of the parts."""
    files = filesystem.list_files(folder, "rows/*.json")
    first = {int(file.uri.rpartition("/")[2].removesuffix(".json")): file.uri for file in files}
    return [milvus.RowCheck.of_json(filesystem.read_bytes(uri)) for _, uri in sorted(first.items())]
