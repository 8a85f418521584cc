"""Histories of a corpus, drawn at random, against a dictionary: edits, syncs, killed runs, damaged parts.

    python tests/faults/histories.py --seeds 0 1 2

A history is up to 60 steps of `corpus_machines.Texts` from an empty checkpoint on, some of them syncs, the last one
always; after each sync the collection, the snapshot and the report must say what a dictionary of the corpus says. Five
of them belong to a seed. Prints a JSON line for each seed.
"""

from __future__ import annotations

import argparse
import gc as garbage
import json
import sys
import tempfile
import traceback
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from corpus_machines import Texts
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from pipelines.run.jobs import beam_classes

OF_A_SEED = 5
STEPS = 60


def run(number: int) -> dict[str, object]:
    """The histories of a seed."""

    class Histories(Texts):
        steps = syncs = kills = 0
        ended = 0
        between = (15, 40)

        def teardown(self) -> None:
            super().teardown()
            Histories.ended += 1

    given = settings(
        max_examples=OF_A_SEED,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        print_blob=False,
        report_multiple_bugs=False,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    line: dict[str, object] = {"seed": number, "failed": 0}
    try:
        run_state_machine_as_test(seed(number)(Histories), settings=given)
    except Exception:  # any of the dictionary's assertions, and whatever a command raises
        line |= {"failed": 1, "output": traceback.format_exc()[-3000:]}
    return line | {
        "histories": Histories.ended,
        "steps": Histories.steps,
        "syncs": Histories.syncs,
        "kills": Histories.kills,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    given = parser.parse_args()

    beam_classes.remember()
    garbage.freeze()
    garbage.set_threshold(50_000, 20, 50)  # as the command does, which has as many permanent objects
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder  # of histories that failed, too
        for number in given.seeds:
            print(json.dumps(run(number)), flush=True)


if __name__ == "__main__":
    main()
