"""Opens a model that reads a text: checks its folder first, then loads the tokenizer, and the weights once the text has come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tgen.cli.opening import open_checkpoint, require_kind
from tgen.errors import CapacityError
from tgen.options import RunOptions

if TYPE_CHECKING:
    from tgen.checkpoint.container import Checkpoint
    from tgen.executors.session import LoadedModel
    from tgen.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Opened:
    """A model whose folder passed its checks and whose weights are not loaded yet."""

    checkpoint: Checkpoint
    tokenizer: Tokenizer
    options: RunOptions

    def load(self) -> LoadedModel:
        """Load the weights. Raises TgenError."""
        from tgen.executors.open import open_executor

        return open_executor(self.checkpoint, self.options)

    def check_length(self, what: str, count: int) -> None:
        """Raise CapacityError for more tokens than the model reads."""
        context = self.checkpoint.spec.context
        if count > context:
            raise CapacityError(f"the {what} has {count} tokens, the model's context is {context}", "shorten it")


def open_to_read(model: str | None, options: RunOptions, command: str, *kinds: str, vectors: bool = False) -> Opened:
    """Open the model that --model names, for a command that takes these `kinds` of model; none means all. Raises TgenError.

    For a command that needs `vectors` only, the model may lack its head.
    """
    checkpoint = open_checkpoint(model, vectors=vectors, adapters=options.adapter)
    if kinds:
        require_kind(checkpoint, command, *kinds)

    from tgen.text.tokenizer import Tokenizer

    return Opened(checkpoint, Tokenizer.load(checkpoint.texts, checkpoint.spec.vocab), options)
