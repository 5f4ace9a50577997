"""The classes of transformers that read vocab.json or vocab.txt: which one a folder means, and the special tokens that it does not name."""

from __future__ import annotations

from typing import Any

from tgen.text.files.added import Settings

BYTES = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
# The mask token takes in the space before it.
SENTENCE: dict[str, Any] = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "cls_token": "<s>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": {"content": "<mask>", "lstrip": True},
}
WORDS = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]"}
DIALOGUE = {"bos_token": "__start__", "eos_token": "__end__", "unk_token": "__unk__", "pad_token": "__null__"}
CLASSES: dict[str, dict[str, Any]] = {
    "BartTokenizer": SENTENCE,
    "BlenderbotSmallTokenizer": DIALOGUE,
    "BlenderbotTokenizer": {**SENTENCE, "add_prefix_space": True},
    "MPNetTokenizer": {**SENTENCE, "unk_token": "[UNK]"},
    "RobertaTokenizer": SENTENCE,
}
BY_MODEL = {
    "bart": "RobertaTokenizer",
    "blenderbot": "BlenderbotTokenizer",
    "blenderbot-small": "BlenderbotSmallTokenizer",
    "mpnet": "MPNetTokenizer",
    "roberta": "RobertaTokenizer",
}


def with_class(settings: Settings, model_type: str, default: dict[str, Any]) -> Settings:
    """The settings with their class and, where they name none, its special tokens; `default` are those of classes not listed."""
    kind = settings.kind or BY_MODEL.get(model_type, "Qwen2Tokenizer" if model_type.startswith("qwen") else "")
    given = {key: value for key, value in settings.values.items() if value is not None}
    return Settings({**CLASSES.get(kind, default), **given, "tokenizer_class": kind}, settings.added)
