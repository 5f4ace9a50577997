"""From weights to sessions that run. Imported before torch, whose threads it keeps from fighting over a busy machine.

GNU OpenMP's threads spin for a long while before they sleep. On a machine that has other work to do they then take turns with it, and a
decode step, a hundred short parallel loops, waits for a thread that is not running: 3 tokens a second instead of 160 on two busy
cores. Spinning for a shorter while costs nothing on an idle machine.
"""

import os

if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
