"""Runs models. Importing this package before torch sets how long torch's threads spin, which matters on a busy machine.

GNU OpenMP's threads spin for a long time before they sleep. On a busy machine they then compete with other programs, and a decode step,
which is a hundred short parallel loops, waits for threads that the system has not scheduled: 3 tokens a second instead of 160 on two
busy cores. Shorter spinning costs nothing on an idle machine.
"""

import os

if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
