"""The errors a user can meet, each with an exit code, a name for programs and a hint.

class                    exit code, type
TgenError                1 unexpected  anything that has no class of its own
|-- NumericalError       1 numerical   the model computed NaN or infinity; its class is in tgen.sampling, which checks logits
|-- UsageError           2 usage       an option, a value or an input is wrong
|-- CheckpointError      3 model       the model is missing or damaged
|   `-- UnsupportedError 3 model       the model is whole, but needs something that tgen does not implement
|-- MemoryLimitError     4 memory      the model or its cache does not fit into memory
`-- CapacityError        5 context     the prompt does not fit into the model's context
"""

from typing import ClassVar

LONGEST = 900  # characters of a message


def shortened(message: str) -> str:
    """The message, without its middle if it is long: names and values from outside may have any length."""
    return message if len(message) <= LONGEST else f"{message[: LONGEST // 2]} ... {message[-LONGEST // 2 :]}"


class TgenError(Exception):
    """One sentence that says what went wrong, and a hint that says what to do about it.

    `type` never changes: programs read it in the records of a batch and in the error that --json writes.
    """

    exit_code: ClassVar[int] = 1
    type: ClassVar[str] = "unexpected"

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(TgenError):
    """An option, a value or an input is wrong."""

    exit_code = 2
    type = "usage"


class CheckpointError(TgenError):
    """A model folder is missing, incomplete or damaged."""

    exit_code = 3
    type = "model"


class UnsupportedError(CheckpointError):
    """A model is whole but uses something that tgen does not implement."""


class MemoryLimitError(TgenError):
    """The model or its KV cache does not fit into memory."""

    exit_code = 4
    type = "memory"


class CapacityError(TgenError):
    """The prompt does not fit into the model's context."""

    exit_code = 5
    type = "context"
