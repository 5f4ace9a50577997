"""Asks Linux to run others as soon as they have something to do, though the model keeps all processors busy.

From Linux 6.12 on, a thread that wakes up runs at once if its slice is shorter and its deadline earlier than those of the thread which has
the processor; a deadline is a slice away from where the slice began. Else it waits until the other's slice is over, as long as some steps
of a small model take. So the thread of the connections has a short slice, and the threads that compute have one so much longer than usual
that the deadline of a client, which may be on the same machine, is nearly always earlier. The short slice is as long as reading a request
or sending a token takes: a thread that has used up its slice has to wait in the middle of it. Every thread still gets its fair share.
`man 2 sched_setattr` tells of the calls.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SHORT_NANOSECONDS, LONGER = 1_000_000, 20
CALL_NUMBERS = {"x86_64": 314, "aarch64": 274}  # of sched_setattr; that of sched_getattr is the next one
RESET_ON_FORK = 1  # threads that this one starts are like others
ATTRIBUTES = "=IIQiIQQQ"


def wake_at_once() -> bool:
    """Make the calling thread's slice short, and keep its priority. Returns whether the system took the call; it need not act on it."""
    return _set_slice(SHORT_NANOSECONDS, RESET_ON_FORK)


@contextmanager
def giving_way() -> Iterator[None]:
    """Make the slice of the calling thread and of those that it starts longer than usual, until the context ends."""
    usual = _slice()
    longer = usual > 0 and _set_slice(LONGER * usual)
    try:
        yield
    finally:
        if longer:
            _set_slice(0)  # the system's own


def _call_number() -> int | None:
    """The number of sched_setattr; None where there is none, and for a thread of another policy."""
    if sys.platform != "linux" or sys.maxsize < 2**32 or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return None
    return CALL_NUMBERS.get(platform.machine())


def _slice() -> int:
    """The calling thread's slice in nanoseconds; 0 if the system does not tell."""
    number, attributes = _call_number(), ctypes.create_string_buffer(struct.calcsize(ATTRIBUTES))
    if number is None or ctypes.CDLL(None).syscall(number + 1, 0, attributes, len(attributes), 0):
        return 0
    return int(struct.unpack(ATTRIBUTES, attributes.raw)[5])


def _set_slice(nanoseconds: int, flags: int = 0) -> bool:
    number = _call_number()
    if number is None:
        return False
    nice, size = os.getpriority(os.PRIO_PROCESS, 0), struct.calcsize(ATTRIBUTES)
    attributes = struct.pack(ATTRIBUTES, size, os.SCHED_OTHER, flags, nice, 0, nanoseconds, 0, 0)
    return int(ctypes.CDLL(None).syscall(number, 0, attributes, 0)) == 0
