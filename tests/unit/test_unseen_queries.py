"""What queries that are not rows find, from what rows find."""

from __future__ import annotations

import numpy as np
import pytest

from transforms.explore.unseen_queries import SplitRows, UnseenRecall, unseen_recalls
from transforms.support.vectors import unit_vectors

pytest.importorskip("faiss", reason="the extra explore is not installed")

LINKS = {"M": 4, "efConstruction": 40}


def split_of(rows: int, outside: int, share: int = 3) -> SplitRows:
    """Directions, drawn at random."""
    drawn = unit_vectors(np.random.default_rng(3).standard_normal((rows + outside, 48), np.float32))
    matching = np.arange(0, rows, share)
    return SplitRows(drawn[:rows], {"": None, "some": matching}, {"": drawn[rows:], "some": drawn[rows:]})


@pytest.mark.parametrize("metric", ["COSINE", "IP", "L2"])
def test_a_graph_finds_less_of_queries_that_it_has_no_links_for(metric: str) -> None:
    found = unseen_recalls(split_of(600, 200), metric, "HNSW", LINKS, 600)
    assert set(found) == {"", "some"}
    for one in found.values():
        assert len(one.of_rows) == len(one.of_unseen) > 3
        assert one.of_unseen[0] < one.of_unseen[-1] > 0.9
        assert 0.9 < one.of(1.0) <= 1.0
    assert 0.02 < 0.9 - found[""].of(0.9) < 0.1


def test_lists_of_equal_widths_find_nearly_the_same() -> None:
    found = unseen_recalls(split_of(600, 200), "COSINE", "IVF_FLAT", {"nlist": 64}, 2_400)
    for one in found.values():
        assert one.of_rows[-1] == one.of_unseen[-1] == 1.0  # every list was searched
        assert 0.9 - one.of(0.9) < 0.05


def test_a_filter_that_leaves_few_rows_has_what_all_have() -> None:
    given = split_of(600, 200, share=100)
    found = unseen_recalls(given, "COSINE", "HNSW", LINKS, 600)
    assert found["some"] == found[""]
    few = SplitRows(given.rows[:30], {"": None}, {"": given.outside[""]})
    assert unseen_recalls(few, "COSINE", "HNSW", LINKS, 30) == {"": UnseenRecall()}


def test_unseen_queries_never_find_more() -> None:
    assert UnseenRecall((0.9, 0.95), (0.93, 0.94)).of(0.9) == 0.9
