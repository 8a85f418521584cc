"""Options of Dataflow's workers with an accelerator: one process with few threads, so that a GPU holds one model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ONE_PROCESS = "no_use_multiple_sdk_containers"
"""Dataflow's experiment for one Python process on a worker; by default it starts one for each vCPU."""
MANY_PROCESSES = "use_multiple_sdk_containers"
THREADS = 4
"""Threads of that process: one embeds, the others read chunk tables and write parts in the meantime."""
MPS = "use_nvidia_mps"


def gpu_defaults(accelerator: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Dataflow's options that vecbeam sets for an accelerator, where the configuration does not.

    With NVIDIA MPS several processes share a GPU, and Dataflow's own defaults apply.

    >>> gpu_defaults("type:nvidia-l4;count:1", {})
    {'experiments': ['no_use_multiple_sdk_containers'], 'number_of_worker_harness_threads': 4}
    >>> gpu_defaults("type:nvidia-l4;count:1", {"experiments": ["use_multiple_sdk_containers"]})
    {}
    """
    experiments = _listed(options, "experiments", "experiment")
    if accelerator is None or MPS in _parts(accelerator) or MANY_PROCESSES in experiments:
        return {}
    found: dict[str, Any] = {}
    if ONE_PROCESS not in experiments:
        found["experiments"] = [*experiments, ONE_PROCESS]
    if "number_of_worker_harness_threads" not in options:
        found["number_of_worker_harness_threads"] = THREADS
    return found


def gpu_refusal(accelerator: str | None, options: Mapping[str, Any]) -> str:
    """What Dataflow does not allow together, by its documentation; "" if nothing.

    Sources: cloud.google.com/dataflow/docs/gpu/use-nvidia-mps and /dataflow/docs/guides/right-fitting.
    """
    experiments = _listed(options, "experiments", "experiment")
    services = _listed(options, "dataflow_service_options", "dataflow_service_option")
    of_all = next((one for one in services if one.startswith("worker_accelerator=")), "")
    if accelerator is not None and of_all:
        return (
            f"runner.dataflow_service_options: {of_all!r} gives every worker an accelerator, and Dataflow does not "
            f"allow it together with encoder.accelerator ({accelerator!r}): remove one of them"
        )
    shared = accelerator or of_all.removeprefix("worker_accelerator=")
    if accelerator is not None and options.get("flexrs_goal"):
        return (
            f"runner.flexrs_goal: {options['flexrs_goal']!r}: Dataflow's FlexRS does not support resource hints, "
            "which encoder.accelerator is: remove one of them"
        )
    if MPS in _parts(shared):
        if ONE_PROCESS in experiments:
            return (
                f"runner.experiments: {ONE_PROCESS} starts one process on a worker, and {MPS} in {shared!r} is for "
                "several processes that share a GPU: remove one of them"
            )
        if (count := _count(shared)) != "1":
            return (
                f"{shared!r}: Dataflow supports {MPS} only on workers with one GPU, and count is {count}: set count:1"
            )
    return ""


def gpu_words(accelerator: str | None, options: Mapping[str, Any]) -> str:
    """How many processes and threads embed on a worker with an accelerator, for `vecbeam plan`; "" without one."""
    if accelerator is None:
        return ""
    if MPS in _parts(accelerator):
        return f"{accelerator}: several processes share the GPU, each with its own model ({MPS})"
    taken = {**options, **gpu_defaults(accelerator, options)}
    if ONE_PROCESS not in _listed(taken, "experiments", "experiment"):
        return f"{accelerator}: one process for each vCPU, each with its own model ({MANY_PROCESSES})"
    threads = taken.get("number_of_worker_harness_threads", "Dataflow's default number of")
    return f"{accelerator}: one process with one model and {threads} threads on each worker"


def _listed(options: Mapping[str, Any], *names: str) -> list[str]:
    """The values of an option that may be a list or a text with commas."""
    found: list[str] = []
    for name in names:
        value = options.get(name) or []
        found += [str(one) for one in value] if isinstance(value, list) else str(value).split(",")
    return [one.strip() for one in found]


def _parts(accelerator: str) -> list[str]:
    return [part.strip() for part in accelerator.split(";")]


def _count(accelerator: str) -> str:
    return next((part.partition(":")[2] for part in _parts(accelerator) if part.startswith("count:")), "missing")
