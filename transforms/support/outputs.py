"""What a public transform returns: batches and rejects."""

from __future__ import annotations

import apache_beam as beam


class Outputs(dict[str, beam.PCollection]):
    """The outputs of a transform by name: a dict, so that Beam YAML can refer to them as `Chunk.batches`.

    Attributes:
        batches: PCollection of `(Key, pyarrow.Table)`.
        rejects: PCollection of `(Key, pyarrow.Table)`, tables of `schemas.records.REJECT_SCHEMA`.
    """

    def __init__(self, batches: beam.PCollection, rejects: beam.PCollection) -> None:
        super().__init__(batches=batches, rejects=rejects)

    @property
    def batches(self) -> beam.PCollection:
        return self["batches"]

    @property
    def rejects(self) -> beam.PCollection:
        return self["rejects"]
