"""What changed: the items of the corpus against those of a snapshot, by digests alone.

Digests of all items, new and old, are shuffled as Arrow tables by hash bucket and compared bucket by bucket, so that no
process ever holds the corpus.
"""

from transforms.diff.comparison import Comparison, compare, pair_moves
from transforms.diff.digest import DIGEST_SCHEMA, Side, chunking_of, item_digests, new_digests, old_digests
from transforms.diff.find_changes import FindChanges
from transforms.diff.findings import Findings, SnapshotSide

__all__ = [
    "DIGEST_SCHEMA",
    "Comparison",
    "FindChanges",
    "Findings",
    "Side",
    "SnapshotSide",
    "chunking_of",
    "compare",
    "item_digests",
    "new_digests",
    "old_digests",
    "pair_moves",
]
