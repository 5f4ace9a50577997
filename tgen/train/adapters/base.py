"""The model that an adapter is trained on: its weights stay as they are, and its tokenizer and chat template say how it reads a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from tokenizers import Tokenizer as Library

from tgen.checkpoint.container import Checkpoint, open_checkpoint
from tgen.checkpoint.generation import read_generation
from tgen.checkpoint.resolve import resolve
from tgen.errors import UsageError
from tgen.text.chat import ChatTemplate, Message, find_template, no_template
from tgen.text.tokenizer import Tokenizer
from tgen.train.adapters.settings import DEFAULTS, SEQUENCE
from tgen.train.objective import Ids
from tgen.train.settings import TrainSettings

HINT = "--adapter takes the folder of a model that is decoder-only"


class Base:
    """An opened model. Raises UsageError for one that no adapter can be trained on, CheckpointError."""

    def __init__(self, name: str) -> None:
        folder = resolve(name)
        if folder.is_file():
            raise UsageError(f"--base {folder.name} is a GGUF file", HINT)
        self.checkpoint: Checkpoint = open_checkpoint(folder)
        if self.checkpoint.adapters:
            raise UsageError(f"--base {folder.name} is an adapter", "name the model that it was trained on")
        if self.checkpoint.spec.kind != "decoder-only":
            raise UsageError(f"--base {self.checkpoint.name} is {self.checkpoint.spec.kind}", HINT)
        self.text = Tokenizer.load(folder, self.checkpoint.spec.vocab)
        ends = read_generation(self.checkpoint).end_tokens
        if not ends or not isinstance(self.text.library, Library):
            raise UsageError(f"--base {self.checkpoint.name} names no end token", "add an eos_token_id to its generation_config.json")
        # The token of config.json ends texts; those that generation_config.json adds end turns of a conversation.
        own = self.checkpoint.config.get("eos_token_id")
        self.end = own if own in ends else min(ends)

    @property
    def library(self) -> Library:
        """The tokenizer as the tokenizers library has it."""
        assert isinstance(self.text.library, Library)
        return self.text.library

    @property
    def config(self) -> dict[str, Any]:
        """What a run has to know of it. A text begins as it ends: with the end token of the one before it."""
        spec = self.checkpoint.spec
        return {
            "model_type": self.checkpoint.model_type,
            "vocab_size": spec.vocab,
            "max_position_embeddings": spec.context,
            "bos_token_id": self.end,
            "eos_token_id": self.end,
        }

    def settings(self, settings: TrainSettings) -> TrainSettings:
        """The settings of a run with this model's context. Raises UsageError for sequences that are longer."""
        context = self.checkpoint.spec.context
        found = replace(
            settings, context=context, sequence=settings.sequence or min(SEQUENCE, context), weight_decay=DEFAULTS["weight_decay"]
        )
        if found.length > context:
            message = f"--sequence {found.length} is longer than the context of --base {self.checkpoint.name}, {context} tokens"
            raise UsageError(message, "sequences can be shorter than the context, not longer")
        return found

    def conversation(self, messages: Sequence[Message]) -> str:
        """A conversation as the model's chat template writes it. Raises UsageError unless there is one and the assistant ends it."""
        if not messages or messages[-1].role != "assistant":
            raise UsageError("a conversation to learn from must end with the assistant", "add its answer, or leave the last messages out")
        if self._template is None:
            raise no_template(self.checkpoint.name)
        return self._template.render(messages)[0]

    @cached_property
    def _template(self) -> ChatTemplate | None:
        found = find_template(self.checkpoint.texts)
        return None if found is None else replace(found, ending="finished")

    def encode(self, documents: Sequence[str]) -> Ids:
        """The ids of all documents in one row, each as the model reads a prompt, with an end token behind it, [tokens].

        Raises UsageError for a text with a token that the model has no embedding for.
        """
        vocab, parts = self.checkpoint.spec.vocab, list[int]()
        for start in range(0, len(documents), 64):
            for encoding in self.library.encode_batch(list(documents[start : start + 64])):
                ids = encoding.ids
                if len(ids) > 1 and ids[0] == ids[1] and self.text.written(ids[0]) is None:
                    ids = ids[1:]  # a chat template wrote the start token already
                parts += ids if ids and ids[-1] == self.end else [*ids, self.end]
        if max(parts) >= vocab:
            message = f"the text holds {self.text.piece(max(parts))!r}, id {max(parts)}, but the model's vocabulary ends at {vocab - 1}"
            raise UsageError(message, "leave it out: the model has no embedding for it")
        return np.array(parts, dtype=np.uint16 if vocab <= 2**16 else np.uint32)

    def sizes(self) -> np.ndarray:
        """How many bytes of text each id stands for, [vocab]; control tokens stand for none."""
        return np.array([self._size(token) for token in range(self.checkpoint.spec.vocab)])

    def _size(self, token: int) -> int:
        written = self.text.written(token)
        return 0 if written is None else len(self.text.bytes_of(token) or written.encode())
