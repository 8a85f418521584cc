"""Counts the steps of a trainer of transformers, for the progress of a training that takes hours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transforms.encoders.engines.torch.torchvision_operators import make_importable
from transforms.support.metrics import TALLY

STEPS = "training_steps"
"""The counter in the tally of this process."""


def step_counter(begun: Callable[[int], None] | None) -> Any:
    """A callback for a trainer.

    Args:
        begun: is called with the number of all steps before the first one.
    """
    make_importable()
    from transformers import TrainerCallback

    class StepCounter(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, _: Any, state: Any, control: Any, **__: Any) -> None:  # noqa: ARG002 (the library's)
            if begun is not None:
                begun(state.max_steps)

        def on_step_end(self, *_: Any, **__: Any) -> None:
            TALLY.add(STEPS, 1)

    return StepCounter()
