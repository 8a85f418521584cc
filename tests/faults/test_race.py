"""Two runs that start within a second on an S3 server: a few pairs of `tests/faults/race.py`."""

from __future__ import annotations

import pytest

from tests.faults.race import race, s3_server

PAIRS = 4


def test_of_two_runs_that_start_at_once_exactly_one_goes_on() -> None:
    pytest.importorskip("moto", reason="pip install 'vecbeam[test]'")
    with s3_server("moto") as address:
        assert race(address, PAIRS, seed=1) == {1: PAIRS}
