"""Requests as the tests of vLLM's and llama.cpp's servers make them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import Served
from tgen.text.chat import find_template, read_messages
from tgen.text.tokenizer import Tokenizer

SAID = [{"role": "user", "content": "Tell me a story."}]
COLOURS = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"], "additionalProperties": False}
ANSWERS = [{"colour": "red"}, {"colour": "blue"}]


def completed(served: Served, **body: Any) -> str:
    status, said = served.ask("/v1/completions", {"prompt": "Once", "max_tokens": 20, "seed": 3, **body})
    assert status == 200, said
    return str(said["choices"][0]["text"])


@pytest.mark.parametrize(
    "asked",
    [
        {"guided_json": COLOURS},
        {"guided_json": json.dumps(COLOURS)},
        {"structured_outputs": {"json": COLOURS}},
        {"response_format": {"type": "json_object", "schema": COLOURS}},
        {"response_format": {"type": "json_schema", "schema": COLOURS}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "colours", "strict": True, "schema": COLOURS}}},
        {"json_schema": COLOURS},
    ],
)
def test_a_schema_under_any_name(served: Served, asked: dict[str, Any]) -> None:
    assert json.loads(completed(served, **asked)) in ANSWERS


def test_other_constraints_under_any_name(served: Served) -> None:
    assert completed(served, guided_choice=["yes", "no"]) in ("yes", "no")
    assert completed(served, structured_outputs={"choice": ["yes", "no"]}) in ("yes", "no")
    assert completed(served, guided_regex="[0-9]{3}").isdigit()
    assert completed(served, structured_outputs={"regex": "[0-9]{3}"}).isdigit()
    assert isinstance(json.loads(completed(served, structured_outputs={"json_object": True}, max_tokens=60)), dict)


def test_what_changes_nothing_is_taken(served: Served) -> None:
    neutral = {
        "skip_special_tokens": True, "spaces_between_special_tokens": True, "use_beam_search": False, "length_penalty": 1.0,
        "include_stop_str_in_output": False, "stop_token_ids": [], "return_tokens_as_token_ids": False, "cache_prompt": True, "id_slot": -1,
        "priority": 0, "request_id": "a", "suffix": None, "user": "b", "n_predict": -1, "logit_bias": {}, "best_of": 1,
    }  # fmt: skip
    assert completed(served, **neutral) == completed(served)
    assert completed(served, top_k=-1, temperature=1.5) == completed(served, top_k=0, temperature=1.5)


def test_a_message_is_gone_on_with(served: Served, chat_folder: str) -> None:
    """What stands behind the last message in the template is no part of the prompt then."""
    template = find_template(Path(chat_folder))
    assert template is not None
    begun = [*SAID, {"role": "assistant", "content": "The wolf "}]
    [text] = template.render(read_messages(begun))
    head = text[: text.rindex("The wolf") + len("The wolf ")]
    tokenizer = Tokenizer.load(Path(chat_folder))
    body = {"model": "talker", "messages": begun, "add_generation_prompt": False, "continue_final_message": True}
    status, said = served.ask("/tokenize", body)
    assert (status, said["tokens"]) == (200, tokenizer.encode(head, special=False))
    status, made = served.ask("/v1/chat/completions", {**body, "max_tokens": 8, "seed": 1})
    assert status == 200
    wanted = served.ask("/v1/completions", {"model": "talker", "prompt": said["tokens"], "max_tokens": 8, "seed": 1})[1]
    assert made["choices"][0]["message"]["content"] == wanted["choices"][0]["text"]


def test_tokens_as_either_asks_for_them(served: Served) -> None:
    plain = served.ask("/tokenize", {"content": "Once upon", "add_special": False, "with_pieces": True})[1]
    assert "".join(token["piece"] for token in plain["tokens"]) == "Once upon"
    spelled = served.ask("/tokenize", {"prompt": "Once upon", "add_special_tokens": False, "return_token_strs": True})[1]
    assert spelled["tokens"] == [token["id"] for token in plain["tokens"]]
    assert len(spelled["token_strs"]) == plain["count"] == spelled["count"]
    for body in ({"prompt": "a", "nonsense": 1}, {"model": "talker", "messages": SAID, "add_special_tokens": True}):
        assert served.ask("/tokenize", body)[0] == 400
