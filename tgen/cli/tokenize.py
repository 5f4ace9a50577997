"""`tgen tokenize`: ids and pieces of a text, and back."""

from __future__ import annotations

from typing import Annotated

import typer

from tgen.cli import parameters as p
from tgen.cli.model import chosen_folder
from tgen.cli.prompt import PromptSource, TextArgument
from tgen.errors import UsageError
from tgen.text.tokenizer import Tokenizer
from tgen.ui import messages
from tgen.ui.output import write_json, write_text

# Some vocabularies spell a newline or a tab as itself.
ONE_LINE = {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}


def tokenize(
    text: TextArgument = None,
    file: p.File = None,
    decode: Annotated[
        bool, typer.Option("--decode", help="Read ids, separated by spaces or commas, and write their text.", rich_help_panel=p.PROMPT)
    ] = False,
    special: Annotated[
        bool,
        typer.Option(
            "--special/--no-special",
            help="With the start and end tokens that the tokenizer adds; with --decode, write such tokens too. [default: special]",
            rich_help_panel=p.PROMPT,
            show_default=False,
        ),
    ] = True,
    ids: Annotated[bool, typer.Option("--ids", help="Write the ids alone, on one line.", rich_help_panel=p.OUTPUT)] = False,
    json: p.Json = False,
    model: p.Model = None,
) -> int:
    """Show how a text is cut into tokens: one line each, the id, a tab, the piece as the vocabulary spells it."""
    messages.configure("auto", quiet=False)
    source = PromptSource(text, file)
    tokenizer = Tokenizer.load(chosen_folder(model))
    content = source.read()
    found = _parse(content, tokenizer.size()) if decode else tokenizer.encode(content, special=special)
    if decode and not json:
        write_text(tokenizer.decode(found, special=special))
    elif decode:
        write_json({"ids": found, "text": tokenizer.decode(found, special=special)})
    elif json:
        write_json({"ids": found, "pieces": [tokenizer.piece(i) for i in found]})
    elif ids:
        write_text(" ".join(map(str, found)) + "\n")
    else:
        write_text("".join(f"{i}\t{tokenizer.piece(i).translate(ONE_LINE)}\n" for i in found))
    return 0


def _parse(text: str, vocab: int) -> list[int]:
    """Ids from text. Raises UsageError, naming the word, for what is none."""
    found = []
    for word in text.replace(",", " ").split():
        if not word.isascii() or not word.isdigit() or len(word) > 9 or int(word) >= vocab:
            raise UsageError(f"{word!r} is not a token id", f"ids are whole numbers from 0 to {vocab - 1}")
        found.append(int(word))
    return found
