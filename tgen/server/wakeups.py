"""Asks Linux to run the thread of the connections as soon as it has something to do, even while the model keeps all processors busy.

From Linux 6.12 on, a thread that wakes up runs at once if its time slice is shorter than that of the thread which has the processor. Else
it waits until the other's slice is over, which takes as long as some steps of a small model. `man 2 sched_setattr` describes the call.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

SLICE_NANOSECONDS = 100_000
CALL_NUMBERS = {"x86_64": 314, "aarch64": 274}  # the numbers of the system call sched_setattr
RESET_ON_FORK = 1  # threads that this one starts do not inherit its slice


def wake_at_once() -> bool:
    """Make the calling thread's slice short, and keep its priority. Returns whether the system took the call; it need not act on it."""
    if sys.platform != "linux" or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    number = CALL_NUMBERS.get(platform.machine())
    if number is None or sys.maxsize < 2**32:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = struct.pack("=IIQiIQQQ", 48, os.SCHED_OTHER, RESET_ON_FORK, nice, 0, SLICE_NANOSECONDS, 0, 0)
    return int(ctypes.CDLL(None).syscall(number, 0, attributes, 0)) == 0
