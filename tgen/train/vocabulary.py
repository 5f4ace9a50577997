"""A byte-level BPE tokenizer learned from the training text."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tgen.errors import CheckpointError
from tgen.executors.torch.save import write_json
from tgen.files import write_text

END = "<|end|>"


def learn_tokenizer(documents: Iterable[str], size: int, *, sentences: bool = False) -> Tokenizer:
    """Byte-level BPE (arXiv:1508.07909, over bytes as in GPT-2): it can encode every text, and decodes it to the same text.

    For `sentences`, the tokenizer adds the end token after each, and spells the first word like any other. For other texts the end token
    is the start token too: the tokenizer puts it before a prompt, as it stands before every document in training.
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
        vocab_size=size, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(documents, trainer)
    _frame(tokenizer, f"$A {END}" if sentences else f"{END} $A")
    return tokenizer


def begin_prompts(tokenizer: Tokenizer) -> None:
    """Let the tokenizer of a base model put the start token before a prompt from now on, for a model that learns beginnings."""
    _frame(tokenizer, f"{END} $A")


def _frame(tokenizer: Tokenizer, template: str) -> None:
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=[(END, end_token(tokenizer))])


def end_token(tokenizer: Tokenizer) -> int:
    """The id of the token that stands after every document. Raises CheckpointError if the tokenizer has none."""
    found = tokenizer.token_to_id(END)
    if found is None:
        raise CheckpointError(f"tokenizer.json has no {END}", "tgen train did not make it; name a model that it made")
    return found


def bytes_per_token(tokenizer: Tokenizer) -> np.ndarray:
    """How many bytes of text each id stands for, [vocab]; a byte-level piece is spelled with one character for each byte."""
    vocab = tokenizer.get_vocab_size()
    pieces = [tokenizer.id_to_token(i) or "" for i in range(vocab)]
    return np.array([0 if piece == END else len(piece) for piece in pieces], dtype=np.int64)


def save_tokenizer(folder: Path, tokenizer: Tokenizer, context: int) -> None:
    """Write tokenizer.json, and tokenizer_config.json, which tells transformers how to open it."""
    write_text(folder / "tokenizer.json", tokenizer.to_str(pretty=False))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": END,
            "eos_token": END,
            "model_max_length": context,
            "clean_up_tokenization_spaces": False,
        },
    )
