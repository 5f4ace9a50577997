"""What the page at / is made of: steps, maps, pieces, settings, and its own files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tgen
from tests.conftest import GOLDEN, golden_model
from tests.server.conftest import Served, serving
from tgen.executors.torch.maps import attention_maps
from tgen.options import resolve
from tgen.server.static import FOLDER, KINDS
from tgen.tasks.explaining import Step, explain
from tgen.text.tokenizer import Tokenizer


def events(served: Served, **body: Any) -> list[dict[str, Any]]:
    """The events of an explained text."""
    status, text = served.ask("/explain", body)
    assert status == 200, text
    assert text.endswith("data: [DONE]\n\n")
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


def test_steps_are_those_of_explain(served: Served) -> None:
    """The same numbers as without a server, each step before the text that its token completes."""
    found = events(served, prompt="Once upon", max_tokens=20, seed=4, top=3)
    model = tgen.load(threads=1)
    resolved = resolve({"max_new_tokens": 20, "seed": 4}, {}, model.defaults.options)
    wanted = [one for one in explain(model, "Once upon", resolved, 3) if isinstance(one, Step)]
    steps = [one for one in found if one["event"] == "Step"]
    assert [one["token"] for one in steps] == [one.token for one in wanted]
    assert [one["uniform"] for one in steps] == [one.uniform for one in wanted]
    assert [len(one["candidates"]) for one in steps] == [3] * 20
    assert found[0] == {"event": "Prompt", "ids": model.tokenizer.encode("Once upon")}
    drawn = 0
    for one in found:
        drawn += one["event"] == "Step"
        if one["event"] == "Piece":
            tokens = [score[0][0] for score in one["tokens"]]
            assert tokens == [step["token"] for step in steps[: len(tokens)]]
            assert one["text"] == "".join(step["text"] for step in steps[: len(tokens)])
            assert drawn >= len(tokens)
            drawn, steps = drawn - len(tokens), steps[len(tokens) :]
    assert (found[-1]["event"], found[-1]["token_count"]) == ("Finished", 20)


def test_a_branch_goes_on_from_ids(served: Served) -> None:
    """The prompt's ids with tokens after them are a prompt; the seed's random numbers begin anew."""
    first = events(served, prompt="Once", max_tokens=4, seed=4)
    ids = [*first[0]["ids"], 12]
    branch = events(served, prompt=ids, max_tokens=4, seed=4)
    assert branch[0]["ids"] == ids
    numbers = [[one["uniform"] for one in found if one["event"] == "Step"] for found in (first, branch)]
    assert numbers[0] == numbers[1]


def test_a_chat_and_an_encoder_decoder_are_explained(served: Served) -> None:
    said = events(served, model="talker", messages=[{"role": "user", "content": "Hello"}], max_tokens=2)
    assert said[0]["ids"] == served.ask("/tokenize", {"model": "talker", "messages": [{"role": "user", "content": "Hello"}]})[1]["tokens"]
    answer = events(served, model="english-french", prompt="The cat sleeps.", max_tokens=3)
    assert "".join(one["text"] for one in answer if one["event"] == "Piece").startswith("Le chat")


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/explain", {"prompt": "a", "n": 2}, 400, "samples cannot be honoured: one text is explained"),
        ("/explain", {"prompt": "a", "top": 0}, 400, "top must be a whole number from 1 to 200, not 0"),
        ("/explain", {"prompt": "a", "tpo": 1}, 400, "'tpo' is not known"),
        ("/explain", {"prompt": "a " * 5000}, 400, "the model's context is 1024"),
        ("/explain", {"prompt": [9**9]}, 400, "prompt must be a list of ids below 4096"),
        ("/explain", {"prompt": "a", "messages": []}, 400, "it must have a prompt, which is a text, or messages, and not both"),
        ("/explain", {"model": "bert", "prompt": "a"}, 400, "bert is encoder-only, so it generates no text"),
        ("/explain", {"model": "x", "prompt": "a"}, 404, "this server has no model 'x'"),
        ("/pieces", {}, 400, "it must have a prompt"),
        ("/attention", {"prompt": "a", "kind": "cross"}, 400, "kind cross: storyteller is decoder-only; use kind decoder"),
        ("/attention", {"prompt": "a", "kind": 1}, 400, "kind must be one of encoder, decoder, cross"),
        ("/attention", {"prompt": "a", "layer": 7}, 400, "layer 7: there are 7 layers"),
        ("/attention", {"prompt": "a", "head": 6}, 400, "head 6: there are 6 heads"),
        ("/attention", {"prompt": "a", "answer": "b"}, 400, "answer is for encoder-decoders; storyteller is decoder-only"),
        ("/attention", {"prompt": "a", "temperature": 1}, 400, "'temperature' is not known"),
        ("/attention", {"prompt": "a " * 600}, 400, "a map shows at most 512 tokens"),
        ("/attention", {"prompt": "a " * 5000}, 400, "the text has 5002 tokens, the model's context is 1024"),
    ],
)  # fmt: skip
def test_what_is_refused(served: Served, path: str, body: dict[str, Any], status: int, words: str) -> None:
    found, said = served.ask(path, body)
    assert (found, words in said["error"]["message"]) == (status, True), said


def test_a_map_is_the_recorded_one(served: Served) -> None:
    tokenizer, maps = Tokenizer.load(GOLDEN / "bert"), attention_maps(golden_model("bert"), Tokenizer.load(GOLDEN / "bert").encode("a fox"))
    body = {"model": "bert", "prompt": "a fox"}
    layers = maps["encoder"]
    one = served.ask("/attention", {**body, "layer": 0, "head": 1})[1]
    assert np.array(one["weights"]) == pytest.approx(layers[0][1], abs=1e-5)
    assert one["queries"] == one["keys"] == [tokenizer.decode([token], special=True) for token in tokenizer.encode("a fox")]
    mean = served.ask("/attention", body)[1]
    assert np.array(mean["weights"]) == pytest.approx(layers[-1].mean(axis=0), abs=1e-5)
    assert (mean["kind"], mean["layers"], mean["heads"]) == ("encoder", len(layers), len(layers[0]))


def test_a_map_of_an_answer(served: Served) -> None:
    body = {"model": "english-french", "prompt": "The cat", "answer": "Le chat"}
    cross = served.ask("/attention", body)[1]
    assert (cross["kind"], cross["keys"], cross["queries"][1:]) == ("cross", ["The", "cat", "<|end|>"], ["Le", "chat"])
    ids = served.ask("/pieces", {"model": "english-french", "prompt": "Le chat"})[1]["pieces"]
    assert served.ask("/attention", {**body, "answer": [one["id"] for one in ids if not one["special"]]})[1] == cross
    assert len(served.ask("/attention", {**body, "kind": "decoder", "answer": []})[1]["queries"]) == 1


def test_the_weights_of_maps_count_as_memory() -> None:
    with serving("storyteller", memory=40_000_000) as small:
        status, said = small.ask("/attention", {"prompt": "a"})
    assert (status, said["error"]["code"]) == (503, "memory")
    assert "attention maps of storyteller need 55,859,712 bytes of weights beside" in said["error"]["message"]


def test_without_torch_a_map_says_what_to_install(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tgen.executors.open.find_spec", lambda _: None)
    status, said = served.ask("/attention", {"prompt": "a"})
    assert (status, said["error"]["message"]) == (500, "an attention map needs PyTorch, which is not installed; pip install torch")


def test_pieces_have_their_bytes(served: Served) -> None:
    found = served.ask("/pieces", {"prompt": "Once é😀"})[1]["pieces"]
    assert bytes(byte for one in found if not one["special"] for byte in one["bytes"]).decode() == "Once é😀"
    assert [one["id"] for one in found] == served.ask("/tokenize", {"prompt": "Once é😀"})[1]["tokens"]
    assert (found[0]["text"], found[0]["special"]) == ("<|end|>", True)  # which starts a text, too
    assert found[1] == {"id": 1034, "piece": "Once", "text": "Once", "bytes": list(b"Once"), "special": False}
    special = served.ask("/pieces", {"model": "english-french", "prompt": "cat"})[1]["pieces"]
    assert [(one["text"], one["special"]) for one in special] == [(" cat", False), ("<|end|>", True)]


def test_settings_are_those_of_a_plain_request(served: Served) -> None:
    said = served.ask("/settings", {})[1]
    assert (said["model"], said["kind"], said["context"], said["chat"]) == ("storyteller", "decoder-only", 1024, True)
    options = {one["name"]: one for one in said["options"]}
    assert options["top_p"]["value"] == tgen.load(threads=1).defaults.options["top_p"]
    assert (options["top_p"]["low"], options["top_p"]["high"], options["top_p"]["origin"]) == (0, 1, "model")
    assert (options["temperature"]["high"], options["seed"]["value"]) == (None, None)
    assert not served.ask("/settings", {"model": "english-french"})[1]["chat"]
    assert served.ask("/settings", {"model": "english-french"})[1]["maps"] == ["cross", "encoder", "decoder"]


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_a_file_of_the_page(served: Served, path: Path) -> None:
    """Whole, with its kind, under a policy that lets it load nothing from elsewhere; asked again, it is not sent twice."""
    where = "/" if path.name == "index.html" else f"/page/{path.name}"
    assert served.ask(where) == (200, path.read_text("utf-8"))
    assert served.headers["content-type"] == KINDS[path.suffix]
    assert served.headers["content-security-policy"].startswith("default-src 'self';")
    assert served.headers["x-content-type-options"] == "nosniff"
    assert served.ask(where, If_None_Match=served.headers["etag"])[0] == 304
    assert "style=" not in path.read_text("utf-8") or path.suffix != ".html", "the policy forbids it"
