"""Writes the short sample that shows the quality of a model in training."""

from __future__ import annotations

from tokenizers import Tokenizer

from tgen.engine.generator import Generator
from tgen.events import Note, Sampled
from tgen.executors.torch.session import TorchExecutor
from tgen.executors.torch.transformer import Transformer
from tgen.text.tokenizer import Tokenizer as TextTokenizer
from tgen.train.objective import Objective

NEW_TOKENS = 40


def write_sample(model: Transformer, tokenizer: Tokenizer, objective: Objective, prompt: str, seed: int) -> Sampled | Note | None:
    """A continuation of as much of the prompt as fits into the model's context; None if nothing of it fits.

    Any error becomes a Note, and training continues.
    """
    try:
        context = objective.config["max_position_embeddings"]
        reads = context if model.spec.encoder else context - min(NEW_TOKENS, context // 2)
        shown = fitting(tokenizer, prompt, reads)
        if not shown or context < 2:
            return None
        text = make_generator(model, tokenizer, objective).generate(shown, max_new_tokens=NEW_TOKENS, seed=seed)
        return Sampled(shown, text, answer=model.spec.encoder is not None)
    except Exception as error:  # any error, foreseen or not: a sample must not end hours of training
        return Note(f"no sample: {error}")


def make_generator(model: Transformer, tokenizer: Tokenizer, objective: Objective) -> Generator:
    """A Generator for a model in training, made from the objective's settings, because the model's folder may not be written yet."""
    start = objective.config["bos_token_id"]
    return Generator(
        TorchExecutor(model),
        TextTokenizer(tokenizer),
        context=objective.config["max_position_embeddings"],
        end_tokens=frozenset({objective.config["eos_token_id"]}),
        start_token=start,
        answer_start=start if model.spec.encoder else None,
    )


def fitting(tokenizer: Tokenizer, text: str, tokens: int) -> str:
    """A beginning of the text, in whole characters, that has at most `tokens` tokens, including those that the tokenizer adds.

    It is empty if nothing fits.
    """
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    count = tokens - tokenizer.num_special_tokens_to_add(False)
    if len(ids) <= count:
        return text
    # The last of these tokens may end within a character, and half a character is decoded to U+FFFD.
    shown = tokenizer.decode(ids[: max(count, 0)], skip_special_tokens=False).rstrip("\ufffd")
    while len(tokenizer.encode(shown).ids) > tokens and shown:  # the tokenizer may cut the shorter text into other and more tokens
        shown = shown[:-1]
    return shown
