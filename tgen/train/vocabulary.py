"""Learns a byte-level BPE tokenizer from the training text, and writes conversations with its tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tgen.errors import CheckpointError, UsageError
from tgen.executors.torch.save import write_json
from tgen.files import write_text
from tgen.text.chat import Message
from tgen.text.rendering import render

END, USER, ASSISTANT = "<|end|>", "<|user|>", "<|assistant|>"
SPECIAL = re.compile("|".join(map(re.escape, (END, USER, ASSISTANT))))
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    f"{{{{ '{ASSISTANT}' if message.role == 'assistant' else '{USER}' }}}}{{{{ message.content }}}}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    f"{{% if add_generation_prompt %}}{ASSISTANT}{{% endif %}}"
)


def conversation(messages: Sequence[Message]) -> str:
    """A conversation as a training document: the text of the chat template, without the end tokens that surround every document.

    Raises UsageError unless it ends with the assistant, and for a message that holds one of the special tokens between messages.
    """
    if not messages or messages[-1].role != "assistant":
        raise UsageError("a conversation to learn from must end with the assistant", "add its answer, or leave the last messages out")
    for number, message in enumerate(messages, start=1):
        found = SPECIAL.search(message.content)
        if found:
            raise UsageError(f"message {number} holds {found[0]}, which stands between messages", "take it out of the text")
    said = [{"role": message.role, "content": message.content} for message in messages]
    text = render(CHAT_TEMPLATE, {"messages": said, "bos_token": END, "eos_token": END, "add_generation_prompt": False})
    return text.removeprefix(END).removesuffix(END)


def learn_tokenizer(documents: Iterable[str], size: int, *, sentences: bool = False, chat: bool = False) -> Tokenizer:
    """Byte-level BPE (arXiv:1508.07909, over bytes as in GPT-2): it can encode every text, and decodes it to the same text.

    For `sentences`, the tokenizer adds the end token after each, and spells the first word like any other. For other texts the end token is
    also the start token: the tokenizer puts it before a prompt, because it comes before every document in training. With `chat`, there are
    also tokens that begin the messages of the user and of the assistant.
    """
    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)  # it would put a space before every digit too
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    if sentences:
        tokenizer.normalizer = normalizers.Prepend(" ")
        tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END, USER, ASSISTANT] if chat else [END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((part for document in documents for part in SPECIAL.split(document)) if chat else documents, trainer)
    _frame(tokenizer, f"$A {END}" if sentences else f"{END} $A")
    return tokenizer


def begin_prompts(tokenizer: Tokenizer) -> None:
    """Make a base model's tokenizer put the start token before every prompt, for a model that learns the beginnings of documents."""
    _frame(tokenizer, f"{END} $A")


def _frame(tokenizer: Tokenizer, template: str) -> None:
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=[(END, end_token(tokenizer))])


def end_token(tokenizer: Tokenizer) -> int:
    """The id of the token that follows every document. Raises CheckpointError if the tokenizer has no such token."""
    found = tokenizer.token_to_id(END)
    if found is None:
        raise CheckpointError(f"tokenizer.json has no {END}", "tgen train did not make it; name a model that it made")
    return found


def knows_chats(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer was learned from conversations."""
    return tokenizer.token_to_id(USER) is not None


def bytes_per_token(tokenizer: Tokenizer) -> np.ndarray:
    """The number of bytes of text for which each id stands, [vocab]; a byte-level piece is spelled with one character for each byte."""
    vocab = tokenizer.get_vocab_size()
    pieces = [tokenizer.id_to_token(i) or "" for i in range(vocab)]
    return np.array([0 if SPECIAL.fullmatch(piece) else len(piece) for piece in pieces], dtype=np.int64)


def save_tokenizer(folder: Path, tokenizer: Tokenizer, context: int) -> None:
    """Write tokenizer.json, and tokenizer_config.json with the settings for transformers and, if there is one, the chat template."""
    write_text(folder / "tokenizer.json", tokenizer.to_str(pretty=False))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END,
        "eos_token": END,
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
    }
    write_json(folder / "tokenizer_config.json", {**config, "chat_template": CHAT_TEMPLATE} if knows_chats(tokenizer) else config)
