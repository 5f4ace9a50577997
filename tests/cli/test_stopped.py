"""A process that is stopped for a while, as a shell's Ctrl-Z or a busy host does it, writes the same text once it goes on."""

from __future__ import annotations

import signal
import time

import pytest

from tests.cli.processes import TIMEOUT, running, tgen
from tgen.executors.native.library import load

pytestmark = [pytest.mark.long, pytest.mark.skipif(load().library is None, reason=f"no native library: {load().problem}")]
ARGUMENTS = ["generate", "Once upon a time", "-n", "400", "--ignore-eos", "--seed", "5", "-t", "2", "--executor", "native"]


def test_a_text_goes_on_after_a_stop() -> None:
    expected = tgen(*ARGUMENTS).stdout
    with running(*ARGUMENTS) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdin.close()
        begun = process.stdout.read(20)
        process.send_signal(signal.SIGSTOP)
        time.sleep(2)
        assert process.poll() is None  # it had not ended before it was stopped
        process.send_signal(signal.SIGCONT)
        assert begun + process.stdout.read() == expected
        assert process.wait(TIMEOUT) == 0


@pytest.mark.parametrize("stopped", [True, False])
def test_an_interrupt_during_a_stop_or_after_it_ends_the_process(stopped: bool) -> None:
    with running(*ARGUMENTS[:3], "100000", *ARGUMENTS[4:]) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdin.close()
        process.stdout.read(20)
        process.send_signal(signal.SIGSTOP)
        if stopped:
            process.send_signal(signal.SIGINT)  # waits until the process goes on
            time.sleep(0.5)
            assert process.poll() is None
        process.send_signal(signal.SIGCONT)
        if not stopped:
            process.stdout.read(20)  # it has gone on
            process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 130
