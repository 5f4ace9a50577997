"""A request (a prompt with its options), and the same request prepared for a model: ids and limits that fit the model's context."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tgen.errors import CapacityError, TgenError, UsageError
from tgen.options import GenerationOptions, Resolved


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt, as text or ids, and the options to continue it with; its events carry `key`.

    `score_prompt` asks for the log-probabilities of the prompt's tokens, each beside those of that many candidates. Without `write`, the
    request ends when the prompt has been read.
    """

    key: int
    prompt: str | Sequence[int]
    resolved: Resolved
    score_prompt: int | None = None
    write: bool = True


@dataclass(frozen=True, slots=True)
class Refused:
    """The key of an invalid request, and the error."""

    key: int
    error: TgenError


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that fits the context: the prompt's ids, the options, and notes that tell the user what was changed to make it fit.

    The decoder reads `ids`; an encoder, if the model has one, reads `source`. `cut_note` says that fewer tokens fit than the user
    asked for; it matters only if the context then cuts the text.
    """

    ids: list[int]
    source: list[int] | None
    options: GenerationOptions
    seed: int
    notes: tuple[str, ...] = ()
    cut_note: str | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model can read: at most `context` ids, each below `vocab`.

    `start_token` replaces an empty prompt. `answer_start` is the first id of an encoder-decoder's answer, None for other models.
    """

    context: int
    vocab: int
    start_token: int | None = None
    answer_start: int | None = None

    def prepare(self, ids: Sequence[int], resolved: Resolved, *, write: bool = True) -> Prepared:
        """Make a prompt fit under the overflow policy.

        Unless a text is to be written after it (`write`), the prompt may fill the context. Raises CapacityError, UsageError.
        """
        options, source = resolved.options, None
        notes = options.notes()
        ids = self._checked(list(ids))
        if self.answer_start is not None:
            source = self._source(ids, options)
            notes += self._dropped(ids, source)
            ids = [self.answer_start]
        if len(ids) + options.max_new_tokens > self.context and options.overflow == "truncate-left":
            kept = self._truncate(ids, options.max_new_tokens)
            notes += self._dropped(ids, kept)
            ids = kept
        room = self.context - len(ids) + (not write)
        if room < 1:
            raise CapacityError(
                f"the prompt has {len(ids)} tokens, the model's context is {self.context}",
                f"shorten it by {1 - room} tokens or more, or use --overflow truncate-left",
            )
        cut_note = None
        if options.max_new_tokens > room:
            if options.overflow != "shrink" and resolved.origins.get("max_new_tokens") in ("asked", "environment"):
                fits = f"prompt {len(ids)} + new {room} = context {self.context}"
                cut_note = f"--max-new-tokens {options.max_new_tokens} is more than fits: {fits}"
            options = replace(options, max_new_tokens=room)
        seed = options.seed if options.seed is not None else secrets.randbits(32)
        return Prepared(ids, source, options, seed, tuple(notes), cut_note)

    def _checked(self, ids: list[int]) -> list[int]:
        """The ids, or the start token if there are none. Raises UsageError for an unknown id, and for no ids without a start token."""
        if not all(0 <= token < self.vocab for token in ids):
            raise UsageError(
                f"the prompt holds ids outside the model's vocabulary of {self.vocab}",
                "the tokenizer has entries for which the model has no embedding; leave that text out",
            )
        if not ids and self.start_token is None:
            raise UsageError("the prompt is empty and the model has no start token", "give a prompt")
        return ids or [self.start_token or 0]

    def _source(self, ids: list[int], options: GenerationOptions) -> list[int]:
        """The source, truncated if the policy allows it. Raises CapacityError if it does not fit the encoder."""
        if len(ids) <= self.context:
            return ids
        if options.overflow == "truncate-left":
            return ids[-self.context :]
        hint = f"shorten it by {len(ids) - self.context} tokens, or use --overflow truncate-left"
        raise CapacityError(f"the text has {len(ids)} tokens, the model's encoder reads {self.context}", hint)

    def _truncate(self, ids: list[int], new: int) -> list[int]:
        """Drop the prompt's first ids until `new` more fit, but keep the start token, and leave the prompt at least half of the context."""
        room = max(self.context - new, self.context // 2, 1)
        head = ids[:1] if ids[0] == self.start_token and room > 1 else []
        return head + ids[len(ids) - (room - len(head)) :] if len(ids) > room else ids

    def _dropped(self, ids: list[int], kept: list[int]) -> list[str]:
        """A note if ids were left out."""
        if len(kept) == len(ids):
            return []
        return [f"the prompt's first {len(ids) - len(kept)} of {len(ids)} tokens were left out to fit the context of {self.context}"]
