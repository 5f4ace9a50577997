"""Applies tokenizer_config.json, and the older files of special tokens, where they add to the vocabulary or contradict it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tgen.errors import CheckpointError
from tgen.files import DOWNLOAD_HINT, read_optional_json

if TYPE_CHECKING:
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Library

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")


@dataclass(frozen=True, slots=True)
class Settings:
    """tokenizer_config.json, with special_tokens_map.json and added_tokens.json where it lists no added tokens."""

    values: dict[str, Any]
    added: dict[int, dict[str, Any]]

    def flag(self, name: str) -> bool | None:
        """True, false, or None where the file does not say."""
        value = self.values.get(name)
        return value if isinstance(value, bool) else None

    def named(self, name: str) -> str | None:
        """The text of a special token such as `bos_token`."""
        return _text(self.values.get(name))

    @property
    def kind(self) -> str:
        """The class that reads the folder in transformers, without the ending of its faster form."""
        return str(self.values.get("tokenizer_class") or "").removesuffix("Fast")


def read_settings(folder: Path) -> Settings:
    """What the files beside a vocabulary say. Raises CheckpointError."""
    values = read_optional_json(folder / "tokenizer_config.json")
    listed = values.get("added_tokens_decoder")
    if isinstance(listed, dict):
        added = {_number(key): token for key, token in listed.items() if isinstance(token, dict) and _text(token)}
    else:
        values = values | read_optional_json(folder / "special_tokens_map.json")
        plain = read_optional_json(folder / "added_tokens.json").items()
        added = {number: {"content": text} for text, number in plain if isinstance(number, int)}
    return Settings(values, added)


def add_tokens(library: Library, settings: Settings) -> None:
    """Add the tokens that the settings name. Raises CheckpointError for an id that the vocabulary cannot give."""
    special = {text for name in NAMED if (text := settings.named(name))} | set(more_tokens(settings.values))
    known = {token.content: token for token in library.get_added_tokens_decoder().values()}
    for number, values in sorted(settings.added.items()):
        text = str(values["content"])
        token = _token(text, values, special=bool(values.get("special", text in special)) or text in special)
        if text in known and known[text].special == token.special:
            continue
        library.add_tokens([token])
        given = library.token_to_id(text)
        if given != number:
            message = f"tokenizer_config.json gives {text!r} the id {number}, but it is {given} in the vocabulary"
            raise CheckpointError(message, f"the tokenizer's files belong to different models; {DOWNLOAD_HINT}")
    for text in sorted(special):
        if library.token_to_id(text) is not None and not (text in known and known[text].special):
            as_given = next((settings.values[name] for name in NAMED if settings.named(name) == text), text)
            library.add_tokens([_token(text, as_given if isinstance(as_given, dict) else {}, special=True)])


def apply_settings(library: Library, settings: Settings) -> Library:
    """Change a tokenizer.json's tokenizer where the settings contradict it: the settings win, as in transformers 4."""
    add_tokens(library, settings)
    changes = {
        "lowercase": settings.flag("do_lower_case"),
        "strip_accents": settings.flag("strip_accents"),
        "handle_chinese_chars": settings.flag("tokenize_chinese_chars"),
    }
    prefix = settings.flag("add_prefix_space")
    values = json.loads(_without_vocabulary(library))
    normalizer, cutter, decoder = values["normalizer"], values["pre_tokenizer"], values["decoder"]
    before = json.dumps([normalizer, cutter, decoder])
    if normalizer and normalizer["type"] == "BertNormalizer":
        normalizer |= {name: value for name, value in changes.items() if value is not None}
    if prefix is not None and cutter and cutter["type"] == "ByteLevel":
        cutter["add_prefix_space"] = prefix
    elif prefix is not None and cutter and cutter["type"] == "Metaspace" and (cutter["prepend_scheme"] == "never") == prefix:
        cutter["prepend_scheme"] = "first" if prefix else "never"
    if prefix is False and normalizer and any(step["type"] == "Prepend" for step in normalizer.get("normalizers", [])):
        normalizer["normalizers"] = [step for step in normalizer["normalizers"] if step["type"] != "Prepend"]
        if decoder and decoder["type"] == "Sequence":
            decoder["decoders"] = [step for step in decoder["decoders"] if step["type"] != "Strip"]
    if json.dumps([normalizer, cutter, decoder]) != before:
        _set_parts(library, {"normalizer": normalizer, "pre_tokenizer": cutter, "decoder": decoder})
    if settings.kind in ("Llama", "LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer"):
        surround(library, settings, start=True, end=False)
    return library


def surround(library: Library, settings: Settings, *, start: bool, end: bool, always: bool = False) -> None:
    """Set the start and end token that each text gets; `start` and `end` hold where the settings do not say.

    Settings that say nothing change nothing, unless `always`.
    """
    from tokenizers import processors

    asked = [settings.flag("add_bos_token"), settings.flag("add_eos_token")]
    if asked == [None, None] and not always:
        return
    wanted = [default if flag is None else flag for flag, default in zip(asked, (start, end), strict=True)]
    names = [settings.named("bos_token") or "<s>", settings.named("eos_token") or "</s>"]
    ids = [
        (name, number) if want and (number := library.token_to_id(name)) is not None else None
        for name, want in zip(names, wanted, strict=True)
    ]
    single = " ".join([*([ids[0][0]] if ids[0] else []), "$A", *([ids[1][0]] if ids[1] else [])])
    library.post_processor = processors.TemplateProcessing(single=single, special_tokens=[one for one in dict.fromkeys(ids) if one])


def _without_vocabulary(library: Library) -> str:
    """The tokenizer's parts as JSON: to write the vocabulary, too, would take a second where it is large."""
    from tokenizers import Tokenizer as Library
    from tokenizers import models

    alone = Library(models.BPE())
    for name in ("normalizer", "pre_tokenizer", "decoder"):
        if (part := getattr(library, name)) is not None:
            setattr(alone, name, part)
    return alone.to_str()


def _set_parts(library: Library, parts: dict[str, Any]) -> None:
    from tokenizers import Tokenizer as Library
    from tokenizers import models

    alone = Library.from_str(json.dumps({**json.loads(Library(models.BPE()).to_str()), **parts}))
    for name in parts:
        setattr(library, name, getattr(alone, name))


def _token(text: str, values: dict[str, Any], *, special: bool) -> AddedToken:
    from tokenizers import AddedToken

    flags = {name: values[name] for name in FLAGS if isinstance(values.get(name), bool)}
    return AddedToken(text, **{"normalized": not special, **flags, "special": special})


def _text(value: Any) -> str | None:
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) and text else None


def more_tokens(values: dict[str, Any]) -> list[str]:
    """The further special tokens that a tokenizer_config.json lists."""
    listed = values.get("additional_special_tokens") or values.get("extra_special_tokens") or []
    return [text for one in (listed if isinstance(listed, list) else listed.values()) if (text := _text(one))]


def _number(key: str) -> int:
    if not (key.isascii() and key.isdigit() and len(key) < 10):
        raise CheckpointError(f"tokenizer_config.json: added_tokens_decoder has the id {key!r}, not a number", DOWNLOAD_HINT)
    return int(key)
