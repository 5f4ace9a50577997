"""A conversation: what the model reads each turn, what stays after a turn that went wrong, and what is left out."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from tests.engine.scripted import END, Played, ScriptedExecutor, byte_tokenizer, only
from tests.executors.test_session import model
from tgen.engine.generator import Generator
from tgen.errors import CapacityError, UsageError
from tgen.events import Note
from tgen.executors.torch.session import TorchExecutor
from tgen.tasks.conversation import Conversation
from tgen.text.chat import ChatTemplate, Message

TEMPLATE = """\
{% for m in messages %}{% if m.content == 'no' %}{{ raise_exception('no!') }}{% endif %}\
{{ m.role[0] }}:{{ m.content }};{% endfor %}{% if add_generation_prompt %}a:{% endif %}"""


def answer(read: tuple[int, ...]) -> Any:
    """Answers with the last message's letters in capitals."""
    text = bytes(token for token in read if token < 256).decode()
    said = text.rpartition("a:")[2]
    asked = text.rpartition("a:")[0].removesuffix(";").rpartition("u:")[2].upper()
    return only(ord(asked[len(said)]) if len(said) < len(asked) else END)


class Scene:
    """A conversation with a model that shouts back."""

    def __init__(self, context: int = 100, system: str | None = None, **options: Any) -> None:
        self.executor = ScriptedExecutor(answer, context)
        generator = Generator(self.executor, byte_tokenizer(), context=context, end_tokens=frozenset([END]))
        template = ChatTemplate(TEMPLATE, "template", {})
        self.talk = Conversation(generator, template, generator.resolve({"temperature": 0, **options}), system)

    def say(self, text: str) -> Played:
        return Played(list(self.talk.reply(text)))

    def reads(self) -> str:
        """The whole text that the model has read for its last answer."""
        return bytes(token for token in self.talk._prefix.ids if token < 256).decode()


def test_each_turn_reads_only_what_is_new() -> None:
    scene = Scene(system="x")
    assert scene.say("hi").text() == "HI"
    assert scene.say("you").text() == "YOU"
    assert scene.reads() == "s:x;u:hi;a:HI;u:you;a:YOU"
    played = scene.say("me")
    assert played.started.cached_tokens == len("s:x;u:hi;a:HI;u:you;a:YOU")
    assert scene.talk.messages == [
        Message("system", "x"),
        *(Message(role, text) for said in ("hi", "you", "me") for role, text in (("user", said), ("assistant", said.upper()))),  # type: ignore[arg-type]
    ]


def test_a_kept_cache_changes_no_text() -> None:
    """Every turn against its whole text read anew, from a model whose tokens are drawn."""
    generator = Generator(TorchExecutor(model("llama")), byte_tokenizer(), context=400)
    template = ChatTemplate(TEMPLATE, "template", {})
    resolved = generator.resolve({"temperature": 1, "max_new_tokens": 12, "seed": 5})
    talk = Conversation(generator, template, resolved)
    for number, text in enumerate(["hi", "who?", "why?"]):
        ids = template.encode(generator.tokenizer, [*talk.messages, Message("user", text)])[0]
        kept = Played(list(talk.reply(text)))
        anew = generator.resolve({"temperature": 1, "max_new_tokens": 12, "seed": 5 + number})
        assert kept.text() == Played(list(generator.run(ids, anew))).text()
        assert bool(kept.started.cached_tokens) == bool(number)


def test_a_turn_that_fails_leaves_no_trace() -> None:
    scene = Scene()
    scene.say("hi")
    before = scene.talk.messages
    for text, error in [("no", UsageError), ("x" * 200, CapacityError)]:
        with pytest.raises(error):
            scene.say(text)
        assert scene.talk.messages == before
    assert scene.say("you").text() == "YOU"


def test_an_interrupted_answer_is_kept_and_one_without_a_word_is_not() -> None:
    scene = Scene()
    asked = count(1)
    list(scene.talk.reply("abcdef", lambda: next(asked) == 3))
    assert scene.talk.messages[-1] == Message("assistant", "ABC")
    events = scene.talk.reply("again")
    next(events)
    events.close()
    assert len(scene.talk.messages) == 2
    assert scene.talk.take_back() == "again"
    assert len(scene.talk.messages) == 2
    assert scene.say("you").text() == "YOU"


def test_another_answer_has_another_seed() -> None:
    scene = Scene(seed=7)
    assert scene.say("hi").started.seed == 7
    question = scene.talk.take_back()
    assert question == "hi"
    assert scene.say(question).started.seed == 8
    assert len(scene.talk.messages) == 2
    scene.talk.clear()
    assert scene.talk.take_back() is None


def test_the_context_is_the_limit_unless_someone_sets_another() -> None:
    played = Scene(context=30).say("a" * 20)
    assert played.finished[0].reason == "length"
    assert played.notes == ["the reply was cut: the conversation fills the model's context of 30 tokens"]
    assert Scene(max_new_tokens=3).say("abcdef").text() == "ABC"


def test_a_full_context_is_an_error_with_numbers() -> None:
    scene = Scene(context=40)
    scene.say("a" * 10)
    with pytest.raises(CapacityError) as error:
        scene.say("b" * 20)
    assert error.value.message == f"the conversation has {len('u:;a:;u:;a:') + 40} tokens with this message, the model's context is 40"
    # A pipe has no commands.
    assert error.value.hint is not None
    assert error.value.hint.startswith("begin a new conversation (/clear at a terminal), or use --overflow truncate-left")
    assert "/clear" in (error.value.hint or "")


def test_the_oldest_turns_are_left_out_but_never_the_system_message() -> None:
    scene = Scene(context=200, system="x", overflow="truncate-left")
    notes = []
    for letter in "abcdefghij" * 2:
        played = scene.say(letter * 8)
        assert played.text() == letter.upper() * 8
        assert scene.reads().startswith("s:x;u:")
        notes += [event.text for event in played if isinstance(event, Note)]
    assert notes[0].endswith("messages are left out to fit the context of 200")
    assert len(notes) < 7  # not at every turn, for each time the rest is read again
    assert len(scene.talk.messages) == 41
    with pytest.raises(CapacityError, match="this message alone has 209 tokens"):
        scene.say("y" * 200)


def test_a_system_message_that_the_template_refuses() -> None:
    scene = Scene(system="x")
    with pytest.raises(UsageError, match="no!"):
        scene.talk.system = "no"
    assert scene.talk.system == "x"


def test_messages_from_elsewhere_take_the_place_of_all() -> None:
    scene = Scene(system="x")
    scene.say("a")
    messages = [Message("system", "é"), Message("user", "\n"), Message("assistant", "")]
    scene.talk.messages = messages
    assert scene.talk.messages == messages
    assert scene.talk.system == "é"


def test_another_answer_after_loading_has_another_seed() -> None:
    """A conversation that goes on from a file must not draw the answers of that file again."""
    scene = Scene(temperature=1, seed=5)
    assert scene.say("a").started.seed == 5
    loaded = Scene(temperature=1, seed=5)
    loaded.talk.messages = scene.talk.messages
    question = loaded.talk.take_back()
    assert question == "a"
    assert loaded.say(question).started.seed == 6
    loaded.talk.messages = []
    assert loaded.say("b").started.seed == 7
