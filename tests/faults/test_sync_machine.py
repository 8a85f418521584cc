"""A corpus that changes in every way, killed and damaged on the way: after each sync all is as a dictionary says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from corpus_machines import Mixed, Pictures, Texts, TwoVectors
from drawings import save_timm_model
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from media_models import save_image_text
from sync_machine import SyncMachine

STEPS = int(os.environ.get("VECBEAM_STEPS", "3000"))
"""Of texts with one vector. `make test-campaign` takes ten thousand."""
STEPS_OF_AN_EXAMPLE = 400
MOST_CAMPAIGNS = 20
STEPS_ON_A_SERVER = 150

QUIET = settings(
    deadline=None,
    database=None,
    derandomize=True,
    print_blob=False,
    report_multiple_bugs=False,
    phases=[Phase.generate],  # what fails shows its steps; to shrink them would run thousands of syncs
    suppress_health_check=list(HealthCheck),
)


def campaign(
    machine: type[SyncMachine], steps: int, syncs: int, kills: int, of_example: int = STEPS_OF_AN_EXAMPLE
) -> None:
    """Runs examples until so many steps were taken, so many syncs compared and so many runs killed."""
    examples = steps * 6 // 5 // of_example  # some are cut short
    for number in range(MOST_CAMPAIGNS):  # how often chance kills is not known beforehand
        run_state_machine_as_test(
            seed(number)(machine),
            settings=settings(
                QUIET, max_examples=max(2, examples), stateful_step_count=of_example
            ),  # the first is dull
        )
        if machine.steps >= steps and machine.syncs >= syncs and machine.kills >= kills:
            break
        examples = steps // 5 // of_example
    print(f"{machine.__name__}: {machine.steps} steps, {machine.syncs} syncs, {machine.kills} kills")
    assert machine.steps >= steps
    assert machine.syncs >= syncs
    assert machine.kills >= kills


@pytest.mark.timeout(3000)
def test_texts() -> None:
    class OnLite(Texts):
        steps = syncs = kills = 0

    campaign(OnLite, STEPS, STEPS // 100, STEPS // 1000)


@pytest.mark.timeout(3000)
def test_texts_with_two_vectors() -> None:
    class WithTwo(TwoVectors):
        steps = syncs = kills = 0

    campaign(WithTwo, STEPS // 25, STEPS // 500, STEPS // 5000, of_example=50)


@pytest.mark.timeout(3000)
def test_pictures(tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="the extra image is not installed")

    class OfPictures(Pictures):
        steps = syncs = kills = 0
        model = save_timm_model(tmp_path / "model")

    campaign(OfPictures, STEPS // 25, STEPS // 300, STEPS // 5000, of_example=50)


@pytest.mark.timeout(3000)
def test_texts_and_pictures_in_one_collection(tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="the extra image is not installed")

    class OfBoth(Mixed):
        steps = syncs = kills = 0
        model = save_image_text(tmp_path / "model", "clip")

    campaign(OfBoth, STEPS // 30, STEPS // 600, STEPS // 5000, of_example=50)


@pytest.mark.server
def test_on_a_server(milvus_server: Any) -> None:
    class OnServer(Texts):
        steps = syncs = kills = 0
        uri = milvus_server.uri
        between = (15, 40)

    run_state_machine_as_test(OnServer, settings=settings(QUIET, max_examples=2, stateful_step_count=STEPS_ON_A_SERVER))
    assert OnServer.steps >= STEPS_ON_A_SERVER
