"""The events that a generation or a training run reports while it runs, as plain records."""

from __future__ import annotations

import builtins
from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length", "time", "cancelled"]


@dataclass(frozen=True, slots=True)
class TokenScore:
    """One token and its log-probability under the model's raw distribution (natural logarithm); `bytes` is None where they are unknown."""

    id: int
    text: str
    logprob: float
    bytes: builtins.bytes | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """A token that was drawn: its score, and the best candidates it was up against."""

    score: TokenScore
    alternatives: tuple[TokenScore, ...] = ()


@dataclass(frozen=True, slots=True)
class Started:
    """A prompt was accepted: its length, how many tokens may follow, the seed of the draws, and how many tokens a cache held.

    `scores` are the prompt's tokens but the first, if they were asked for. `index` is that of the prompt's first sample.
    """

    prompt_tokens: int
    max_new_tokens: int
    seed: int
    cached_tokens: int = 0
    scores: tuple[Token, ...] = ()
    index: int = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """How many tokens of a long prompt have been read. These events come before Started: until then there is nothing else to show."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Text of sample `index` that has become whole: never half a character, never part of a stop string.

    It is `reasoning` if it comes before the answer, where something has told the two apart.
    """

    index: int
    text: str
    tokens: tuple[Token, ...] = ()
    reasoning: bool = False


@dataclass(frozen=True, slots=True)
class Special:
    """Sample `index` goes on after a special token, which is no part of its text. `text` is how the vocabulary spells the token."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """Sample `index` has ended: why, after how many tokens (an end token counts), and how long reading and writing took.

    `prefill_seconds` is the time until the first token could be drawn, `decode_seconds` all that came after. `ids` are its tokens.
    `guessed` tokens were guessed ahead of the model, and `guessed_right` of these guesses were right.
    """

    index: int
    reason: FinishReason
    token_count: int
    prefill_seconds: float
    decode_seconds: float
    ids: tuple[int, ...] = ()
    guessed: int = 0
    guessed_right: int = 0


@dataclass(frozen=True, slots=True)
class Note:
    """Something a person should know, in one sentence."""

    text: str


Event = Reading | Started | Piece | Special | Finished | Note


@dataclass(frozen=True, slots=True)
class Trained:
    """Training steps are done: loss in nats per token (smoothed), speed, and time left in seconds."""

    step: int
    steps: int | None
    share: float
    tokens: int
    loss: float
    learning_rate: float
    tokens_per_second: float
    seconds_left: float


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The model was measured on held-back text, in bits per byte, and stored."""

    step: int
    tokens: int
    seconds: float
    train_loss: float
    bits_per_byte: float


@dataclass(frozen=True, slots=True)
class Sampled:
    """A few words that the model wrote after a checkpoint: they continue the prompt, or `answer` it."""

    prompt: str
    text: str
    answer: bool


TrainingEvent = Trained | Evaluated | Sampled | Note
