"""Wishes and questions from the same states as the stories: what one may ask for before a story, and about it afterwards."""

import json
import random
import re
from collections import defaultdict
from collections.abc import Iterator

from .book import Form, bank, bank_names, header_forms, read_form
from .mention import article
from .simulate import Scope
from .tell import Manner, Teller, Telling, gist, title
from .world import Character, Place, Thing

SMALL = 80  # words; a shorter story is over before somebody who gave its beginning has read anything
Record = dict[str, str]
Asked = dict[str, str]  # kind, question and answer


def grounded(text: str, telling: Telling) -> bool:
    """Whether names, nouns and qualities of the cast that occur in a text occur in the story, too."""
    story = telling.text.lower()
    words = set(re.findall(r"[a-z'-]+", text.lower().replace("'s", "")))
    for one in telling.story.entities.values():
        if isinstance(one, Character):
            marks = (one.name, one.noun, one.trait)
        else:
            marks = (one.noun, one.adjective, "") if isinstance(one, Thing) else (one.noun, "", "")
        for mark in filter(None, marks):
            if set(mark.lower().split()) <= words and mark.lower() not in story:
                return False
    return True


def _line(telling: Telling, forms: tuple[Form, ...], scope: Scope, rng: random.Random) -> str:
    teller = Teller(telling.story, Manner(), rng)
    teller.voice.met, teller.voice.sorts = set(telling.story.entities), set(telling.story.entities)
    teller.world = teller.voice.world = telling.story.after()
    return teller.line(forms, scope)


# Before the story.
def wish(telling: Telling, rng: random.Random) -> str:
    """What somebody may have said who got this story."""
    story, manner = telling.story, telling.manner
    about = _line(telling, header_forms(tuple(story.plot.forms("about"))), story.scope, rng)
    hero = story.entities["a"]
    assert isinstance(hero, Character)
    who = _hero(hero, telling, rng)
    things = [one for key, one in story.entities.items() if isinstance(one, Thing) and key in telling.met and one.noun in telling.text]
    what = about[:1].lower() + about[1:]
    if things and rng.random() < 0.4:
        thing = rng.choice(things)
        what = article(f"{thing.adjective} {thing.noun}" if thing.adjective in telling.text else thing.noun)
    where = [one.at for key, one in story.entities.items() if isinstance(one, Place) and key in telling.met and one.at in telling.text]
    form = _wish_form(manner, bool(who), bool(where), rng)
    text = form.replace("WHO", who).replace("WHAT", what).replace("WHERE", rng.choice(where) if where else "")
    return text[:1].upper() + text[1:]


def _hero(hero: Character, telling: Telling, rng: random.Random) -> str:
    """What the wish calls the hero, by words that the story has, too; "" where it has neither the kind nor the name."""
    named = re.search(rf"\b{re.escape(hero.name)}\b", telling.text) is not None
    if not re.search(rf"\b{re.escape(hero.noun)}\b", telling.text):
        return hero.name if named else ""
    trait = hero.trait if re.search(rf"\b{re.escape(hero.trait)}\b", telling.text) else ""
    who = article(f"{trait} {hero.noun}".strip())
    if named and hero.name != hero.noun and rng.random() < 0.4:
        return hero.name if rng.random() < 0.4 else f"{who} named {hero.name}"
    return who


def _wish_form(manner: Manner, who: bool, where: bool, rng: random.Random) -> str:
    """How it is asked: for any story, for somebody in it, for a place, a style, a length, or only for what it should be about."""
    about = who or manner.style == "verse"  # a rhyme is asked for without anybody in it
    kinds = ("any", "who", "where", "about")
    kind = rng.choices(kinds, (14, 22 if who else 0, 10 if who and where else 0, 54 if about else 0))[0]
    if kind in ("who", "where") and manner.style != "verse":
        return rng.choice(bank(f"wish-{kind}"))
    start = "wish-any" if kind == "any" else "wish"
    names = [f"{start}-{name}" for name in (manner.style, manner.size) if f"{start}-{name}" in bank_names()]
    if manner.style == "verse":
        names = names[:1]
    elif not names or rng.random() < 0.4:
        names = [start]
    return rng.choice(bank(rng.choice(names)))


def title_wish(telling: Telling, rng: random.Random) -> str:
    return rng.choice(bank("wish-title")).replace("TITLE", title(telling.story, rng).replace('"', "'"))


def three_words(telling: Telling, rng: random.Random) -> tuple[str, ...]:
    """Three words that occur in the story: those for somebody, a thing or a place first, and others that do not occur in most."""
    words = set(re.findall(r"(?<![\w'-])[a-z]{3,}(?![\w'-])", telling.text))
    extras = [word for word in telling.extras if re.search(rf"(?<![\w'-]){word}(?![\w'-])", telling.text)]
    nouns = [one.noun for one in telling.story.entities.values() if one.noun in words]
    first = extras + rng.sample(sorted(set(nouns)), min(rng.choice((1, 2, 2, 3)), len(set(nouns)), 3 - len(extras)))
    others = sorted(word for word in words - {*bank("common"), *first} if len(word) > 3)
    chosen = [*first, *rng.sample(others, min(3 - len(first), len(others)))]
    rng.shuffle(chosen)
    return tuple(chosen)


def _listed(words: tuple[str, ...]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"


def words_opening(words: tuple[str, ...], telling: Telling, rng: random.Random) -> str:
    """What comes before a story that was wished for with three words: a sentence or two with all of them."""
    nouns = {*bank("nouns"), *(one.noun for one in telling.story.entities.values())}
    if len(words) == 3 and nouns.issuperset(words) and rng.random() < 0.8:
        first, second, third = map(article, words)
        form = rng.choice(bank("words-nouns")).replace("ALL", _listed((first, second, third)))
        text = form.replace("FIRST", first).replace("SECOND", second).replace("THIRD", third)
    else:
        text = rng.choice(bank("words-any")).replace("LIST", _listed(words))
    return text[:1].upper() + text[1:]


def words_wish(words: tuple[str, ...], rng: random.Random) -> str:
    text = _listed(words) if rng.random() < 0.4 else ", ".join(words)
    return rng.choice(bank("wish-words")).replace("WORDS", text)


def cut(telling: Telling, rng: random.Random) -> tuple[str, str]:
    """The beginning of the story, after one to four sentences, and the rest."""
    ends = [match.end() for match in re.finditer(r'[.!?]"?(?=\s)(?!" )', telling.text)][:4]
    at = rng.choice(ends) if ends else len(telling.text) // 2
    return telling.text[:at], telling.text[at:].lstrip()


# After the story.
def record(telling: Telling) -> str:
    """Characters, places and things that are named in the story, as a JSON object without white space, as `--json-schema` writes it."""
    found: dict[str, list[object]] = {"characters": [], "places": [], "things": []}
    for key, one in telling.story.entities.items():
        by_name = isinstance(one, Character) and one.named and one.name in telling.text
        if key not in telling.met or not (by_name or one.noun in telling.text):
            continue
        if isinstance(one, Character):
            about = {"name": one.name} if by_name else {}
            about["kind"] = one.noun
            if one.trait and one.trait in telling.text:
                about["trait"] = one.trait
            found["characters"].append(about)
        elif isinstance(one, Place):
            found["places"].append(one.noun)
        else:
            found["things"].append(f"{one.adjective} {one.noun}" if one.adjective in telling.text else one.noun)
    return json.dumps(found, separators=(",", ":"))


def questions(telling: Telling, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Questions with short answers, each of which has one answer only."""
    story = telling.story
    asked: defaultdict[str, set[str]] = defaultdict(set)
    for name, scope in _occasions(telling, rng):
        if all(key in telling.met for key in scope.values()):
            for line in bank(name):
                question, answer = (_line(telling, (read_form(part),), scope, rng) for part in line.split(" | "))
                asked[question].add(_answer(answer))
    for line in story.plot.forms("why"):
        question, answer = (_line(telling, (read_form(part),), story.scope, rng) for part in line.split(" | "))
        if question:  # "" where its condition does not hold in this story
            asked[question].add(_answer(answer))
    for question, answers in asked.items():
        if len(answers) == 1:
            answer = answers.pop()
            if grounded(f"{question} {answer}", telling):
                yield question, answer


def _answer(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else text + "."


def _occasions(telling: Telling, rng: random.Random) -> Iterator[tuple[str, Scope]]:
    """What can be asked about: the events, where they happened, and now and then what the characters and things are."""
    story = telling.story
    for event in story.after().events:
        name = f"ask-{event.verb}"
        parts = [part for part in event.parts if part in story.entities]
        if name in bank_names() and len(parts) == len(event.parts):
            yield name, dict(zip("xyz", parts, strict=False))
            if event.place and f"{name}-where" in bank_names():
                yield f"{name}-where", dict(zip("xyz", parts, strict=False)) | {"p": event.place}
    for key, one in story.entities.items():
        if rng.random() < 0.5:
            continue
        if isinstance(one, Character):
            if one.role in ("friend", "sibling"):
                yield f"ask-{one.role}", {"x": key, "y": one.of}
            if one.named and one.kind in ("animal", "fairy"):
                yield "ask-noun", {"x": key}
            if one.role == "hero":
                yield "ask-trait", {"x": key}
        elif isinstance(one, Thing):
            yield "ask-adjective", {"x": key}


def after(telling: Telling, rng: random.Random) -> list[Asked]:
    """Two to five different questions with answers about a story that is told from outside; none where nothing can be asked."""
    if telling.manner.narrator or telling.manner.style == "verse":
        return []
    wanted = [rng.choices(("question", "summary", "title-of", "record"), (64, 16, 10, 10))[0] for _ in range(rng.randint(2, 5))]
    found = list(questions(telling, rng)) if "question" in wanted else []
    rng.shuffle(found)
    asked: list[Asked] = []
    for kind in wanted:
        if kind == "question":
            pair = found.pop() if found else None
        else:
            pair = None if any(one["kind"] == kind for one in asked) else _told_briefly(telling, kind, rng)
        if pair is not None:
            asked.append({"kind": kind, "question": pair[0], "answer": pair[1]})
    return asked


def _told_briefly(telling: Telling, kind: str, rng: random.Random) -> tuple[str, str] | None:
    """A wish for a summary, a title or a record of the story, and the answer; None if it would say more than the story."""
    if kind == "record":
        return rng.choice(bank("then-record")), record(telling)
    question = rng.choice(bank("then-summary" if kind == "summary" else "then-title"))
    answer = gist(telling.story, rng) if kind == "summary" else title(telling.story, rng)
    return (question, answer) if grounded(answer, telling) else None


def before(telling: Telling, rng: random.Random) -> Record:
    """The story as an answer to nothing, to a wish, a title, three words or a beginning.

    A rhyme and a story of few sentences always answer something: who only says how a story begins does not want it over at once.
    """
    small = telling.manner.style == "verse" or len(telling.text.split()) < SMALL
    kind = rng.choices(("story", "wish", "title", "words", "begin"), (0 if small else 66, 16, 4, 9, 0 if small else 5))[0]
    if telling.extras:
        kind = "words"
    if kind == "begin":
        first, rest = cut(telling, rng)
        prompt = f"{rng.choice(bank('wish-begin'))} {first}" if rng.random() < 0.5 else first
        return {"kind": kind, "prompt": prompt, "text": rest}
    if kind == "words":
        words = three_words(telling, rng)
        text = f"{words_opening(words, telling, rng)}{rng.choice((' ', chr(10) * 2))}{telling.text}"
        return {"kind": kind, "prompt": words_wish(words, rng), "text": text}
    prompt = {"wish": wish, "title": title_wish}[kind](telling, rng) if kind != "story" else ""
    return {"kind": kind, "prompt": prompt, "text": telling.text}
