"""The failure of a job, as runners hand it over: as text."""

from __future__ import annotations

from pipelines.run.jobs.worker_faults import worker_fault
from schemas.errors import CorpusError, VecbeamError, VersionMismatchError

STATE = "Pipeline job-1 failed in state FAILED: "


def said(text: str) -> VecbeamError:
    error = worker_fault(text)
    assert error is not None
    return error


def test_a_job_that_its_runner_gave_up() -> None:
    error = said(f"{STATE}Traceback (most recent call last):\n  File 'a'\nRuntimeError: the worker w-1 has died\n")
    assert error.message == "the job on other machines ended as FAILED: RuntimeError: the worker w-1 has died"
    assert "the same command continues" in error.remedy
    assert said(f"{STATE}None").message.endswith("FAILED: None")
    assert said("Dataflow pipeline failed. State: FAILED, Error:\nThe worker lost contact").message.endswith("contact")
    assert "its runner gives no reason" in str(said("Pipeline job-1 failed in state FAILED:"))
    assert len(said(STATE + "x" * 5000).message) < 600


def test_a_region_without_the_accelerator() -> None:
    refused = "Invalid value for field 'resource.guestAccelerators[0].acceleratorType': the resource is not found"
    error = said(f"Dataflow pipeline failed. State: FAILED, Error:\nWorkflow failed. Causes: {refused}")
    assert refused in error.message
    assert error.remedy.startswith("if the region or zone does not have the accelerator (gcloud compute accel")
    assert "the same command continues" in error.remedy


def test_errors_of_ours_come_first_and_others_stay_what_they_are() -> None:
    assert type(said(f"{STATE}schemas.errors.CorpusError: no id [while running 'Read']")) is CorpusError
    labels = "[while running 'A'] [while running 'B']"
    refused = said(f"{STATE}schemas.errors.StorageError: can't read a: 403 {labels}. see b")
    assert (refused.message, refused.remedy) == ("can't read a: 403", "see b")
    hidden = said(f"{STATE}ModuleNotFoundError: No module named 'schemas.config' [while running 'Read']")
    assert type(hidden) is VersionMismatchError
    assert "No module named 'torch'" in said(f"{STATE}ModuleNotFoundError: No module named 'torch'").message
    assert worker_fault("ValueError: a fault of this process") is None
