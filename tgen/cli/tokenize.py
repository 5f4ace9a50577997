"""`tgen tokenize`: turns a text into ids and pieces, and ids back into text."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from tgen.cli import options as p
from tgen.cli.opening import resolve
from tgen.cli.prompt import PromptSource, TextArgument
from tgen.errors import UsageError
from tgen.text.tokenizer import Tokenizer
from tgen.ui import messages
from tgen.ui.output import write_json, write_text

# Some vocabularies spell a newline or a tab as the character itself.
ONE_LINE = {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}


def tokenize(
    text: TextArgument = None,
    file: p.File = None,
    decode: Annotated[
        bool,
        typer.Option(
            "--decode", help="Read ids, separated by spaces or commas or as JSON, and write their text.", rich_help_panel=p.PROMPT
        ),
    ] = False,
    special: Annotated[
        bool,
        typer.Option(
            "--special/--no-special",
            help="Add the start and end tokens that the tokenizer adds; with --decode, write such tokens too. [default: special]",
            rich_help_panel=p.PROMPT,
            show_default=False,
        ),
    ] = True,
    ids: Annotated[bool, typer.Option("--ids", help="Write the ids alone, on one line.", rich_help_panel=p.OUTPUT)] = False,
    as_json: p.Json = False,
    quiet: p.Quiet = False,
    model: p.Model = None,
) -> int:
    """Show how a text is cut into tokens: a line for each with the id, a tab, and the piece as the vocabulary spells it."""
    messages.configure("auto", quiet)
    if decode and ids:
        raise UsageError("--decode and --ids exclude each other", "--decode reads ids, --ids writes them")
    source = PromptSource(text, file)
    from tgen.checkpoint.adapters.opening import open_adapters

    tokenizer = Tokenizer.load(open_adapters(resolve(model)).texts)
    content = source.read()
    found = _parse(content, tokenizer.size()) if decode else tokenizer.encode(content, special=special)
    if decode and not as_json:
        write_text(tokenizer.decode(found, special=special))
    elif decode:
        write_json({"ids": found, "text": tokenizer.decode(found, special=special)})
    elif as_json:
        write_json({"ids": found, "pieces": [tokenizer.piece(i) for i in found]})
    elif ids:
        write_text(" ".join(map(str, found)) + "\n")
    else:
        write_text("".join(f"{i}\t{tokenizer.piece(i).translate(ONE_LINE)}\n" for i in found))
    return 0


def _parse(text: str, vocab: int) -> list[int]:
    """Ids from text: numbers, a JSON list of them, or what --json writes. Raises UsageError, naming the word, for anything else."""
    words = _listed(text) if text.lstrip().startswith(("{", "[")) else text.replace(",", " ").split()
    for word in words:
        if not word.isascii() or not word.isdigit() or len(word) > 9 or int(word) >= vocab:
            raise UsageError(f"{word!r} is not a token id", f"ids are whole numbers from 0 to {vocab - 1}")
    return list(map(int, words))


def _listed(text: str) -> list[str]:
    """The ids of a JSON list, or of an object with a list `ids`, as words."""
    hint = 'give ids as in 1 2 3, [1, 2, 3] or {"ids": [1, 2, 3]}'
    try:
        value = json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the ids are not JSON, though they begin like it: {error}", hint) from error
    ids = value.get("ids") if isinstance(value, dict) else value
    if not isinstance(ids, list):
        raise UsageError("the JSON object holds no list of ids", hint)
    return list(map(str, ids))
