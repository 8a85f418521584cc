"""What Terraform's provider for Google Cloud takes, for the resources of deploy/terraform, and what these files name.

    python tests/google_provider.py

writes tests/data/google_provider.json from the package cdktf-cdktf-provider-google (49 MB, read as a zip file and not
installed): attributes and blocks of each resource, which of them are required, and which others refer to it by.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TERRAFORM = ROOT / "deploy" / "terraform"
RECORDED = ROOT / "tests" / "data" / "google_provider.json"
PACKAGE = "cdktf-cdktf-provider-google==16.12.1"
META = {"connection", "count", "depends_on", "for_each", "lifecycle", "provider", "provisioners"}
"""What Terraform itself takes in any resource."""
Schema = dict[str, Any]


def resources() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Kind, name and body of each resource of deploy/terraform."""
    import hcl2

    for path in sorted(TERRAFORM.glob("*.tf")):
        with open(path, encoding="utf-8") as file:
            parsed = hcl2.load(file)
        for block in parsed.get("resource", []):
            for kind, named in plain(block).items():
                for name, body in named.items():
                    yield kind, name, body


def plain(value: Any) -> Any:
    """A value of python-hcl2 without its own marks and quotes around names."""
    if isinstance(value, dict):
        return {key.strip('"'): plain(each) for key, each in value.items() if not key.startswith("__")}
    return [plain(each) for each in value] if isinstance(value, list) else value


def faults(body: dict[str, Any], schema: Schema, place: str) -> list[str]:
    """What a resource or a block names that the provider does not know, and what it leaves out that is required."""
    optional, required, blocks = schema["optional"], schema["required"], schema["blocks"]
    found = [f"{place}: {name} is unknown" for name in body if name not in {*optional, *required, *META}]
    found += [f"{place}: {name} is required" for name in required if name not in body]
    for name, value in body.items():
        for each in value if isinstance(value, list) and name in blocks else []:
            found += faults(each, blocks[name], f"{place}.{name}")
    return found


def schema_of(classes: dict[str, ast.ClassDef], name: str) -> Schema:
    """The schema of a class of the package: of a resource's configuration, or of a block."""
    [init] = [each for each in classes[name].body if isinstance(each, ast.FunctionDef) and each.name == "__init__"]
    schema: Schema = {"required": [], "optional": [], "blocks": {}}
    for argument, default in zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True):
        if argument.arg in {*META, "timeouts"}:
            continue
        attribute = argument.arg.rstrip("_")
        schema["required" if default is None else "optional"].append(attribute)
        shown = ast.unparse(argument.annotation) if argument.annotation else ""
        inner = next((word for word in re.findall(r"\w+", shown) if word in classes), None)
        if inner and inner != name:
            schema["blocks"][attribute] = schema_of(classes, inner)
    return schema


def record(wheel: Path) -> dict[str, Schema]:
    """The schema of each resource that deploy/terraform has, from the package's wheel."""
    schemas: dict[str, Schema] = {}
    with zipfile.ZipFile(wheel) as packed:
        for kind in sorted({kind for kind, _, _ in resources()}):
            short = kind.removeprefix("google_")
            tree = ast.parse(packed.read(f"cdktf_cdktf_provider_google/{short}/__init__.py"))
            classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
            [config] = [name for name in classes if name.lower() == short.replace("_", "") + "config"]
            main = classes[config.removesuffix("Config")]
            gives = {each.name for each in main.body if isinstance(each, ast.FunctionDef) and each.decorator_list}
            own = {name for name in gives if not re.match(r"_|put_|reset_|TF_|generate_|\w+_input$", name)}
            schemas[kind] = schema_of(classes, config) | {"gives": sorted(own)}
    return schemas


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
        subprocess.run(download, check=True)
        [wheel] = Path(folder).glob("*.whl")
        schemas = record(wheel)
    lines = ",\n".join(f"{json.dumps(kind)}: {json.dumps(schema)}" for kind, schema in schemas.items())
    RECORDED.write_text("{\n" + lines + "\n}\n", encoding="utf-8")
    print(f"{RECORDED.relative_to(ROOT)}: {len(schemas)} resources of {PACKAGE}")


if __name__ == "__main__":
    main()
