"""`vecbeam doctor CONFIG`: whether packages, machine, models, runner, store and Milvus are ready for a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from pipelines.steps.diagnosis.check import Check, CheckOutcome, skipped
from pipelines.steps.diagnosis.collection_server import check_milvus
from pipelines.steps.diagnosis.installed import check_packages
from pipelines.steps.diagnosis.machine import check_machine
from pipelines.steps.diagnosis.model_check import check_models
from pipelines.steps.diagnosis.runner_check import check_options, check_server
from pipelines.steps.diagnosis.store_rights import check_store
from schemas.config import Config


@dataclass(frozen=True)
class Diagnosis:
    """The checks of a set-up, in the order in which they were made."""

    checks: list[Check]

    @property
    def is_ready(self) -> bool:
        """Whether no check failed."""
        return all(check.outcome is not CheckOutcome.FAIL for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        return {"format_version": 1, "ready": self.is_ready, "checks": [check.as_json() for check in self.checks]}


def doctor(config: Config | None, *, offline: bool = False) -> Diagnosis:
    """Checks a set-up. Reads no corpus, loads no weights, and leaves nothing behind.

    Args:
        config: None checks packages and machine alone.
        offline: sends no request to another machine; checks that need one are skipped.
    """
    checks = [*check_packages(config), *check_machine(config)]
    if config is not None:
        checks += check_models(config, offline=offline)
        options = list(check_options(config))
        checks += options
        if any(check.outcome is CheckOutcome.FAIL for check in options):
            checks.append(skipped("checkpoint", "the store's client has the options of runner, which are not right"))
        else:
            checks += [*check_server(config, offline=offline), *check_store(config, offline=offline)]
        checks += check_milvus(config, offline=offline)
    return Diagnosis(checks)


def text(found: Diagnosis) -> str:
    """Returns the checks for people, a line each, with the remedy below what is not right."""
    width = max(len(check.name) for check in found.checks)
    lines = []
    for check in found.checks:
        lines.append(f"{check.outcome.value:<8}{check.name:<{width + 2}}{check.message}")
        if check.remedy:
            lines.append(f"{'':<{width + 10}}{check.remedy}")
    counts = Counter(check.outcome for check in found.checks)
    lines.append(", ".join(f"{counts[outcome]} {outcome.value}" for outcome in CheckOutcome if counts[outcome]))
    return "\n".join(lines)
