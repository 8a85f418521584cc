"""Workers' file systems: another vecbeam, other paths of all packages, and nothing of the launcher's in sight.

A root is a folder with a copy of vecbeam as a wheel would install it, and one empty folder for each folder of packages
of this machine. A worker starts in a mount namespace in which those packages are bound below its root, and their own
folders, the checkout and the launcher's folder are covered by empty ones.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = ("schemas", "transforms", "pipelines", "vecbeam")
OTHER_VERSION = "0.0.9"
BOOT = Path(__file__).with_name("worker_boot.py")


def package_folders() -> list[Path]:
    """The folders of this interpreter's path that hold installed packages, in order."""
    found = [Path(entry).resolve() for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    return [folder for folder in dict.fromkeys(found) if folder.is_dir()]


def make_root(root: Path, kind: str) -> Path:
    """Makes the root of one worker; returns it.

    Args:
        kind: "plain"; "other_version", whose vecbeam says that it is another one; "foreign_schemas" or
            "foreign_transforms", with a package of that name before vecbeam's; or "without", which has no vecbeam.
    """
    installed = root / "installed"
    installed.mkdir(parents=True)
    for folder in ("home", "tmp", *(f"packages-{number}" for number in range(len(package_folders())))):
        (root / folder).mkdir()
    shutil.copyfile(BOOT, root / BOOT.name)
    if kind == "without":
        return root
    for name in PACKAGES:
        shutil.copytree(PROJECT / name, installed / name, ignore=shutil.ignore_patterns("__pycache__"))
    number = OTHER_VERSION if kind == "other_version" else version("vecbeam")
    metadata = installed / f"vecbeam-{number}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: vecbeam\nVersion: {number}\n")
    if kind.startswith("foreign_"):
        package = root / "foreign" / kind.removeprefix("foreign_")
        package.mkdir(parents=True)
        (package / "__init__.py").write_text('"""A package of somebody else."""\n')
    return root


def worker_command(root: Path, hidden: list[Path]) -> tuple[list[str], dict[str, str]]:
    """The command that starts a worker in a root, up to the boot program's own options, and its environment.

    Args:
        hidden: further folders that the worker must not see.
    """
    lines, path = [], [root / "foreign", root / "installed"]
    for number, folder in enumerate(package_folders()):
        path.append(root / f"packages-{number}")
        lines.append(f"mount --bind {shlex.quote(str(folder))} {shlex.quote(str(path[-1]))}")
    for folder in (*package_folders(), PROJECT, *hidden):
        lines.append(f"if [ -d {shlex.quote(str(folder))} ]; then mount -t tmpfs none {shlex.quote(str(folder))}; fi")
    # -S: no site-packages of the interpreter, so that the variable below is all that the worker has.
    lines.append(f'cd {shlex.quote(str(root))} && exec {shlex.quote(_interpreter())} -S -P {BOOT.name} "$@"')
    environment = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": str(root / "home"),
        "TMPDIR": str(root / "tmp"),
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "VECBEAM_CACHE": str(root / "home" / "cache"),
        **{name: value for name, value in os.environ.items() if name.startswith("AWS_")},
    }
    return ["unshare", "--mount", "--uts", "sh", "-euc", "\n".join(lines), "worker"], environment


def _interpreter() -> str:
    """The Python that a virtual environment was made of: no folder of packages, and so none that is hidden, has it."""
    return os.path.realpath(sys.executable)
