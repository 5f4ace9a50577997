"""The lines of a batch, answered by a running `tgen serve`: one request for each line, as many at once as the batch has rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from tgen.batch.answering import Answer, InputLine, Take, understand
from tgen.cli.remote_client import Remote

PATIENCE_SECONDS = 0.1  # from one check of `cancelled` to the next


class RemoteAnswers:
    """Answers lines by a server, which makes the very records that the command would."""

    def __init__(self, remote: Remote, body: Mapping[str, Any]) -> None:
        """`body` has what all lines share: the options, the name of the model, the arguments of its template."""
        self._remote = remote
        self._body = body

    def read(self, data: bytes, number: int) -> InputLine:
        """Understand a line, as far as that needs no model."""
        return understand(data, number)

    def run(self, take: Take, rows: int, cancelled: Callable[[], bool]) -> Iterator[Answer]:
        """The answers to all lines, each as soon as it is there. Raises TgenError if the server does not answer."""
        running: set[Future[Answer]] = set()
        with ThreadPoolExecutor(rows, "tgen-batch") as pool:
            while not cancelled():
                while len(running) < rows and (line := take(not running)) is not None:
                    running.add(pool.submit(self._ask, line, cancelled))
                if not running:
                    return
                done, running = wait(running, PATIENCE_SECONDS, FIRST_COMPLETED)
                if cancelled():  # then the server may have cut an answer short
                    return
                for future in done:
                    yield future.result()

    def _ask(self, line: InputLine, cancelled: Callable[[], bool]) -> Answer:
        body = {**self._body, "number": line.key.number, "line": line.data.decode("latin-1")}
        [said] = self._remote.records("batch", body, cancelled)
        return Answer(said["number"], said["record"].encode(), said["failed"], said["tokens"])
