"""Names and pronouns, points of view, and the notation of sentences."""

import random
import re
from collections.abc import Iterator

import pytest

from models.storyteller.worlds.book import Section, plots, read_form, read_sections
from models.storyteller.worlds.reword import reword
from models.storyteller.worlds.simulate import Story, simulate
from models.storyteller.worlds.tell import Manner, Teller, Telling, brief, manner_of, tell, tidy, verse
from models.storyteller.worlds.template import choose, parse, ways
from models.storyteller.worlds.world import Character, Entity, Place, Thing


def story(friend: str = "she") -> Story:
    entities: dict[str, Entity] = {
        "a": Character("Tom", "boy", "he", "child", "hero", "shy"),
        "b": Character("Mia" if friend == "she" else "Ben", "girl" if friend == "she" else "boy", friend, "child", "friend", of="a"),
        "g": Character("mother", "mother", "she", "adult", "parent", named=False, of="a"),
        "h": Character("heron", "heron", "she", "animal", "stranger", named=False),
        "t": Thing("umbrella", "old", "clothes"),
        "p": Place("pond", "by the pond", "to the pond", frozenset()),
    }
    return Story(Section("test"), "people", "farm", entities, {letter: letter for letter in entities})


def told(text: str, narrator: str = "", friend: str = "she", seed: int = 1) -> str:
    teller = Teller(story(friend), Manner(narrator=narrator), random.Random(seed))
    teller.world.owner["t"] = "a"
    teller.say(read_form(text), teller.story.scope)
    return tidy("".join(teller.out))


@pytest.mark.parametrize(
    ("text", "narrator", "friend", "right"),
    [
        ("{a} sat down and {a} sighed.", "", "she", "A shy boy named Tom sat down and he sighed."),
        ("{a.intro} saw {b}, and {a} waved to {b}.", "", "she", "A shy boy named Tom saw his friend Mia, and he waved to her."),
        ("{a.intro} saw {b}, and {a} waved to {b}.", "", "he", "A shy boy named Tom saw his friend Ben, and Tom waved to Ben."),
        ("{a} saw {b}, and {b} waved to {a}.", "a", "she", "I saw my friend Mia, and she waved to me."),
        ("{b} saw {a}, and {a} waved to {b}.", "b", "she", "I saw my friend Tom, and he waved to me."),
        ('{a} laughed. "Wait, {b.name}!" said {a}. "{a.name} is here."', "a", "she", 'I laughed. "Wait, Mia!" I said. "Tom is here."'),
        ("{a.intro} and {b} met {h}. {h} bowed.", "", "she", "A shy boy named Tom and his friend Mia met a heron. The heron bowed."),
        ("{a.intro} lost {t}. It was a {t.full}.", "", "she", "A shy boy named Tom lost his old umbrella. It was an old umbrella."),
        ("{ab} ran. {ab} fell.", "a", "she", "My friend Mia and I ran. We fell."),
        ('{a} called {g}. "{g.call}!" {a} cried.', "a", "she", 'I called my mother. "Mama!" I cried.'),
        ("There stood {a}, {p.at}.", "a", "she", "There I stood, by the pond."),
        ("{a.intro} sang. {a.intro} had slept badly.", "", "she", "A shy boy named Tom sang. Tom had slept badly."),
        ("{a.intro} called. A cow looked up. {a} waved.", "", "she", "A shy boy named Tom called. A cow looked up. Tom waved."),
        ('{a} was afraid. "Boo!" gargled {a}.', "a", "she", 'I was afraid. "Boo!" I gargled.'),
        (
            '{a} sat with {b}. "Hm," said {b} and {h}.',
            "",
            "she",
            'A shy boy named Tom sat with his friend Mia. "Hm," said Mia and a heron.',
        ),
        (
            '{a} bowed. "Soon," said {a}, "{p.at}." "{p.at}?" {b} asked.',
            "a",
            "she",
            'I bowed. "Soon," I said, "by the pond." "By the pond?" my friend Mia asked.',
        ),
        (
            "{a} was cold. It would rain, thought {a}, and left.",
            "",
            "she",
            "A shy boy named Tom was cold. It would rain, he thought, and left.",
        ),
        ('"Is it you?" {a} asked {b}.', "a", "she", '"Is it you?" I asked my friend Mia.'),
    ],
)
def test_references(text: str, narrator: str, friend: str, right: str) -> None:
    assert told(text, narrator, friend) == right


def test_a_pronoun_is_never_used_where_two_may_be_meant() -> None:
    for seed in range(50):
        text = told("{a.intro} saw {b}. {b} waved. {a} ran.", friend="he", seed=seed)
        assert not re.search(r"\b[Hh]e\b", text.split(".", 1)[1].rsplit(".", 2)[1]), text


def test_the_reader_is_told_once_what_somebody_is() -> None:
    teller = Teller(story(), Manner(), random.Random(1))
    teller.world.entities["a"] = Character("Nibs", "mole", "he", "animal", "hero", "shy")
    teller.say(read_form("{b} dug a hole. {a} looked on. {a.intro} was tired. {p.view} Soon {a} slept."), teller.story.scope)
    text = tidy("".join(teller.out))
    assert text.count("mole") == 1 and "Nibs the mole looked on." in text, text
    lines = [read_form(line) for line in ("{.meet}", "{a.who} ran.")]
    assert [teller.fits(line, teller.story.scope) for line in lines] == [False, True]
    assert teller.line(lines, teller.story.scope) in ("Nibs ran.", "He ran.")


def test_he_and_she_are_used_only_where_the_reader_knows_who_is_which() -> None:
    teller = Teller(story(), Manner(), random.Random(1))
    names = {"a": Character("Nibs", "mole", "he", "animal", "hero"), "b": Character("Cobb", "swan", "she", "animal", "rival")}
    teller.world.entities.update(names)
    teller.say(read_form("{ab} sang. {b} laughed. {a} laughed too. {a} bowed, and {b} ran off."), teller.story.scope)
    text = tidy("".join(teller.out))
    assert not re.search(r"\b(he|she)\b", text.split("too.")[0]), text
    assert text.endswith("He bowed, and Cobb ran off."), text


def test_lines_about_others_are_kept_out_of_stories_told_as_i() -> None:
    teller = Teller(story(), Manner(narrator="a"), random.Random(1))
    forms = [read_form(line) for line in ("{a.intro} ran.", "They ran.", "{a} ran.", "@third {a} ran away.", '"They ran," {a} said.')]
    assert [teller.fits(form, teller.story.scope) for form in forms] == [False, False, True, False, True]


def test_a_line_may_ask_for_what_another_line_has_brought_in() -> None:
    teller = Teller(story(), Manner(), random.Random(1))
    forms = [read_form(line) for line in ("@+frog There sat a frog.", "@frog The frog sneezed.", "@!frog Nobody sneezed.")]
    assert [teller.fits(form, teller.story.scope) for form in forms] == [True, False, True]
    teller.say(forms[0], teller.story.scope)
    assert [teller.fits(form, teller.story.scope) for form in forms] == [True, True, False]


@pytest.mark.parametrize(
    "text", ["{a} keeps it.", "{a} still keeps it.", "{a}, who was late, ran.", "It belongs to {b}, and {a} knows it."]
)
def test_what_cannot_be_said_of_oneself_is_not_told_as_i(text: str) -> None:
    teller, other = (Teller(story(), Manner(narrator=narrator), random.Random(1)) for narrator in ("a", ""))
    assert not teller.fits(read_form(text), teller.story.scope)
    assert other.fits(read_form(text), other.story.scope)


def test_a_word_with_a_digit_is_the_same_throughout_a_story() -> None:
    for seed in range(9):
        first, second = told("{.bird1} and {.bird1}", seed=seed).lower().split(" and ")
        assert first == second


def test_a_story_in_a_story_is_about_others() -> None:
    for seed in range(9):
        text = told('{a} told it: "{.tale}"', seed=seed)
        assert text.startswith("A shy boy named Tom told it: ") and text.count('"') == 2 and "Tom" not in text[20:]


def test_a_plot_that_is_held_out_is_not_told_of_either() -> None:
    teller = Teller(story(), Manner(), random.Random(1))
    teller.story.tales = ("stuck-high",)
    for _ in range(9):
        teller.say(read_form("{.tale} "), teller.story.scope)
    tales = "".join(teller.out)
    assert len(re.findall(r"up high\.|got stuck|hung too high", tales)) == 9


def test_other_words_leave_names_and_quotation_marks_alone() -> None:
    text = 'All at once Tom began to laugh. "Nearly everyone did not," said Mia.'
    found = {reword(text, random.Random(seed)) for seed in range(60)}
    assert len(found) > 10 and any("Suddenly Tom started to laugh." in one for one in found)
    assert all(one.count('"') == 2 and "Tom" in one and "said Mia." in one for one in found)
    told = {reword('A hen named Cobb sang, too. Then she left. "Then run," I called.', random.Random(seed)) for seed in range(60)}
    assert any("called Cobb sang as well. After that she left." in one for one in told)
    assert all('"Then run," I called.' in one for one in told)


def test_notation() -> None:
    assert ways(parse("[a|b] x [c|d|]")) == 6
    assert "".join(map(str, choose(parse("a [b] c"), random.Random(1)))) == "a b c"
    for wrong in ("[a|b", "a|b", "a]", "{a", "{A}", "{}"):
        with pytest.raises(ValueError):
            parse(wrong)
    for wrong in ("# x\n\n{{\na\nor\nb", "# x\n\na\n\n}}", "# x\n\n?\n! at a p\na"):
        with pytest.raises(ValueError, match="section x"):
            list(read_sections(wrong))


def tellings(times: int) -> Iterator[Telling]:
    for section in plots():
        for number in range(times):
            rng = random.Random(f"{section.name}:{number}")
            one = simulate(section, rng, rng.random())
            poem = verse(one, rng) if number == 0 else None
            yield brief(one, rng) if number == 1 else poem or tell(one, manner_of(one, rng), rng)


WRONG = re.compile(
    r"[{}\[\]|¶@]|  | [.,;!?]|\b(the the|a a|an an|of a|to a|in a) \1\b|\b(?i:the the|a an|a a) "
    r"|\b(to|from|with|found|gave|told|behind|beside) (I|she|they|we)\b(?! (had|was|were|could|did))"
    r'|" (said|asked|cried) (I|he|she|we|they)\b|(?<!and )(?<!if )(?<!though )\bI (is|has|were)\b|(?<=\w\. )[a-z]'
)


def test_the_stories_of_every_plot_are_clean() -> None:
    for one in tellings(6):
        outside = one.text
        wrong = WRONG.search(outside)
        assert wrong is None or '"' in outside[wrong.start() - 3 : wrong.end()], f"{one.story.plot.name}: {wrong} in {outside}"
        assert 8 < len(outside.split()) <= 480
        assert outside.count('"') % 2 == 0, f"{one.story.plot.name}: {outside}"
        assert not re.search(r"\b[Aa] (?=[aeio])(?!one)", outside), outside


def test_an_opening_gives_the_hero_only_what_the_plot_gives_and_leaves_there() -> None:
    by_name = {section.name: section for section in plots()}

    def owns(name: str) -> bool:
        rng = random.Random(1)
        return Teller(simulate(by_name[name], rng, 0.5), Manner(), rng)._owns()

    assert owns("lost-thing") and owns("quarrel-broken")
    assert not owns("wrong-letter"), "the letter is somebody else's"
    assert not owns("swap-chain"), "the thing is swapped for another"
    assert not owns("last-one"), "the thing lies on the table"


def test_a_condition_on_somebody_who_is_not_in_the_story_does_not_hold() -> None:
    teller = Teller(story(), Manner(), random.Random(1))
    assert teller.fits(read_form("@b=friend {a} and {b} sang."), teller.story.scope)
    assert not teller.fits(read_form("@s=sibling {a} sang."), teller.story.scope)
