"""Whatever is sent, the answer is a text or one clear error: never status 500, and the server goes on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.server.conftest import Served
from tests.server.fuzz import OWN, SOUND, THREADS, Fuzzer

COUNT = 1000


def test_whatever_is_sent(served: Served) -> None:
    fuzzer = Fuzzer(served.port)
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(fuzzer.send, range(COUNT)))
    assert [fault for _, fault in found if fault] == []
    assert {status for status, _ in found} >= {"200", "400", "404"}


@pytest.mark.parametrize("path", [*SOUND, *OWN])
def test_the_fuzzer_begins_with_sound_requests(served: Served, path: str) -> None:
    status, said = served.ask(path, {**SOUND, **OWN}[path])
    assert status == 200
    assert not (isinstance(said, str) and ('data: {"error' in said or 'data: {"failure' in said))
