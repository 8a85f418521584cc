"""No sequence of the remedies that messages recommend loses a row that is in the corpus."""

from __future__ import annotations

import pytest
import remedies

SEQUENCES = 100
"""`make test-campaign` takes two thousand."""


@pytest.mark.timeout(1800)
def test_what_messages_recommend_loses_no_row() -> None:
    counts = remedies.walks(SEQUENCES, seed=1)
    assert counts["sequences"] == SEQUENCES
    assert counts["commands"] > 2 * SEQUENCES
    assert all(counts[trouble.__name__] for trouble in remedies.TROUBLES)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("world", ["two_vectors", "pictures"])
def test_of_other_corpora(world: str) -> None:
    if world == "pictures":
        pytest.importorskip("timm", reason="the extra image is not installed")
    counts = remedies.walks(SEQUENCES // 25, 1, remedies.WORLDS[world])
    assert counts["sequences"] == SEQUENCES // 25
