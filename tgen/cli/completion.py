"""What the Tab key of a shell completes, through typer's protocol: the script in the shell sets a variable and runs tgen.

It opens no model and imports no command's library, because a person waits.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from typing import Any

import typer

from tgen.cli import settings
from tgen.errors import UsageError
from tgen.ui.output import write_text

VARIABLE = "_TGEN_COMPLETE"
# Where the scripts put the words of the command line.
LINES = ("COMP_WORDS", "_TYPER_COMPLETE_ARGS")
SHELLS = ("bash", "zsh", "fish")


def asked() -> bool:
    """Whether a shell asks for completions in place of a run."""
    return bool(os.environ.get(VARIABLE))


def command_line(commands: Collection[str]) -> list[str]:
    """The command on the line that is being typed; none if it has none yet."""
    words = " ".join(os.environ.get(line, "") for line in LINES).split()
    return [word for word in words[1:] if word in commands][:1]


def answer(command: Any) -> int:
    """Print what may stand at the cursor. Returns the exit code; after an error, it prints nothing."""
    from typer import _completion_classes

    # Typer's own would import rich, break lines, and take what stands in brackets for markup.
    _completion_classes._sanitize_help_text = _first_sentence
    _completion_classes.completion_init()
    try:
        command.main([], prog_name="tgen", complete_var=VARIABLE)
    except SystemExit as done:
        return int(done.code or 0)
    except Exception:
        return 1
    return 1


def _first_sentence(text: str) -> str:
    """What an option does, without its range and default."""
    return text.split(". ")[0].split(" [")[0].removesuffix(".")


def model_names(incomplete: str) -> list[str]:
    """The names that --model takes: aliases of the settings, shipped models, and those in the Hugging Face cache. Raises UsageError."""
    from tgen.checkpoint.resolve import found_models

    return [name for name in [*settings.read().aliases, *(found.name for found in found_models())] if name.startswith(incomplete)]


def cached_names(incomplete: str) -> Iterator[str]:
    """The models in the Hugging Face cache."""
    from tgen.checkpoint.resolve import found_models

    return (found.name for found in found_models() if found.origin == "cache" and found.name.startswith(incomplete))


def command_names(incomplete: str) -> list[str]:
    """The commands of tgen."""
    return [name for name in settings.commands() if name.startswith(incomplete)]


def show(context: typer.Context, wanted: bool) -> None:
    """Print the script for this shell, for --show-completion. Raises UsageError."""
    if wanted and not context.resilient_parsing:
        from typer.completion import get_completion_script  # type: ignore[attr-defined]

        write_text(get_completion_script(prog_name="tgen", complete_var=VARIABLE, shell=_shell()) + "\n")
        raise typer.Exit


def install(context: typer.Context, wanted: bool) -> None:
    """Put the script where this shell finds it, for --install-completion. Raises UsageError, OSError."""
    if wanted and not context.resilient_parsing:
        from typer.completion import install as put  # type: ignore[attr-defined]

        _, path = put(shell=_shell(), prog_name="tgen", complete_var=VARIABLE)
        write_text(f"{path} completes tgen in each shell that is started from now on\n")
        raise typer.Exit


def _shell() -> str:
    """The shell that runs tgen. Raises UsageError."""
    import shellingham

    try:
        name, _ = shellingham.detect_shell()
    except shellingham.ShellDetectionFailure:
        name = os.path.basename(os.environ.get("SHELL", ""))
    if name not in SHELLS:
        raise UsageError(f"tgen completes nothing in {name or 'an unknown shell'}", f"run this from one of: {', '.join(SHELLS)}")
    return str(name)
