"""Every endpoint through the official client, streamed and not."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

import tgen
from tests.conftest import GOLDEN
from tests.server.conftest import Served
from tgen.engine.generator import Generator
from tgen.events import Finished, Piece
from tgen.tasks.scoring import log_probabilities
from tgen.text.chat import Message, find_template

SAID: Any = [{"role": "user", "content": "Tell me a story about a fox."}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a day.",
        "parameters": {
            "type": "object",
            "properties": {"day": {"enum": ["today", "tomorrow"]}},
            "required": ["day"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture(scope="module")
def model() -> Generator:
    return tgen.load(threads=1)


@pytest.fixture(scope="module")
def talker(chat_folder: str) -> Generator:
    return tgen.load(chat_folder, threads=1)


def talk_ids(talker: Generator, chat_folder: str, *messages: Message) -> list[int]:
    from pathlib import Path

    template = find_template(Path(chat_folder))
    assert template is not None
    return template.encode(talker.tokenizer, messages)[0]


def written(generator: Generator, prompt: Any, **options: Any) -> str:
    """What `tgen generate` writes."""
    events = list(generator.run(prompt, generator.resolve(options)))
    return "".join(event.text for event in events if isinstance(event, Piece) and event.index == 0)


def test_models(served: Served) -> None:
    import openai

    assert [model.id for model in served.client.models.list()] == ["storyteller", "talker", "bert", "english-french"]
    assert served.client.models.retrieve("bert").id == "bert"
    with pytest.raises(openai.NotFoundError, match="no model 'gpt-4'; it has storyteller"):
        served.client.completions.create(model="gpt-4", prompt="a")


def test_a_completion_is_what_generate_writes(served: Served, model: Generator) -> None:
    made = served.client.completions.create(model="storyteller", prompt="Once upon a time", max_tokens=20, seed=7)
    assert made.choices[0].text == model.generate("Once upon a time", max_new_tokens=20, seed=7)
    assert made.choices[0].finish_reason == "length"
    assert made.usage is not None
    assert (made.usage.prompt_tokens, made.usage.completion_tokens) == (len(model.tokenizer.encode("Once upon a time")), 20)
    assert made.id.startswith("cmpl-")
    assert made.object == "text_completion"


def test_a_streamed_completion_is_the_same_text(served: Served, model: Generator) -> None:
    options: dict[str, Any] = {"model": "storyteller", "prompt": "A dog", "max_tokens": 30, "seed": 3, "n": 2, "stop": ["the"]}
    whole = served.client.completions.create(**options)
    chunks = list(served.client.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    texts, reasons = ["", ""], ["", ""]
    for chunk in chunks[:-1]:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [choice.text for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert texts[0] == model.generate("A dog", max_new_tokens=30, seed=3, samples=2, stop=["the"])


def test_prompts_of_every_form(served: Served, model: Generator) -> None:
    ids = model.tokenizer.encode("Once")
    forms: list[Any] = ["Once", ["Once"], ids, [ids], ["Once", "A dog"], [ids, ids]]
    for prompt in forms:
        made = served.client.completions.create(model="storyteller", prompt=prompt, max_tokens=4, seed=1)
        wanted = 2 if prompt in (forms[4], forms[5]) else 1
        assert [choice.index for choice in made.choices] == list(range(wanted))
        assert made.choices[0].text == model.generate("Once", max_new_tokens=4, seed=1)
    both = served.client.completions.create(model="storyteller", prompt=["Once", "A dog"], max_tokens=4, seed=1, n=2)
    assert both.choices[2].text == model.generate("A dog", max_new_tokens=4, seed=1, samples=2)


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_is_scored_as_harnesses_do_it(served: Served, model: Generator, stream: bool) -> None:
    """Echo, log-probabilities and no new token: those of the prompt, and none for its first token."""
    text = "Once upon a time there was a fox who lived in a wood."
    ids = model.tokenizer.encode(text)
    wanted = [None, *log_probabilities(model.executor, ids).tolist()]
    for prompt in (text, ids):
        options: dict[str, Any] = {"model": "storyteller", "prompt": prompt, "max_tokens": 0, "echo": True, "logprobs": 1}
        made = served.client.completions.create(**options, stream=stream)
        choices = [choice for chunk in made for choice in chunk.choices] if stream else made.choices
        [found] = [choice.logprobs for choice in choices if choice.logprobs]
        start = "" if prompt is text else "<|end|>"  # the start token is among the ids, and no part of the text
        assert "".join(choice.text for choice in choices) == start + text
        assert found.token_logprobs[0] is None
        assert found.token_logprobs[1:] == pytest.approx(wanted[1:], abs=1e-5)
        assert (found.tokens[0], found.text_offset[:2]) == ("<|end|>", [0, len(start)])
        pieces = [(start + text)[place : place + len(token)] for place, token in zip(found.text_offset, found.tokens, strict=True)]
        assert pieces[1:] == found.tokens[1:]
        assert found.top_logprobs[0] is None
        assert all(max(top.values()) >= score for top, score in zip(found.top_logprobs[1:], found.token_logprobs[1:], strict=True))


def test_a_prompt_and_its_continuation_are_scored_together(served: Served, model: Generator) -> None:
    """A harness that asks for one token more compares the greedy token with the last one."""
    long = "Once upon a time there was a fox. " * 12  # more than a chunk of scores
    made = served.client.completions.create(model="storyteller", prompt=long, max_tokens=1, temperature=0, echo=True, logprobs=1)
    found = made.choices[0].logprobs
    assert found is not None
    assert found.tokens is not None
    assert found.token_logprobs is not None
    ids = model.tokenizer.encode(long)
    assert len(found.tokens) == len(ids) + 1
    assert found.token_logprobs[1:-1] == pytest.approx(log_probabilities(model.executor, ids).tolist(), abs=1e-5)
    assert made.choices[0].text == long + model.generate(long, max_new_tokens=1, temperature=0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_is_what_generate_writes(served: Served, talker: Generator, chat_folder: str, stream: bool) -> None:
    ids = talk_ids(talker, chat_folder, Message("system", "Be brief."), Message("user", SAID[0]["content"]))
    messages: Any = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": SAID[0]["content"]}]},
    ]
    options: dict[str, Any] = {"model": "talker", "messages": messages, "max_completion_tokens": 25, "seed": 5}
    wanted = written(talker, ids, max_new_tokens=25, seed=5)
    if not stream:
        made = served.client.chat.completions.create(**options)
        assert made.choices[0].message.content == wanted
        assert made.choices[0].finish_reason == "length"
        assert made.object == "chat.completion"
        return
    chunks = list(served.client.chat.completions.create(**options, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == wanted
    assert chunks[-1].choices[0].finish_reason == "length"


def test_a_chat_without_a_limit_fills_the_context(served: Served, talker: Generator) -> None:
    """As in `tgen chat`."""
    made = served.client.chat.completions.create(model="talker", messages=SAID, seed=5, extra_body={"ignore_eos": True})
    assert made.usage is not None
    assert made.usage.total_tokens == talker.context


@pytest.mark.parametrize("stream", [False, True])
def test_chat_logprobs(served: Served, stream: bool) -> None:
    options: dict[str, Any] = {"model": "talker", "messages": SAID, "max_tokens": 5, "seed": 5, "logprobs": True, "top_logprobs": 2}
    made = served.client.chat.completions.create(**options, stream=stream)
    choices = [chunk.choices[0] for chunk in made] if stream else made.choices
    tokens = [token for choice in choices if choice.logprobs for token in choice.logprobs.content]
    text = "".join(choice.delta.content or "" for choice in choices) if stream else choices[0].message.content
    assert b"".join(bytes(token.bytes) for token in tokens) == text.encode()
    assert [len(token.top_logprobs) for token in tokens] == [2] * 5


class Fox(BaseModel):
    name: str
    age: int
    color: str | None


def test_parse_with_a_schema(served: Served) -> None:
    made = served.client.chat.completions.parse(model="talker", messages=SAID, response_format=Fox, seed=1, max_tokens=100)
    assert isinstance(made.choices[0].message.parsed, Fox)
    answered = served.client.responses.parse(model="talker", input="A fox", text_format=Fox, max_output_tokens=100)
    assert isinstance(answered.output_parsed, Fox)
    free = served.client.chat.completions.create(
        model="talker", messages=SAID, response_format={"type": "json_object"}, seed=1, max_tokens=60
    )
    assert isinstance(json.loads(free.choices[0].message.content or ""), dict)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
@pytest.mark.parametrize("stream", [False, True])
def test_a_model_calls_a_function(served: Served, choice: Any, stream: bool) -> None:
    options: dict[str, Any] = {"model": "talker", "messages": SAID, "tools": [TOOL], "tool_choice": choice, "seed": 2, "max_tokens": 60}
    made = served.client.chat.completions.create(**options, stream=stream)
    if stream:
        chunks = [chunk.choices[0] for chunk in made]
        assert not any(chunk.delta.content for chunk in chunks)
        [call] = [call for chunk in chunks for call in chunk.delta.tool_calls or []]
        assert call.index == 0
        reason = chunks[-1].finish_reason
    else:
        [call] = made.choices[0].message.tool_calls
        assert made.choices[0].message.content is None
        reason = made.choices[0].finish_reason
    assert reason == "tool_calls"
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments)["day"] in ("today", "tomorrow")
    assert len(call.id) == 9
    answer: Any = {"role": "tool", "tool_call_id": call.id, "content": "It rains."}
    said: Any = {"role": "assistant", "content": None, "tool_calls": [{"id": call.id, "type": "function", "function": call.function}]}
    again = served.client.chat.completions.create(
        model="talker", messages=[*SAID, said, answer], tools=[TOOL], max_tokens=3, extra_body={"min_new_tokens": 3}
    )
    assert again.choices[0].message.content


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "inside",
    [
        r'\{"name": "weather", "arguments": \{"day": "(today|tomorrow)"\}\}',
        "<function=weather><parameter=day>(today|tomorrow)</parameter></function>",
    ],
)
def test_a_call_among_text_is_found(served: Served, stream: bool, inside: str) -> None:
    """A model that may also write text; a pattern makes this one call two functions."""
    call = f"<tool_call>{inside}</tool_call>"
    asked: dict[str, Any] = {"model": "talker", "messages": SAID, "tools": [TOOL], "seed": 2, "max_tokens": 150, "stream": stream}
    made = served.client.chat.completions.create(**asked, extra_body={"regex": rf"I will look\.\n{call}\n{call}"})
    if stream:
        chunks = [chunk.choices[0] for chunk in made]
        assert "".join(chunk.delta.content or "" for chunk in chunks) == "I will look."
        calls = [call for chunk in chunks for call in chunk.delta.tool_calls or []]
        assert [call.index for call in calls] == [0, 1]
        assert chunks[-1].finish_reason == "tool_calls"
    else:
        assert made.choices[0].message.content == "I will look."
        calls = made.choices[0].message.tool_calls
        assert made.choices[0].finish_reason == "tool_calls"
    assert [call.function.name for call in calls] == ["weather"] * 2
    assert json.loads(calls[0].function.arguments)["day"] in ("today", "tomorrow")
    assert calls[0].id != calls[1].id
    single = served.client.chat.completions.create(
        **{**asked, "stream": False}, parallel_tool_calls=False, extra_body={"regex": rf"I will look\.\n{call}\n{call}"}
    )
    assert len(single.choices[0].message.tool_calls) == 1


def test_a_response(served: Served, talker: Generator, chat_folder: str) -> None:
    ids = talk_ids(talker, chat_folder, Message("system", "Be brief."), Message("user", "A fox"))
    options: dict[str, Any] = {"model": "talker", "input": "A fox", "instructions": "Be brief.", "max_output_tokens": 16}
    made = served.client.responses.create(**options, extra_body={"seed": 4, "min_new_tokens": 16})
    assert made.output_text == written(talker, ids, max_new_tokens=16, seed=4, min_new_tokens=16)
    assert (made.status, made.incomplete_details and made.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert made.usage is not None
    assert made.usage.output_tokens == 16
    listed = served.client.responses.create(
        model="talker",
        input=[
            {"role": "user", "content": [{"type": "input_text", "text": "A fox"}]},
            {"type": "function_call", "call_id": "abc", "name": "weather", "arguments": '{"day": "today"}'},
            {"type": "function_call_output", "call_id": "abc", "output": "Rain."},
        ],
        max_output_tokens=2,
        extra_body={"min_new_tokens": 2},  # a small model may end at once
    )
    assert listed.output_text


def test_a_streamed_response_has_the_client_s_order_of_events(served: Served) -> None:
    with served.client.responses.stream(
        model="talker", input="A fox", max_output_tokens=8, extra_body={"seed": 4}, include=["message.output_text.logprobs"]
    ) as stream:
        events = list(stream)
        # The client keeps only completed responses; this one is cut by its length.
        last = events[-1]
    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", "incomplete"]
    assert set(kinds[4:-4]) == {"output_text.delta"}
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert last.type == "response.incomplete"
    assert last.response.output_text == text


def test_a_streamed_response_calls_a_function(served: Served) -> None:
    function: Any = {"type": "function", **TOOL["function"], "strict": True}
    with served.client.responses.stream(model="talker", input="A fox", tools=[function], tool_choice="required") as stream:
        kinds = [event.type.removeprefix("response.") for event in stream]
        final = stream.get_final_response()
    assert kinds == [
        *["created", "in_progress", "output_item.added", "function_call_arguments.delta", "function_call_arguments.done"],
        *["output_item.done", "completed"],
    ]
    [call] = final.output
    assert call.type == "function_call"
    assert json.loads(call.arguments)["day"] in ("today", "tomorrow")


def test_embeddings(served: Served) -> None:
    import openai

    texts = ["a fox", "the dog runs", "a fox"]
    made = served.client.embeddings.create(model="bert", input=texts)  # the client asks for base64
    plain = served.client.embeddings.create(model="bert", input=texts, encoding_format="float")
    assert [one.index for one in made.data] == [0, 1, 2]
    assert np.allclose([one.embedding for one in made.data], [one.embedding for one in plain.data], atol=0)
    assert made.data[0].embedding == made.data[2].embedding
    short = served.client.embeddings.create(model="bert", input="a fox", dimensions=4).data[0].embedding
    first = np.array(made.data[0].embedding[:4])
    assert np.allclose(short, first / np.linalg.norm(first), atol=1e-6)
    assert made.usage.prompt_tokens > 3
    with pytest.raises(openai.BadRequestError, match="dimensions must be a whole number between 1 and"):
        served.client.embeddings.create(model="bert", input="a", dimensions=100000)
    with pytest.raises(openai.BadRequestError, match="decoder-only; english-french is encoder-decoder"):
        served.client.embeddings.create(model="english-french", input="a")


def test_embeddings_are_those_of_the_command(served: Served) -> None:
    from tgen.checkpoint.container import open_checkpoint
    from tgen.executors.open import open_executor
    from tgen.options import RunOptions
    from tgen.tasks.embedding import hidden_states, pool
    from tgen.text.tokenizer import Tokenizer

    checkpoint = open_checkpoint(GOLDEN / "bert")
    ids = Tokenizer.load(checkpoint.folder).encode("a fox")
    [states] = hidden_states(open_executor(checkpoint, RunOptions()), [ids], checkpoint.spec.width)
    made = served.client.embeddings.create(model="bert", input="a fox", encoding_format="float")
    assert made.data[0].embedding == pytest.approx(pool(states, "mean").tolist())


def test_an_encoder_decoder_answers_completions(served: Served) -> None:
    translator = tgen.load("english-french", threads=1)
    made = served.client.completions.create(model="english-french", prompt="The cat sleeps.", temperature=0)
    assert made.choices[0].text == translator.generate("The cat sleeps.", temperature=0)


def test_tokens(served: Served, model: Generator) -> None:
    ids = model.tokenizer.encode("A fox")
    assert served.ask("/tokenize", {"prompt": "A fox"}) == (200, {"tokens": ids, "count": len(ids), "max_model_len": model.context})
    assert served.ask("/detokenize", {"tokens": ids}) == (200, {"prompt": "<|end|>A fox", "content": "<|end|>A fox"})
    status, talked = served.ask("/tokenize", {"model": "talker", "messages": SAID})
    assert status == 200
    assert served.ask("/detokenize", {"tokens": talked["tokens"]})[1]["prompt"].endswith("fox.assistant:")


def test_what_finished_says(served: Served, model: Generator) -> None:
    """The text ends where generate ends it, with the same reason and as many tokens."""
    events = list(model.stream("The end", seed=11, max_new_tokens=200))
    [finished] = [event for event in events if isinstance(event, Finished)]
    made = served.client.completions.create(model="storyteller", prompt="The end", seed=11, max_tokens=200)
    assert made.choices[0].finish_reason == finished.reason
    assert made.usage is not None
    assert made.usage.completion_tokens == finished.token_count
