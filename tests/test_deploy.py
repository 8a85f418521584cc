"""The files of deploy/: each is read by what reads it in use."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
IMAGES = sorted((DEPLOY / "images").glob("*.Dockerfile"))
WORKFLOWS = [*sorted((DEPLOY / "github").glob("*.yml")), ROOT / ".github" / "workflows" / "ci.yml"]
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
KUBERNETES = "1.33"
"""The oldest version of Kubernetes that the manifests are checked against."""


def checker(name: str) -> str:
    """The path of a program of the extra `deploy-checks`; skips the test where it is not installed."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip(f"{name} is not installed: it is in the extra deploy-checks")
    return found


def check(*command: str | Path) -> str:
    """Runs a checker; its complaint is the failure."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, f"{Path(command[0]).name}:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


TORCH_FIRST = (
    "# torch first, from its own index: the index has builds for the CPU alone, which are a tenth of the size.\n"
)


def test_images_are_sound() -> None:
    assert {path.name.split(".")[0] for path in IMAGES} == {"cpu", "flex", "orchestrator", "worker"}
    check(checker("hadolint"), *IMAGES)


def test_scripts_are_sound() -> None:
    check(checker("shellcheck"), *sorted(DEPLOY.rglob("*.sh")))


def test_workflows_are_sound() -> None:
    shellcheck = checker("shellcheck")
    check(checker("actionlint"), f"-shellcheck={shellcheck}", *WORKFLOWS)


def test_workflows_are_safe() -> None:
    done = check(checker("zizmor"), "--offline", "--no-progress", "--persona=regular", *WORKFLOWS)
    assert "No findings to report" in done


def test_actions_are_pinned_by_commit() -> None:
    uses = [line for path in WORKFLOWS for line in path.read_text().splitlines() if "uses:" in line]
    assert uses
    assert [line for line in uses if not re.search(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line)] == []


def test_runs_of_a_collection_wait_for_each_other() -> None:
    groups = set()
    for path in sorted((DEPLOY / "github").glob("*.yml")):
        workflow = yaml.safe_load(path.read_text())
        writing = [job for job in workflow["jobs"].values() if "plan" not in str(job.get("name", "")).lower()]
        assert writing, path.name
        for job in writing:
            concurrency = job.get("concurrency", workflow.get("concurrency"))
            assert concurrency["cancel-in-progress"] is False
            groups.add(concurrency["group"])
    assert groups == {"vecbeam-${{ vars.VECBEAM_COLLECTION }}"}


def test_only_an_approved_job_acts_as_the_launcher() -> None:
    """All others only plan, and compare on their own machine."""
    environments = set()
    for path in sorted((DEPLOY / "github").glob("*.yml")):
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            text = yaml.safe_dump(job, width=1000)
            approved = "environment" in job
            environments |= {job["environment"]} if approved else set()
            account, token = re.findall(r"vars\.(VECBEAM_\w+_ACCOUNT)", text), re.findall(r"secrets\.(\w+)", text)
            assert set(account) == {"VECBEAM_SERVICE_ACCOUNT" if approved else "VECBEAM_PLAN_ACCOUNT"}
            assert set(token) == {"MILVUS_TOKEN" if approved else "MILVUS_PLAN_TOKEN"}
            run = "\n".join(step.get("run", "") for step in job["steps"])
            commands_of = re.findall(r"^\s*vecbeam (\w+) (.+)$", run, re.MULTILINE)
            if not approved:
                assert {name for name, _ in commands_of} <= {"plan", "backfill", "compare"}
                assert all("--here" in rest for name, rest in commands_of if name == "plan")
                assert all(rest.startswith('"$side.yaml"') for name, rest in commands_of if name == "backfill")
    assert environments == {"production", "nightly"}


def test_compose_file_is_sound() -> None:
    check(checker("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", DEPLOY / "milvus.compose.yaml")
    services = yaml.safe_load((DEPLOY / "milvus.compose.yaml").read_text())["services"]
    assert set(services) == {"attu", "etcd", "minio", "standalone"}
    for name, service in services.items():
        assert "healthcheck" in service, name
        assert not service["image"].endswith(":latest"), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        for key, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|ROOT_USER|ACCESS_KEY", key):
                assert re.fullmatch(r"\$\{\w+:\?.+\}", value), f"{name}: {key} must come from the environment"


def test_manifests_are_sound(tmp_path: Path) -> None:
    program = checker("kubernetes-validate")
    for path in MANIFESTS:
        documents = list(yaml.safe_load_all(path.read_text()))
        # The operator's own kind has no schema here; the pods that it makes do.
        templates = [one["spec"]["taskManager"]["podTemplate"] for one in documents if one["kind"] == "FlinkDeployment"]
        known = [one for one in documents if one["kind"] != "FlinkDeployment"]
        copy = tmp_path / path.name
        copy.write_text(yaml.safe_dump_all([*known, *map(with_images, templates)]))
        printed = check(program, "--strict", "--kubernetes-version", KUBERNETES, copy)
        assert printed.count(" passed ") == len(documents), printed


def with_images(template: dict[str, Any]) -> dict[str, Any]:
    """The template of a pod as the operator completes it: the container of Flink gets its image."""
    for container in template["spec"]["containers"]:
        container.setdefault("image", "flink")
    return template


def test_pods_have_no_rights_that_they_do_not_need() -> None:
    seen = []
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text()):
            for pod in pods_of(document):
                for container in pod["containers"]:
                    if container["name"] == "flink-main-container":
                        continue  # of Flink's own image, which the operator completes
                    context = {**pod.get("securityContext", {}), **container.get("securityContext", {})}
                    assert context["runAsNonRoot"] is True, container["name"]
                    assert context["runAsUser"] > 0
                    assert context["allowPrivilegeEscalation"] is False
                    assert context["capabilities"] == {"drop": ["ALL"]}
                    assert "memory" in container["resources"]["limits"]
                    assert not container["image"].endswith(":latest")
                    seen.append(container["name"])
    assert sorted(seen) == ["job-server", "vecbeam", "vecbeam", "workers"]


def pods_of(value: object) -> Iterator[dict[str, Any]]:
    """What has containers, in a manifest."""
    if isinstance(value, dict):
        if "containers" in value:
            yield value
        for each in value.values():
            yield from pods_of(each)
    elif isinstance(value, list):
        for each in value:
            yield from pods_of(each)


def test_images_are_built_on_images_of_a_version() -> None:
    for path in IMAGES:
        named = re.findall(r"^ARG (?:BASE|BEAM|LAUNCHER|WORKER)=(\S+)$", path.read_text(), re.MULTILINE)
        assert named, path.name
        assert [name for name in named if ":" not in name or name.endswith(":latest")] == []


def test_the_template_is_one_of_dataflow() -> None:
    dataflow = pytest.importorskip("google.cloud.dataflow")
    path = DEPLOY / "images" / "flex_template.json"
    template = dataflow.TemplateMetadata.from_json(path.read_text())
    assert [(one.name, one.is_optional) for one in template.parameters] == [("configuration", False)]
    assert re.match(template.parameters[0].regexes[0], "gs://bucket/docs.yaml")
    with pytest.raises(Exception, match="no field named"):
        dataflow.TemplateMetadata.from_json(json.dumps({**json.loads(path.read_text()), "labels": {}}))


def test_versions_are_those_of_the_project() -> None:
    pinned = dict(re.findall(r"^(\S+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    for path in IMAGES[:1] + IMAGES[-1:]:
        text = path.read_text()
        assert re.findall(r"sdk:(\S+)$", text, re.MULTILINE) == [pinned["apache-beam"]], path.name
        for source in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
            assert all((ROOT / name).exists() for name in source.split() if "$" not in name), source
    assert f"job_server:{pinned['apache-beam']}" in (DEPLOY / "kubernetes" / "flink.yaml").read_text()
    assert f"torch {pinned['torch']} of PyPI" in (DEPLOY / "images" / "worker.Dockerfile").read_text()


def test_both_images_of_workers_are_alike() -> None:
    """They differ in how Python gets there, and in two defaults: a fix of one is a fix of the other."""
    cpu, gpu = ((DEPLOY / "images" / f"{name}.Dockerfile").read_text() for name in ("cpu", "worker"))
    last = [
        re.sub(r"(?m)^(FROM|ARG (TORCH_INDEX|EXTRAS)=).*\n", "", text[text.rindex("\nFROM ") + 1 :])
        for text in (cpu, gpu)
    ]
    assert last[0].replace(TORCH_FIRST, "") == last[1]
