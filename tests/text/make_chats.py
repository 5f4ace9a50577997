"""Write templates/wanted.json: what transformers makes of the templates beside it, which are in the ways of well-known models.

Development only: `python -m tests.text.make_chats` needs transformers 5, which the tests do not.
"""

# transformers is hardly typed, and need not be installed where the types are checked.
# mypy: ignore-errors

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parent / "templates"
WANTED = TEMPLATES / "wanted.json"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
TALK = [
    {"role": "user", "content": '  Who\'s "there" & <where>?\n\n'},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nMe: é, 😀.\n"},
    {"role": "user", "content": "{{ 7 * 7 }} {% raw %} \\n"},
]
CONVERSATIONS: dict[str, list[dict[str, str]]] = {
    "one": TALK[:1],
    "three": TALK,
    "system": [{"role": "system", "content": " Be brief.\nBe kind. "}, *TALK],
    "empty": [{"role": "user", "content": ""}],
    "answered": TALK[:2],
    "twice": [TALK[0], TALK[0]],
}


def rendered(template: str, messages: list[dict[str, str]]) -> dict[str, str]:
    """transformers' text, or its refusal."""
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        values: dict[str, Any] = {"add_generation_prompt": True, **TOKENS}
        texts = render_jinja_template([messages], chat_template=template, **values)[0]
    except TemplateError as error:
        return {"refused": str(error)}
    return {"text": str(texts[0])}


def wanted() -> dict[str, dict[str, dict[str, str]]]:
    """What transformers makes of every conversation, by template."""
    return {
        path.stem: {name: rendered(path.read_text("utf-8"), messages) for name, messages in CONVERSATIONS.items()}
        for path in sorted(TEMPLATES.glob("*.jinja"))
    }


if __name__ == "__main__":
    WANTED.write_text(json.dumps(wanted(), ensure_ascii=False, indent=1) + "\n", "utf-8")
