"""The errors a user can cause, each with an exit code and a hint. Knows nothing else of tgen.

TgenError                1  something unexpected
|-- UsageError           2  an option or an input that cannot be meant
|-- CheckpointError      3  the model is missing or damaged
|   `-- UnsupportedError 3  the model is whole, but asks for something not implemented
|-- MemoryLimitError     4  the model or its cache does not fit into memory
`-- CapacityError        5  the prompt does not fit the model's context
"""

LONGEST = 900  # characters of a message


def shortened(message: str) -> str:
    """A message without its middle where that is long: names and values from outside may be of any length."""
    return message if len(message) <= LONGEST else f"{message[: LONGEST // 2]} ... {message[-LONGEST // 2 :]}"


class TgenError(Exception):
    """One clear sentence about what went wrong, and a hint what to do about it."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(TgenError):
    """An option, a value or an input that cannot be meant."""

    exit_code = 2


class CheckpointError(TgenError):
    """A model folder that is missing, incomplete or damaged."""

    exit_code = 3


class UnsupportedError(CheckpointError):
    """A model that is whole but uses something tgen does not implement."""


class MemoryLimitError(TgenError):
    """The model or its KV cache does not fit into memory."""

    exit_code = 4


class CapacityError(TgenError):
    """The prompt does not fit into the model's context."""

    exit_code = 5
