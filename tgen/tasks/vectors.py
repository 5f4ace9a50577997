"""Makes a vector of each text, by the settings of the model's folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tgen.checkpoint.container import Checkpoint
from tgen.errors import CheckpointError
from tgen.executors.session import LoadedModel
from tgen.options import Pooling
from tgen.tasks.embedding import Dense, Floats, Steps, hidden_states
from tgen.tasks.sentence_folder import folder_settings
from tgen.text.fitting import fitting
from tgen.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Embedder:
    """Turns texts into ids, and ids into vectors. `longest` is the most ids of a text that the model reads."""

    tokenizer: Tokenizer
    steps: Steps
    prompt: str
    lower: bool
    longest: int
    width: int

    def ids(self, text: str) -> list[int]:
        """The ids of a text, after the prompt."""
        return self.tokenizer.encode(self.prompt + (text.lower() if self.lower else text))

    def vectors(self, model: LoadedModel, rows: Sequence[list[int]]) -> list[Floats]:
        """A vector for each row of ids; rows that are too long are cut. Raises NumericalError for a vector that is not finite."""
        skipped = self._prompt_tokens()
        read = hidden_states(model, [fitting(ids, self.longest) for ids in rows], self.width)
        return [self.steps.vector(states, skipped) for states in read]

    def _prompt_tokens(self) -> int:
        """The number of a text's first tokens that belong to the prompt. A token that the tokenizer adds at the end does not count."""
        if not self.prompt:
            return 0
        ids = self.tokenizer.encode(self.prompt)
        return len(ids) - (ids[-1] in map(self.tokenizer.special_id, self.tokenizer.added()))


def embedder(
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    pooling: Pooling | None = None,
    normalize: bool | None = None,
    prompt_name: str | None = None,
) -> Embedder:
    """The embedder of a folder. Arguments that are given take precedence over the folder's settings.

    Raises UsageError for a prompt that the folder lacks, CheckpointError, UnsupportedError.
    """
    settings = folder_settings(checkpoint.folder, pooling)
    steps, prompt = settings.steps.with_length(normalize), settings.prompt(prompt_name)
    context, width = checkpoint.spec.context, checkpoint.spec.width
    _check_sizes(steps, width)
    prompt = prompt.lower() if settings.lower else prompt
    return Embedder(tokenizer, steps, prompt, settings.lower, min(context, settings.longest or context), width)


def _check_sizes(steps: Steps, width: int) -> None:
    """Raise CheckpointError if a matrix does not fit the vectors that it reads."""
    size = width * len(steps.poolings)
    for step in steps.then:
        if isinstance(step, Dense):
            if step.weight.shape[1] != size:
                message = f"a Dense module takes vectors of {step.weight.shape[1]} numbers and gets {size}"
                raise CheckpointError(message, "the folder's modules belong to different models; download it again")
            size = step.weight.shape[0]
