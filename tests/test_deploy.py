"""The files of deploy/: each is read by what reads it in use, and each command line in it by vecbeam's own parser."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_provider
import pytest
import typer
import yaml

from pipelines.cli import app

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

# The files


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


# Terraform


def test_terraform_is_formatted() -> None:
    program = shutil.which("terraform")
    if program is None:
        pytest.skip("terraform is not installed, and no package registry carries it")
    environment = {**os.environ, "TF_CLI_CONFIG_FILE": os.devnull}
    done = subprocess.run(
        [program, "fmt", "-check", "-diff", "-recursive", str(DEPLOY)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr


@functools.cache
def provider() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(google_provider.RECORDED.read_text())
    return found


def test_terraform_names_what_the_provider_has() -> None:
    pytest.importorskip("hcl2", reason="python-hcl2 is not installed: it is in the extra deploy-checks")
    schemas = provider()
    found = list(google_provider.resources())
    assert {kind for kind, _, _ in found} == set(schemas)
    assert [
        fault for kind, name, body in found for fault in google_provider.faults(body, schemas[kind], f"{kind}.{name}")
    ] == []


def test_a_wrong_attribute_would_be_found() -> None:
    schema = provider()["google_storage_bucket"]
    body = {"name": "x", "locatoin": "EU", "lifecycle_rule": [{"action": [{}], "condition": [{"ages": 1}]}]}
    assert google_provider.faults(body, schema, "b") == [
        "b: locatoin is unknown",
        "b: location is required",
        "b.lifecycle_rule.action: type is required",
        "b.lifecycle_rule.condition: ages is unknown",
    ]


def test_references_of_terraform_exist() -> None:
    pytest.importorskip("hcl2", reason="python-hcl2 is not installed: it is in the extra deploy-checks")
    there = {(kind, name) for kind, name, _ in google_provider.resources()}
    text = "\n".join(path.read_text() for path in sorted((DEPLOY / "terraform").glob("*.tf")))
    used = re.findall(
        r"\b(google_\w+)\.(\w+)(?:\[[^\]]*\])?(?:\.(\w+))?", re.sub(r'^resource .*$|"google_\w+"', "", text, flags=re.M)
    )
    assert used
    for kind, name, attribute in used:
        assert (kind, name) in there, f"{kind}.{name}"
        assert not attribute or attribute in provider()[kind]["gives"], f"{kind}.{name}.{attribute}"
    variables = set(re.findall(r'^variable "(\w+)"', text, re.M))
    assert variables == set(re.findall(r"\bvar\.(\w+)", text))


def test_no_account_has_a_wide_role() -> None:
    text = "\n".join(path.read_text() for path in sorted((DEPLOY / "terraform").glob("*.tf")))
    roles = set(re.findall(r'role\s+= "(roles/[^"]+)"', text))
    assert roles
    assert not {role for role in roles if re.search(r"/(owner|editor|viewer)$|\.admin$|Admin$", role)} - {
        "roles/storage.objectAdmin",  # of one bucket
    }
    # On the project as a whole: what Dataflow's own pages ask for, and no more.
    project = re.findall(r'resource "google_project_iam_member" .*?role\s+= "([^"]+)"', text, re.S)
    assert sorted(project) == ["roles/compute.viewer", "roles/dataflow.developer", "roles/dataflow.worker"]


def test_the_planner_can_only_read() -> None:
    pytest.importorskip("hcl2", reason="python-hcl2 is not installed: it is in the extra deploy-checks")
    given = {
        (kind, name, plain_text(body["role"]))
        for kind, name, body in google_provider.resources()
        if "role" in body and "planner" in str(body)
    }
    assert {role for kind, _, role in given if kind == "google_storage_bucket_iam_member"} == {
        "roles/storage.objectViewer",
        "roles/storage.legacyBucketReader",
    }
    # That a workflow may act as it.
    assert {one for one in given if one[0] != "google_storage_bucket_iam_member"} == {
        ("google_service_account_iam_member", "github", "roles/iam.workloadIdentityUser")
    }


def plain_text(value: str) -> str:
    """A string of python-hcl2 without the quotes that it keeps."""
    return value.strip('"')


MAIN = "refs/heads/main"
TOKENS = [
    ("schedule", MAIN, "environment:nightly", "launcher"),
    ("push", MAIN, "environment:production", "launcher"),
    ("workflow_dispatch", MAIN, "environment:production", "launcher"),
    ("push", MAIN, f"ref:{MAIN}", "planner"),  # before the approval
    ("push", MAIN, "environment:staging", "planner"),
    ("push", "refs/heads/mine", "environment:nightly", "planner"),
    ("push", "refs/tags/main", "environment:nightly", "planner"),
    ("workflow_dispatch", "refs/heads/mine", "environment:production", "planner"),
    ("pull_request", "refs/pull/7/merge", "pull_request", "planner"),
    ("pull_request", "refs/pull/7/merge", "environment:nightly", "planner"),
    ("pull_request_target", MAIN, "environment:nightly", "planner"),
]
"""Event, ref, end of the subject, and the account, by GitHub's page on the claims of its tokens."""


@pytest.mark.parametrize("owner", ["repo:o/search", "repo:o@12/search@34"])  # before July 2026, and since
@pytest.mark.parametrize(("event", "ref", "end", "account"), TOKENS)
def test_a_workflow_acts_as_the_account_that_it_needs(owner: str, event: str, ref: str, end: str, account: str) -> None:
    """By Google's own evaluation of the expressions that Terraform gives to its service."""
    claims = {"repository": "o/search", "event_name": event, "ref": ref, "sub": f"{owner}:{end}"}
    assert evaluated("attribute_condition", claims) is True
    assert evaluated("attribute.account", claims) == account
    assert evaluated("google.subject", claims) == claims["sub"]
    assert evaluated("attribute_condition", {**claims, "repository": "other/search"}) is False


def evaluated(key: str, claims: dict[str, str]) -> object:
    """An expression of the identity provider in Terraform, for a token with some claims."""
    cel = pytest.importorskip("cel_expr_python.cel", reason="cel-expr-python is in the extra deploy-checks")
    text = (DEPLOY / "terraform" / "identity.tf").read_text()
    [expression] = re.findall(rf'"?{re.escape(key)}"?\s+= "(assertion\..+)"', text)
    for variable, value in (("repository", "o/search"), ("branch", "main")):
        expression = expression.replace(f"${{var.{variable}}}", value)
    environment = cel.NewEnv(variables={"assertion": cel.Type.Map(cel.Type.STRING, cel.Type.DYN)})
    return environment.compile(expression).eval(data={"assertion": claims}).plain_value()


# Commands


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a file of deploy/ that a shell runs: steps of workflows, code, and indented lines of comments."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".md":
        yield from re.findall(r"^#   +(.+)$", text, re.MULTILINE)
    if path.parent.name in ("github", "workflows"):
        for job in yaml.safe_load(text)["jobs"].values():
            for step in job["steps"]:
                yield from step.get("run", "").splitlines()
    if path.suffix == ".md":
        for block in re.findall(r"^```(?:console|bash)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            yield from block.replace("\\\n", " ").splitlines()
        yield from re.findall(r"`((?:vecbeam|gcloud) [^`]+)`", text)


def words_of(path: Path) -> Iterator[list[str]]:
    """The command lines of vecbeam in a file of deploy/, as words."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".tf":
        for listed in re.findall(r'args\s*=\s*(\["[^\]]*\])', text):
            yield ["vecbeam", *json.loads(listed)]
    if path.parent.name == "kubernetes":
        for listed in re.findall(r"args: \[((?!-)[^\]]*)\]", text):
            yield ["vecbeam", *(word.strip() for word in listed.split(","))]
    for line in lines_of(path):
        for listed in re.findall(r"--args=(\S+)", line):  # of gcloud, for the job that starts `vecbeam`
            yield ["vecbeam", *listed.rstrip("`").split(",")]
        for found in re.findall(r"(?:^|&& |\$ )(vecbeam [^#|&;>]+)", line.strip()):
            yield shlex.split(found)


@functools.cache
def commands() -> Any:
    """The command line, as the program builds it."""
    return typer.main.get_group(app)


def complaint(words: list[str]) -> str:
    """What the program's parser has against a command line, which is not run; "" if nothing."""
    group = commands()
    context = group.context_class(group, info_name="vecbeam")
    try:
        name, command, rest = group.resolve_command(context, words[1:])
        command.make_context(name, list(rest), parent=context)
    except Exception as error:  # typer has its own copy of click, whose classes it does not export
        return str(error)
    return ""


FILES = [path for path in sorted(DEPLOY.rglob("*")) if path.suffix in {".md", ".yaml", ".yml", ".tf", ".Dockerfile"}]


def test_every_command_line_is_one_of_vecbeam() -> None:
    assert ["vecbeam", "sync", "missing.yaml"] in list(words_of(DEPLOY / "README.md"))  # as gcloud takes it
    seen = set()
    for path in FILES:
        for words in words_of(path):
            assert complaint(words) == "", f"{path.relative_to(ROOT)}: {shlex.join(words)}"
            seen.add((path.name, words[1]))
    assert seen >= {
        ("sync.yml", "sync"),
        ("backfill.yml", "backfill"),
        ("reindex.yml", "plan"),
        ("reindex.yml", "compare"),
        ("reindex.yml", "reindex"),
        ("sync.tf", "sync"),
        ("sync.yaml", "sync"),
        ("backfill.yaml", "backfill"),
        ("milvus.compose.yaml", "doctor"),
        ("README.md", "backfill"),
        ("README.md", "rollback"),
    }


def test_the_page_names_keys_that_there_are() -> None:
    text = (DEPLOY / "README.md").read_text()
    named = re.findall(r"`(?:chunk|collection|corpus|encoder|verify)\.(\w+)|`(batch_rows)", text)
    reference = (ROOT / "docs" / "configuration.md").read_text()
    assert named
    assert [key for pair in named for key in pair if key and f"| `{key}` |" not in reference] == []


def test_a_wrong_command_line_would_be_found() -> None:
    assert "--jsonn" in complaint(["vecbeam", "sync", "docs.yaml", "--jsonn"])
    assert "synk" in complaint(["vecbeam", "synk", "docs.yaml"])
    assert complaint(["vecbeam", "sync", "docs.yaml", "--json"]) == ""


def test_the_configuration_of_the_images_is_read_by_the_cloud_run_job() -> None:
    text = (DEPLOY / "terraform" / "storage.tf").read_text() + (DEPLOY / "terraform" / "sync.tf").read_text()
    [name] = re.findall(r'name\s+= "(.+\.yaml)"', text)
    [mounted] = re.findall(r'mount_path = "(.+)"', text)
    assert f'"{mounted}/{name}"' in text


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


# Programs


def test_models_are_fetched_into_an_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configuration = tmp_path / "vecbeam.yaml"
    values = {
        "name": "docs",
        "corpus": {"paths": ["gs://bucket/*.jsonl"]},
        "encoders": {"one": {"model": "fake"}, "terms": {"model": "tfidf"}},
        "checkpoint": "gs://bucket/checkpoints",
        "collection": {"uri": "http://127.0.0.1:9"},
    }
    configuration.write_text(yaml.safe_dump(values))
    lines = program("fetch_models").fetch(str(configuration))
    assert lines[0].startswith("one: fake, space ")
    assert lines[1] == "terms: fitted on the corpus, not in the image"


def program(name: str) -> Any:
    """A program of deploy/images, as a module."""
    spec = importlib.util.spec_from_file_location(name, DEPLOY / "images" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_template_embeds_a_corpus(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    lines = [{"id": "a", "text": "Japan spans many islands."}, {"id": "b", "text": ""}, {"id": "c", "text": "Kenya."}]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    configuration = tmp_path / "vecbeam.yaml"
    values = {
        "name": "docs",
        "corpus": {"paths": [str(tmp_path / "corpus.jsonl")], "content": ["text"]},
        "encoder": {"model": "fake"},
        "checkpoint": str(tmp_path / "checkpoint"),
        "collection": {"uri": "http://127.0.0.1:9"},
    }
    configuration.write_text(yaml.safe_dump(values))
    program("flex_embed").start([f"--configuration={configuration}", "--runner=FnApiRunner"])
    parts = list((tmp_path / "checkpoint").rglob("parts/*.parquet"))
    assert sorted(item for part in parts for item in pq.read_table(part)["item_id"].to_pylist()) == ["a", "c"]
    rejects = list((tmp_path / "checkpoint").rglob("rejects/*.parquet"))
    assert [reason for file in rejects for reason in pq.read_table(file)["error"].to_pylist()] == ["EmptyText"]


def test_the_entry_point_fetches_the_token(tmp_path: Path) -> None:
    """With a secret of Secret Manager, and without one; the boot program gets its arguments and the token."""
    boot = tmp_path / "boot"
    boot.write_text('#!/bin/sh\nprintf "%s %s" "$MILVUS_TOKEN" "$*"\n')
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "root:%s" "$3"\n')
    for file in (boot, python):
        file.chmod(0o755)
    entry = tmp_path / "entrypoint.sh"
    entry.write_text((DEPLOY / "images" / "entrypoint.sh").read_text().replace("/opt/apache/beam/boot", str(boot)))
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "MILVUS_TOKEN": "given"}
    for more, token in (({}, "given"), ({"MILVUS_TOKEN_SECRET": "projects/p/secrets/s"}, "root:projects/p/secrets/s")):
        done = subprocess.run(
            ["sh", str(entry), "--id=1", "--x"], env={**environment, **more}, capture_output=True, text=True, check=True
        )
        assert done.stdout == f"{token} --id=1 --x"
