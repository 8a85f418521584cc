"""The parts of a snapshot into a new collection by import: the server reads them itself."""

from __future__ import annotations

from pipelines.run.session import Phase
from pipelines.steps.publish.collection_run import CollectionRun
from transforms import milvus
from transforms.checkpoint import LivePart
from transforms.load.import_jobs import PartFile, PartsImport, UnknownImportError, await_imports
from transforms.load.upsert_parts import Ledger
from transforms.milvus.rows.bulk_import import BulkInsert
from transforms.milvus.rows.import_service import ImportService
from transforms.milvus.rows.zilliz_import import ZillizImport
from transforms.support import metrics


class ImportStep:
    """The import into one collection.

    Args:
        ledger: of the collection.
    """

    def __init__(self, given: CollectionRun, ledger: Ledger) -> None:
        self._given = given
        self._ledger = ledger

    def finish(self) -> str:
        """Continues an import that an earlier run began, if one did; returns why that can't be done, or ""."""
        if not self._ledger.import_broke_off:
            return ""
        if self._ledger.has_import_mark:
            return "an earlier release of vecbeam began it"
        if self._given.session.config.collection.load != "import":
            return "collection.load is upsert now"
        try:
            self.run()
        except UnknownImportError as error:
            return error.message
        return ""

    def run(self) -> None:
        """Imports the parts that the server can take as they lie; the rest is left to be upserted."""
        acknowledged, counts = self._ledger.acknowledged(), self._given.snapshot.parts.column("rows").to_pylist()
        parts = [
            PartFile(part.name, self._given.checkpoint.part_uri(part.name), rows)
            for part, rows in zip(self._given.snapshot.live_parts, counts, strict=True)
            if part.name not in acknowledged and self._as_it_lies(part)
        ]
        if not parts and not self._ledger.import_broke_off:
            return
        session = self._given.session
        session.progress.step("import", total=self._given.snapshot.total("rows"), counter="chunks_loaded")

        def finished(part: PartFile) -> None:
            metrics.TALLY.add("chunks_loaded", part.rows)
            session.report.chunks.loaded += part.rows

        with Phase(session, "load"), metrics.set_aside() as counted:
            try:
                PartsImport(self._service(), self._ledger, finished, session.progress.note).run(parts)
            finally:
                session.add_counters(counted)

    def wait(self) -> None:
        """Waits until all imports into the collection have ended, with or without success."""
        await_imports(self._service(), self._given.spec.name)

    def _service(self) -> ImportService:
        settings = self._given.session.config.collection
        if settings.zilliz is not None:
            return ZillizImport(settings, self._given.spec.name)
        return BulkInsert(self._given.connection, self._given.spec.name)

    def _as_it_lies(self, part: LivePart) -> bool:
        """Whether a part's file holds just what the collection is to hold: no dead row, no null, the same columns."""
        metadata = [column.name for column in self._given.spec.metadata]
        columns = {column.name for column in milvus.sent_columns(self._given.spec)}
        if len(part.dead) or set(self._given.checkpoint.part_columns(part.name)) != columns:
            return False
        table = self._given.checkpoint.read_part(part.name, metadata) if metadata else None
        return table is None or not any(table.column(name).null_count for name in metadata)
