"""Builds the images of deploy/images with buildah, on a base that is made here: no registry of images is needed.

    python tests/image/images.py FOLDER [--only cpu ...] [--torch-index URL]

The base is Debian bookworm from debootstrap, with Python 3.11 and this machine's settings of pip; `boot.py` replaces
Beam's boot program, and a line of shell Google's template launcher. Needs root and
`apt-get install buildah debootstrap crun`. FOLDER keeps the base for the next time.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlparse

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
BASE, BEAM, LAUNCHER = "localhost/vecbeam-base", "localhost/beam-boot", "localhost/template-launcher"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
MIRROR = "http://deb.debian.org/debian"
ENVIRONMENT = {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "overlay", "LC_ALL": "C.UTF-8"}
# What a worker of the test needs; the defaults of the files have more.
EXTRAS = "torch,minilm,lite"


class ImageError(Exception):
    """Why an image can't be built here."""


def check_tools() -> None:
    """Raises ImageError if this machine can't build images."""
    missing = [name for name in ("buildah", "debootstrap", "crun") if shutil.which(name) is None]
    if missing:
        raise ImageError(f"{', '.join(missing)} not installed: apt-get install buildah debootstrap crun")
    if os.getuid() != 0:
        raise ImageError("debootstrap and buildah's isolation by chroot need root")


def run(*command: str | Path, quiet: bool = True) -> str:
    """Runs a command to its end; returns what it printed.

    Raises:
        ImageError: with the end of what it printed, if it failed.
    """
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **ENVIRONMENT},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if quiet else None,
    )
    if done.returncode:
        raise ImageError(
            f"{' '.join(map(str, command[:3]))} ended with {done.returncode}:\n{(done.stdout or '')[-4000:]}"
        )
    return done.stdout


def pip_settings() -> dict[str, str]:
    """What pip is set to on this machine, by configuration files and by the environment."""
    listed = run(sys.executable, "-m", "pip", "config", "list")
    pairs = (line.partition("=") for line in listed.splitlines() if "=" in line)
    named = {name.rpartition(".")[2]: value.strip("'\"") for name, _, value in pairs}
    return {name: named[name] for name in ("index-url", "extra-index-url", "find-links") if name in named}


def volumes() -> list[str]:
    """The folders of this machine in which pip looks for packages, as options of buildah.

    An index has its files next to the folder with its pages.
    """
    words = " ".join(pip_settings().values()).split()
    named = [Path(urlparse(word).path) for word in words if word.startswith(("/", "file:"))]
    paths = {path.parent if path.name == "simple" else path for path in named}
    return [f"--volume={path}:{path}:ro" for path in sorted(paths) if path.is_dir()]


def make_root(folder: Path) -> Path:
    """The files of Debian bookworm with Python 3.11, made once."""
    root = folder / "root"
    if (root / "etc" / "made").exists():
        return root
    shutil.rmtree(root, ignore_errors=True)
    run("debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", root, MIRROR)
    install = "apt-get update -qq && apt-get install -y -qq --no-install-recommends python3.11 python3.11-venv"
    run("chroot", root, "env", "DEBIAN_FRONTEND=noninteractive", "sh", "-c", install)
    (root / "etc" / "made").touch()
    return root


def make_base(folder: Path) -> None:
    """Makes the images that the files of deploy/images start from, once: a new base would be a new start for all."""
    if {BASE, BEAM, LAUNCHER} <= set(run("buildah", "images", "--format", "{{.Name}}").split()):
        return
    root = make_root(folder)
    if CERTIFICATES.exists():
        shutil.copy(CERTIFICATES, root / str(CERTIFICATES).lstrip("/"))
    lines = [f"{name} = {value}" for name, value in pip_settings().items()]
    (root / "etc" / "pip.conf").write_text(
        "\n".join(["[global]", f"cert = {CERTIFICATES}", "timeout = 180", *lines, ""])
    )
    boot, launcher = folder / "boot", folder / "python_template_launcher"
    shutil.copy(HERE / "boot.py", boot)
    launcher.write_text('#!/bin/sh\nexec python "$FLEX_TEMPLATE_PYTHON_PY_FILE" "$@"\n')
    for file in (boot, launcher):
        file.chmod(0o755)
    copies = {
        BASE: (root, "/"),
        BEAM: (boot, "/opt/apache/beam/boot"),
        LAUNCHER: (launcher, "/opt/google/dataflow/python_template_launcher"),
    }
    for image, (source, target) in copies.items():
        container = run("buildah", "from", "scratch").strip()
        run("buildah", "copy", container, source, target)
        run("buildah", "commit", "--rm", container, image)


def build(name: str, torch_index: str) -> float:
    """Builds one image, `localhost/vecbeam-NAME`; returns the seconds that it took."""
    start = time.monotonic()
    arguments = {
        "BASE": BASE,
        "BEAM": BEAM,
        "LAUNCHER": LAUNCHER,
        "WORKER": "localhost/vecbeam-cpu",
        "PYTHON_ARCHIVE": "",
        "TORCH_INDEX": torch_index,
        "EXTRAS": EXTRAS,
        "CONFIGURATION": "tests/image/vecbeam.yaml",
    }
    file = ROOT / "deploy" / "images" / f"{name}.Dockerfile"
    declared = file.read_text(encoding="utf-8")
    chosen = [f"--build-arg={key}={value}" for key, value in arguments.items() if f"ARG {key}" in declared]
    context = file.parent if name in ("orchestrator", "flex") else ROOT
    tag = f"localhost/vecbeam-{name}"
    run("buildah", "build", "--layers", "--pull=never", "--tag", tag, "--file", file, *chosen, *volumes(), context)
    return time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", default=["cpu", "orchestrator", "flex", "worker"])
    parser.add_argument("--torch-index", default=pip_settings().get("index-url", "https://pypi.org/simple"))
    given = parser.parse_args()
    check_tools()
    given.folder.mkdir(parents=True, exist_ok=True)
    make_base(given.folder)
    for name in given.only:
        print(f"{name:<14}{build(name, given.torch_index):6.0f} s", flush=True)


if __name__ == "__main__":
    try:
        main()
    except ImageError as error:
        sys.exit(f"error: {error}")
