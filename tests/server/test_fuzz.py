"""Whatever a body holds, the answer is a text or one clear error: never status 500, and the server goes on."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.server.conftest import Served

VALUES: list[Any] = [
    *[None, True, False, 0, 1, -1, 2, 0.5, 1e400, 10**30, "", "a", "\0", "é\U0001f600", "auto", [], {}, [None], [1], ["a"], [[1]], [[]]],
    *[{"a": 1}, [{}], {"type": "function"}, {"type": "json_schema", "json_schema": {}}, {"type": "json_object"}, {"format": 3}],
    *[[{"role": "user"}], [{"role": "user", "content": "a"}], [{"role": "tool", "content": ["a"]}], [{"type": "function", "function": {}}]],
    *[[{"role": "assistant", "tool_calls": [{"id": 1}]}], {"include_usage": 3}, [{"type": "function_call"}], "truncate-left"],
]
KEYS = (
    "prompt messages input model max_tokens max_completion_tokens max_output_tokens temperature top_p top_k min_p n seed stop stream "
    "stream_options echo logprobs top_logprobs best_of suffix logit_bias tools tool_choice parallel_tool_calls response_format text "
    "instructions truncation encoding_format dimensions tokens content add_special_tokens chat_template_kwargs overflow num_beams regex "
    "choices json_schema ignore_eos user metadata presence_penalty frequency_penalty repetition_penalty no_repeat_ngram_size top extra"
).split()
SOUND: dict[str, dict[str, Any]] = {
    "/v1/completions": {"model": "storyteller", "prompt": "a", "max_tokens": 2},
    "/v1/chat/completions": {"model": "talker", "messages": [{"role": "user", "content": "a"}], "max_tokens": 2},
    "/v1/responses": {"model": "talker", "input": "a", "max_output_tokens": 2},
    "/v1/embeddings": {"model": "bert", "input": "a"},
    "/tokenize": {"prompt": "a"},
    "/detokenize": {"tokens": [1, 2]},
    "/explain": {"prompt": "a", "max_tokens": 2},
    "/pieces": {"prompt": "a"},
    "/settings": {},
}


@pytest.mark.parametrize("path", SOUND)
def test_a_body_of_anything(served: Served, path: str) -> None:
    chance = random.Random(path)
    for _ in range(120):
        body = {**SOUND[path], **{chance.choice(KEYS): chance.choice(VALUES) for _ in range(chance.choice((1, 1, 2, 3)))}}
        if chance.random() < 0.1:
            del body[chance.choice(list(body))]
        if body.get("max_tokens", 2) is None:
            body["max_tokens"] = 2
        status, said = served.ask(path, body)
        assert status in (200, 400, 404), (status, body, said)
        if status != 200:
            assert sorted(said["error"]) == ["code", "message", "param", "type"], body
            assert "unexpected" not in said["error"]["message"], (body, said)
        elif isinstance(said, str):
            assert "unexpected" not in said, (body, said)
    assert served.ask(path, SOUND[path])[0] == 200
