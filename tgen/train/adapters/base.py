"""The model on which an adapter is trained. Its weights do not change, and its own tokenizer and chat template encode the texts."""

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
    """An opened base model. Raises UsageError for a model on which no adapter can be trained, CheckpointError for a damaged folder."""

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
        """The tokenizer as an object of the tokenizers library."""
        assert isinstance(self.text.library, Library)
        return self.text.library

    @property
    def config(self) -> dict[str, Any]:
        """The facts about the model that a run needs. In training, a text begins with the end token of the text before it."""
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
        """A conversation as the model's chat template renders it.

        Raises UsageError if the model has no template, or if the conversation does not end with the assistant.
        """
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
        """The ids of all documents in one row, [tokens]. Each document is encoded like a prompt, and an end token follows it.

        Raises UsageError for a text with a token for which the model has no embedding.
        """
        vocab, parts = self.checkpoint.spec.vocab, list[int]()
        for start in range(0, len(documents), 64):
            for encoding in self.library.encode_batch(list(documents[start : start + 64])):
                ids = encoding.ids
                if len(ids) > 1 and ids[0] == ids[1] and self.text.written(ids[0]) is None:
                    ids = ids[1:]  # a chat template wrote the start token already
                parts += ids if ids and ids[-1] == self.end else [*ids, self.end]
        if max(parts, default=0) >= vocab:
            message = f"the text holds {self.text.piece(max(parts))!r}, id {max(parts)}, but the model's vocabulary ends at {vocab - 1}"
            raise UsageError(message, "leave it out: the model has no embedding for it")
        return np.array(parts, dtype=np.uint16 if vocab <= 2**16 else np.uint32)

    def sizes(self) -> np.ndarray:
        """The number of bytes of text for which each id stands, [vocab]; control tokens stand for none."""
        return np.array([self._size(token) for token in range(self.checkpoint.spec.vocab)])

    def _size(self, token: int) -> int:
        written = self.text.written(token)
        return 0 if written is None else len(self.text.bytes_of(token) or written.encode())
