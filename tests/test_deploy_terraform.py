"""deploy/terraform: names that Google's provider has, accounts with least rights, and whom a workflow acts as."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import google_provider
import pytest

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"


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
