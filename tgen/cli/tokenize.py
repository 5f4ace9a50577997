"""`tgen tokenize`: ids and pieces of a text, and back."""

from __future__ import annotations

from typing import Annotated

import typer

from tgen.cli import parameters as p
from tgen.cli.model import chosen_folder
from tgen.cli.prompt import PromptSource
from tgen.errors import UsageError
from tgen.text.tokenizer import Tokenizer
from tgen.ui import messages
from tgen.ui.output import write_json, write_text


def tokenize(
    text: Annotated[str | None, typer.Argument(help="A text, or with --decode ids; - is standard input.", show_default=False)] = None,
    file: p.File = None,
    decode: Annotated[bool, typer.Option("--decode", help="Read ids, separated by spaces or commas, and write their text.")] = False,
    ids: Annotated[bool, typer.Option("--ids", help="Write the ids alone, on one line.")] = False,
    special: Annotated[
        bool, typer.Option("--special/--no-special", help="With the start and end tokens that the tokenizer adds.", show_default=True)
    ] = True,
    json: p.Json = False,
    model: p.Model = None,
) -> int:
    """Show how a text is cut into tokens: one line each, the id, a tab, the piece as the vocabulary spells it."""
    messages.configure("auto", quiet=False)
    source = PromptSource(text, file)
    tokenizer = Tokenizer.load(chosen_folder(model))
    content = source.read()
    if decode:
        write_text(tokenizer.decode(_parse(content, tokenizer.size()), special=special))
        return 0
    found = tokenizer.encode(content, special=special)
    if json:
        write_json({"ids": found, "pieces": [tokenizer.piece(i) for i in found]})
    elif ids:
        write_text(" ".join(map(str, found)) + "\n")
    else:
        write_text("".join(f"{i}\t{tokenizer.piece(i)}\n" for i in found))
    return 0


def _parse(text: str, vocab: int) -> list[int]:
    """Ids from text. Raises UsageError, naming the word, for what is none."""
    found = []
    for word in text.replace(",", " ").split():
        if not word.isascii() or not word.isdigit() or int(word) >= vocab:
            raise UsageError(f"{word!r} is not a token id", f"ids are whole numbers from 0 to {vocab - 1}")
        found.append(int(word))
    return found
