"""When a run of the command line began."""

from __future__ import annotations

import os
import subprocess
import sys
import time

PROGRAM = "from transforms.support import process; process.take(); print(process.run_began())"


def test_the_first_run_of_a_process_began_with_the_process() -> None:
    before = time.time()
    done = subprocess.run([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, check=True)
    tick = 1 / os.sysconf("SC_CLK_TCK")
    assert before - 2 * tick <= float(done.stdout) <= time.time()
