"""The cases of ../shared/cases, if it exists, each against its right outcome."""

from __future__ import annotations

import cases
import pytest


@pytest.mark.skipif(not cases.names(), reason="../shared/cases is not there")
@pytest.mark.parametrize("name", cases.names() or ["none"])
def test_a_case_comes_out_right(name: str) -> None:
    outcome, right, _ = cases.run(name)
    assert right, outcome
