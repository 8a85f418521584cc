"""What a server of Milvus can do, by its kind and version, and what a collection needs that it can't do.

The table has what vecbeam uses, or is about to. An entry says where it comes from: `PROBED` entries were tried, feature
by feature, on the version named; `RELEASE_NOTES` entries add to them what the notes of a release announce, and are only
as good as those. What a probe found to be broken (FLOAT16 in 2.3, which finds wrong rows) counts as missing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from schemas.milvus.column_names import LITE, SERVER


class Evidence(StrEnum):
    PROBED = "probed"
    RELEASE_NOTES = "release notes"


@dataclass(frozen=True)
class Server:
    """The server at an address.

    Attributes:
        kind: `LITE` or `SERVER`.
        version: as it says itself, e.g. "v2.3.5" or "milvus_lite-3.2.2".
    """

    kind: str
    version: str

    @classmethod
    def of(cls, version: Any) -> Server:
        """The server that gives this answer to `get_server_version`.

        >>> Server.of("milvus_lite-3.2.2").kind, Server.of("v2.6.4-dev").number
        ('Milvus Lite', (2, 6))
        """
        return cls(LITE if str(version).startswith("milvus_lite") else SERVER, str(version))

    @property
    def is_lite(self) -> bool:
        return self.kind == LITE

    @property
    def number(self) -> tuple[int, int] | None:
        """Major and minor version, or None if the server doesn't say one."""
        found = re.search(r"(\d+)\.(\d+)", self.version)
        return (int(found[1]), int(found[2])) if found else None

    def __str__(self) -> str:
        number = re.search(r"\d+(\.\d+)+", self.version)
        return f"{'Milvus Lite' if self.is_lite else 'Milvus'} {number[0] if number else self.version}"


@dataclass(frozen=True)
class Capabilities:
    """Capabilities of a kind of server from a version on.

    Attributes:
        evidence: where the entry comes from.
        indexes: index types by the type of the vector that they are built on.
        metrics: metrics by the type of the vector.
        vectors: most vector fields of a collection.
        nullable: whether a field that isn't a vector may be null.
        bulk_import: whether the server reads Parquet files itself.
        import_files: most Parquet files of one import job.
        group_by: whether a search may group its hits by a field.
        analyzers: how the server can split texts into words; with any, it makes sparse vectors of them (BM25).
    """

    evidence: Evidence
    indexes: dict[str, frozenset[str]]
    metrics: dict[str, frozenset[str]]
    vectors: int = 1
    nullable: bool = False
    bulk_import: bool = True
    import_files: int = 1024
    group_by: bool = False
    analyzers: frozenset[str] = frozenset()


_DENSE, _SPARSE, _BINARY = "FLOAT_VECTOR", "SPARSE_FLOAT_VECTOR", "BINARY_VECTOR"
_COMMON = frozenset({"AUTOINDEX", "FLAT", "HNSW", "IVF_FLAT", "IVF_SQ8"})
_DENSE_METRICS = frozenset({"COSINE", "IP", "L2"})

_LITE_3_2 = Capabilities(
    Evidence.PROBED,  # on 3.2.2
    # It takes IVF_PQ, SCANN, DISKANN and others at creation, builds nothing and scans: they are left out.
    indexes={_DENSE: _COMMON | {"HNSW_SQ"}, _SPARSE: frozenset({"SPARSE_INVERTED_INDEX"})},
    metrics={_DENSE: _DENSE_METRICS, _SPARSE: frozenset({"IP", "BM25"})},
    vectors=4,  # two were probed
    nullable=True,
    bulk_import=False,
    group_by=True,
    analyzers=frozenset({"standard"}),  # jieba needs a package; it doesn't know english
)
_SERVER_2_3 = Capabilities(
    Evidence.PROBED,  # on 2.3.5
    # IVF_PQ and DISKANN were built in one probe and timed out in another. FLOAT16 finds wrong rows.
    indexes={_DENSE: _COMMON | {"SCANN"}, _BINARY: frozenset({"BIN_FLAT", "BIN_IVF_FLAT"})},
    metrics={_DENSE: _DENSE_METRICS, _BINARY: frozenset({"HAMMING", "JACCARD"})},
    import_files=1,  # "for JSON or parquet file, each task only accepts one file"
)
_SERVER_2_4 = replace(
    _SERVER_2_3,
    evidence=Evidence.RELEASE_NOTES,
    indexes={
        **_SERVER_2_3.indexes,
        _SPARSE: frozenset({"SPARSE_INVERTED_INDEX", "SPARSE_WAND"}),
        "FLOAT16_VECTOR": _COMMON,
        "BFLOAT16_VECTOR": _COMMON,
    },
    metrics={
        **_SERVER_2_3.metrics,
        _SPARSE: frozenset({"IP"}),
        "FLOAT16_VECTOR": _DENSE_METRICS,
        "BFLOAT16_VECTOR": _DENSE_METRICS,
    },
    vectors=4,
    import_files=1024,  # dataCoord.import.maxImportFileNumPerReq, by default
    group_by=True,
)
_SERVER_2_5 = replace(
    _SERVER_2_4,
    metrics={**_SERVER_2_4.metrics, _SPARSE: frozenset({"IP", "BM25"})},
    nullable=True,
    analyzers=frozenset({"standard", "english", "chinese"}),
)
_SERVER_2_6 = replace(
    _SERVER_2_5,
    indexes={
        **_SERVER_2_5.indexes,
        _DENSE: _SERVER_2_5.indexes[_DENSE] | {"HNSW_SQ", "IVF_RABITQ"},
        "INT8_VECTOR": frozenset({"AUTOINDEX", "HNSW"}),
    },
    metrics={**_SERVER_2_5.metrics, "INT8_VECTOR": _DENSE_METRICS},
)

CAPABILITIES: dict[str, dict[tuple[int, int], Capabilities]] = {
    LITE: {(3, 2): _LITE_3_2},
    SERVER: {
        (2, 3): _SERVER_2_3,
        (2, 4): _SERVER_2_4,
        (2, 5): _SERVER_2_5,
        (2, 6): _SERVER_2_6,
    },
}
"""Capabilities by kind, and by the version from which an entry holds, oldest first."""


def capabilities_of(server: Server) -> Capabilities:
    """The entry of a server: the newest that isn't newer than it, or else the oldest.

    A server that doesn't say its version is taken for the newest: it refuses by itself what it can't do.

    >>> capabilities_of(Server(SERVER, "v2.5.12")).nullable, capabilities_of(Server(SERVER, "v2.4.0")).nullable
    (True, False)
    """
    entries = CAPABILITIES[server.kind]
    number = server.number or max(entries)
    return entries[max((version for version in entries if version <= number), default=min(entries))]


def analyzer_refusal(server: Server, analyzer: str) -> tuple[str, str] | None:
    """Why a server can't compute BM25 with an analyzer, and the remedy; None if it can.

    >>> analyzer_refusal(Server(SERVER, "v2.3.5"), "standard")
    ('model: bm25: Milvus 2.3.5 computes no BM25', 'use a server that can (Milvus 2.5 or newer), or another model')
    """
    can = capabilities_of(server)
    if analyzer in can.analyzers:
        return None
    newer = _newer(server, lambda other: analyzer in other.analyzers)
    if not can.analyzers:
        return f"model: bm25: {server} computes no BM25", f"use a server that can{newer}, or another model"
    return (
        f"analyzer: {analyzer}: {server} has no such analyzer",
        f"choose one of {_listed(can.analyzers)}, or use a server that can{newer}",
    )


def refusals(
    server: Server, *, index_type: str, metric: str, load: str = "upsert", vector_type: str = _DENSE
) -> list[tuple[str, str]]:
    """What a collection needs that a server can't do, each with the remedy; empty if it can do all.

    Args:
        index_type: value of `collection.index.type`.
        metric: value of `collection.metric`.
        load: value of `collection.load`.
        vector_type: Milvus type of the vector.

    >>> refusals(Server(LITE, "milvus_lite-3.2.2"), index_type="HNSW", metric="IP", load="import")
    [('collection.load: import: Milvus Lite 3.2.2 has no bulk import', 'set collection.load: upsert')]
    """
    can = capabilities_of(server)
    if vector_type not in can.indexes:
        return [
            (
                f"collection: {server} can't store vectors of type {vector_type}",
                f"use a server that can{_newer(server, lambda other: vector_type in other.indexes)}",
            )
        ]
    found = []
    if index_type not in can.indexes[vector_type]:
        newer = _newer(server, lambda other: index_type in other.indexes.get(vector_type, ()))
        found.append(
            (
                f"collection.index.type: {index_type}: {server} can't build it",
                f"choose one of {_listed(can.indexes[vector_type])}{newer and f', or use a server that can{newer}'}",
            )
        )
    if metric not in can.metrics[vector_type]:
        found.append(
            (
                f"collection.metric: {metric}: {server} doesn't know it for {vector_type}",
                f"choose one of {_listed(can.metrics[vector_type])}",
            )
        )
    if load == "import" and not can.bulk_import:
        found.append((f"collection.load: import: {server} has no bulk import", "set collection.load: upsert"))
    return found


def _listed(values: Sequence[str] | frozenset[str]) -> str:
    return ", ".join(sorted(values))


def _newer(server: Server, able: Any) -> str:
    """From which version of a server on something can be done, in words; "" where in none of the table."""
    since = min((version for version, can in CAPABILITIES[SERVER].items() if able(can)), default=None)
    return (
        f" (Milvus {since[0]}.{since[1]} or newer)"
        if since and (server.is_lite or since > (server.number or since))
        else ""
    )
