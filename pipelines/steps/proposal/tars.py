"""From the first samples of tars to the keys of `corpus`: which member is the item, and which fields are columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from pipelines.steps.proposal.columns import metadata_columns
from pipelines.steps.proposal.sampled_field import sampled_fields
from schemas.formats import modality_of_suffix
from schemas.modality import Modality
from transforms.read.head import FileSample


def propose_tars(samples: Sequence[FileSample], notes: list[str]) -> tuple[dict[str, Any], Modality, dict[str, str]]:
    """Keys of `corpus` for tars, what their media are, and the fields without a column, each with the reason.

    Args:
        notes: receives what a user should know.
    """
    counts = Counter(part for one in samples for parts in one.parts for part in parts)
    media = {part: modality_of_suffix(f".{part.rpartition('.')[2]}") for part in counts}
    ranked = sorted(counts, key=lambda part: (-counts[part], len(part), part))
    counted = [part for part in ranked if media[part].is_media]
    modality = media[counted[0]] if counted else Modality.IMAGE
    corpus: dict[str, Any] = {"id": "__key__"}
    chosen = [part for part in counted if media[part] is modality]
    together = [parts for one in samples for parts in one.parts if len(parts.intersection(chosen)) > 1]
    if together:
        corpus["media"] = chosen[0]
        others = ", ".join(part for part in chosen[1:])
        notes.append(f"samples have several members that are {modality}; the items are {chosen[0]}, not {others}")
    if modality is not Modality.IMAGE:
        corpus["media_modality"] = str(modality)
    metadata, left_out = metadata_columns(sampled_fields(samples), {}, samples, used={"__key__", "__tar__"})
    if metadata:
        corpus["metadata"] = metadata
    return corpus, modality, left_out
