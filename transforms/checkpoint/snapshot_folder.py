"""The snapshots of a checkpoint: how they are written and found again, the refused ones next to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from schemas.records import FILE_SCHEMA, PART_SCHEMA, SCHEMA_VERSION
from transforms.checkpoint.snapshot import SNAPSHOT_DIGITS, SPACE_DIGITS, Snapshot, snapshot_id, snapshot_name
from transforms.support.storage import filesystem, spill
from transforms.support.storage.parquet_file import facts_of, read_schema, read_spilled, read_table, write_pieces


@dataclass(frozen=True)
class SnapshotFolder:
    """The place of the snapshots of one corpus; see `Checkpoint`, which has the parts too.

    Args:
        folder: the configuration's `checkpoint`.
        name: the configuration's `name`.
        space_id: fingerprint of the space.
    """

    folder: str
    name: str
    space_id: str

    @property
    def root(self) -> str:
        return filesystem.join(self.folder, self.name)

    def draft_snapshot(
        self, parts: pa.Table, files: pa.Table, corpus_digest: str, settings_digest: str
    ) -> tuple[Snapshot, bool]:
        """A snapshot that is not written yet, and whether it is the current one already.

        Args:
            parts: table of `schemas.records.PART_SCHEMA`.
            files: table of `schemas.records.FILE_SCHEMA`, in corpus order.
            corpus_digest: of the listing and of the settings that determine rows.
            settings_digest: of those settings alone.
        """
        identity = snapshot_id(self.space_id, parts, files)
        current = self.current_snapshot()
        if current and (current.id, current.corpus_digest) == (identity, corpus_digest):
            return current, True
        names = self.snapshots()
        number = int(names[-1][:SNAPSHOT_DIGITS]) + 1 if names else 1
        name = snapshot_name(number, self.space_id, identity)
        return Snapshot(name, identity, self.space_id, corpus_digest, settings_digest, parts, files), False

    def snapshots(self, space_id: str | None = None) -> list[str]:
        """Names of the snapshots, oldest first; all, or those of one space."""
        names = self._files_in(self.root, "snapshots") & self._files_in(self.root, "files")
        return [name for name in sorted(names) if space_id is None or space_in(name) == space_id[:SPACE_DIGITS]]

    def _files_in(self, folder: str, name: str) -> set[str]:
        files = filesystem.list_files(filesystem.join(folder, name), "*.parquet")
        return {file.uri.rsplit("/", 1)[-1] for file in files}

    def current_snapshot(self) -> Snapshot | None:
        """The newest snapshot of this space, or None before its first run has ended."""
        names = self.snapshots(self.space_id)
        return self.read_snapshot(names[-1]) if names else None

    def find_snapshot(self, identity: str) -> Snapshot | None:
        """The newest snapshot with an id, or None."""
        names = [name for name in self.snapshots() if name.removesuffix(".parquet").endswith(f"-{identity}")]
        return self.read_snapshot(names[-1]) if names else None

    def read_snapshot(self, name: str, folder: str | None = None) -> Snapshot:
        """A snapshot by its file name.

        Args:
            folder: of the snapshot; None means the checkpoint's root.

        Raises:
            CheckpointError: if it is damaged or of a newer format.
        """
        folder = folder or self.root
        uri = filesystem.join(folder, "snapshots", name)
        parts = read_table(uri)
        facts = facts_of(parts.schema.metadata, uri)
        files = read_spilled(filesystem.join(folder, "files", name), FILE_SCHEMA)
        return Snapshot(
            name,
            str(facts["snapshot_id"]),
            str(facts["space_id"]),
            str(facts["corpus_digest"]),
            str(facts["settings_digest"]),
            parts.cast(PART_SCHEMA),
            files,
        )

    def write_snapshot(self, draft: Snapshot) -> Snapshot:
        """Makes a draft the current snapshot, and deletes an earlier refused one."""
        self._write(self.root, draft)
        self._forget_refused()
        return draft

    def write_refused(self, draft: Snapshot, reason: str) -> None:
        """Keeps a refused draft next to the snapshots: it is never current, but `gc` keeps its parts.

        Args:
            reason: why it was refused, in a sentence.
        """
        self._forget_refused(draft.name)
        self._write(filesystem.join(self.root, "refused"), draft, {"reason": reason})

    def refused_snapshot(self) -> tuple[Snapshot, str] | None:
        """The draft of this space that was refused since its current snapshot was written, and why; or None."""
        folder = filesystem.join(self.root, "refused")
        names = [name for name in self._refused() if space_in(name) == self.space_id[:SPACE_DIGITS]]
        if not names:
            return None
        found = self.read_snapshot(names[-1], folder)
        uri = filesystem.join(folder, "snapshots", found.name)
        return found, str(facts_of(read_schema(uri).metadata, uri).get("reason", ""))

    def _refused(self) -> list[str]:
        folder = filesystem.join(self.root, "refused")
        return sorted(self._files_in(folder, "snapshots") & self._files_in(folder, "files"))

    def _forget_refused(self, but: str = "") -> None:
        here = [name for name in self._refused() if name != but and space_in(name) == self.space_id[:SPACE_DIGITS]]
        for folder in ("snapshots", "files"):
            filesystem.delete([filesystem.join(self.root, "refused", folder, name) for name in here])

    def _write(self, folder: str, snapshot: Snapshot, more: Mapping[str, str] | None = None) -> None:
        facts = {
            "schema_version": SCHEMA_VERSION,
            "snapshot_id": snapshot.id,
            "space_id": self.space_id,
            "corpus_digest": snapshot.corpus_digest,
            "settings_digest": snapshot.settings_digest,
            **(more or {}),
        }
        # The listing first, so that an existing snapshot is complete.
        for name, table in (("files", snapshot.files), ("snapshots", snapshot.parts)):
            write_pieces(filesystem.join(folder, name, snapshot.name), spill.pieces(table), facts)


def space_in(name: str) -> str:
    """The first digits of the space of a snapshot, by its file name; "" if it does not tell."""
    return name.split("-")[1] if name.count("-") == 2 else ""
