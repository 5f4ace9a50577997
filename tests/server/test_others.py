"""Requests as the tests of vLLM's and llama.cpp's servers make them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import Served
from tgen.events import Finished, Started
from tgen.server.endpoints.plain import Continuations
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
    assert served.ask("/v1/completions", {"prompt": "Once", "max_tokens": 1, "seed": -1})[0] == 200
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


def test_a_text_for_a_tokenizer_has_special_tokens_where_its_server_adds_them(served: Served) -> None:
    """vLLM's does unless told otherwise, llama.cpp's only if told so."""
    [bare, whole] = [served.ask("/tokenize", {"content": "Once", **more})[1]["tokens"] for more in ({}, {"add_special": True})]
    assert whole == [0, *bare] == served.ask("/tokenize", {"prompt": "Once"})[1]["tokens"]
    assert served.ask("/tokenize", {"content": "Once", "parse_special": True})[1]["tokens"] == bare
    assert served.ask("/tokenize", {"content": "Once", "parse_special": False})[0] == 400
    assert served.ask("/detokenize", {"tokens": bare})[1]["content"] == "Once"


def test_a_conversation_as_its_template_writes_it(served: Served, chat_folder: str) -> None:
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    template = find_template(Path(chat_folder))
    assert template is not None
    for more, made in (({}, template), ({"tools": tools}, template.with_tools(tools))):
        body = {"model": "talker", "messages": SAID, **more}
        [text] = made.render(read_messages(SAID))
        assert served.ask("/apply-template", body) == (200, {"prompt": text})
        tokens = served.ask("/tokenize", body)[1]["tokens"]
        assert tokens == Tokenizer.load(Path(chat_folder)).encode(text, special=False)
    assert served.ask("/apply-template", {"model": "talker", "messages": SAID, "nonsense": 1})[0] == 400
    assert served.ask("/apply-template", {"model": "talker"})[0] == 400
    assert served.ask("/apply-template", {"model": "talker", "messages": SAID, "chat_template_kwargs": 5})[0] == 400


def test_paths_of_other_servers(served: Served) -> None:
    assert served.ask("/models") == served.ask("/v1/models")
    assert served.ask("/v1/health")[1]["status"] == "ok"
    assert served.ask("/ping")[0] == served.ask("/ping", {})[0] == 200
    assert served.ask("/version")[1]["version"]
    said = {"model": "talker", "messages": SAID, "max_tokens": 3, "seed": 1}
    [one, other] = [served.ask(path, said)[1]["choices"] for path in ("/chat/completions", "/v1/chat/completions")]
    assert one == other
    assert served.ask("/embeddings", {"model": "bert", "input": "a"}) == served.ask("/v1/embeddings", {"model": "bert", "input": "a"})
    props = served.ask("/props")[1]
    assert props["default_generation_settings"]["n_ctx"] == 1024
    assert (props["total_slots"], props["model_alias"]) == (8, "storyteller")


def test_a_continuation_as_llama_cpp_asks_for_it(served: Served) -> None:
    asked = {"prompt": "Once", "n_predict": 8, "seed": 3, "ignore_eos": True, "n_keep": 0, "cache_prompt": True}
    wanted = served.ask("/v1/completions", {"prompt": "Once", "max_tokens": 8, "seed": 3, "ignore_eos": True})[1]["choices"][0]["text"]
    for path in ("/completion", "/completions"):
        status, said = served.ask(path, {**asked, "return_tokens": True, "n_probs": 2})
        assert (status, said["content"], said["stop_type"], said["tokens_predicted"]) == (200, wanted, "limit", 8)
        assert served.ask("/detokenize", {"tokens": said["tokens"]})[1]["content"] == wanted
        assert [len(one["top_logprobs"]) for one in said["completion_probabilities"]] == [2] * 8
        assert said["timings"]["predicted_n"] == 8
    stopped = served.ask("/completion", {**asked, "stop": [wanted[3:6]]})[1]
    assert (stopped["content"], stopped["stop_type"], stopped["stopping_word"]) == (wanted[:3], "word", wanted[3:6])
    several = served.ask("/completion", {**asked, "prompt": ["Once", [5, 6]]})[1]
    assert [one["index"] for one in several] == [0, 1]
    assert several[0]["content"] == wanted
    status, text = served.ask("/completion", {**asked, "stream": True})
    parts = [json.loads(line.removeprefix("data: ")) for line in text.split("\n\n") if line.startswith("data: ")]
    assert "".join(part["content"] for part in parts) == wanted
    assert [part["stop"] for part in parts] == [False] * (len(parts) - 1) + [True]
    assert served.ask("/completion", {"prompt": "Once", "n_predict": 3, "nonsense": 1})[0] == 400
    assert served.ask("/completion", {"n_predict": 3})[0] == 400


def test_each_text_has_the_counts_of_its_own_prompt() -> None:
    made = Continuations("m", frozenset(), (), samples=2, with_ids=False)
    late = [Started(prompt_tokens=7, max_new_tokens=5, seed=1, index=2), Started(prompt_tokens=3, max_new_tokens=5, seed=1)]
    ended = [Finished(index=index, reason="length", token_count=5, prefill_seconds=0.1, decode_seconds=0.1) for index in (3, 0, 2, 1)]
    assert [text["tokens_evaluated"] for text in made.whole([*late, *ended])] == [3, 3, 7, 7]
