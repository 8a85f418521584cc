"""What counts as the time of a step."""

from contextlib import ExitStack

import pytest

from transforms.support import metrics


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Microseconds that the clock shows; a test moves them."""
    shown = [0]
    monkeypatch.setattr(metrics.time, "perf_counter_ns", lambda: shown[0] * 1000)
    monkeypatch.setattr(metrics, "OUTSIDE", metrics.Tally())
    return shown


def test_time_in_which_several_threads_are_in_a_step_counts_once(now: list[int]) -> None:
    long, short, later = ExitStack(), ExitStack(), ExitStack()
    long.enter_context(metrics.timed("embed"))
    now[0] = 20
    short.enter_context(metrics.timed("embed"))
    now[0] = 50
    short.close()
    now[0] = 100
    long.close()
    now[0] = 500  # nobody is in the step meanwhile
    later.enter_context(metrics.timed("embed"))
    now[0] = 507
    later.close()
    assert metrics.OUTSIDE.snapshot()["embed_us"] == 107


def test_steps_that_overlap_count_for_themselves(now: list[int]) -> None:
    with metrics.timed("embed"):
        now[0] = 30
        with metrics.timed("read"):
            now[0] = 40
    assert metrics.OUTSIDE.snapshot() == {"embed_us": 40, "read_us": 10}
