"""The command `vecbeam`, also as `python -m vecbeam`."""

from __future__ import annotations

import sys
from pathlib import Path

from vecbeam import HOME, hidden


def main() -> None:
    """Entry point: makes sure that it is vecbeam's own packages which are imported, and starts the command line.

    `python -m` has Python look in the current folder first, which may have a `schemas` or `pipelines` of its own. This
    process is the command's own, so that folder is taken from its path.
    """
    here = Path.cwd()
    if not sys.flags.safe_path and here != HOME and sys.path[:1] in ([""], [str(here)]):
        del sys.path[0]
    if why := hidden():
        print(f"vecbeam: {why}", file=sys.stderr)
        sys.exit(2)
    from pipelines.entry import main as run

    run()


if __name__ == "__main__":
    main()
