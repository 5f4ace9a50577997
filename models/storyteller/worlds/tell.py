"""How it is told: one story in words, in a style, at a length, by somebody who was there or by nobody in particular."""

import random
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

from .book import Form, bank, bank_forms, header_forms, plots, read_form
from .mention import Voice, article
from .reword import reword
from .simulate import Scope, Story, simulate
from .template import Ref, choose, references
from .world import Character, ImpossibleError, Place, Thing

_OPENINGS = ("opening-a", "opening-b", "opening-c", "opening-d", "opening-e", "opening-f", "opening-g")
STYLES = ("plain", "fairy", "funny", "bedtime", "diary", "letter", "told")
SIZES = ("short", "medium", "long")
FIRST_PERSON = ("diary", "letter")
_UNTOLD = {"short": 0.05, "medium": 0.5, "long": 0.9}  # how likely an optional beat is told
_DETAIL = {"short": (0.0, 0.1), "medium": (0.1, 0.8), "long": (0.5, 1.0)}  # how likely an optional episode happens: from, to
_OF_OTHERS = {"intro", "a", "show", "the", "look"}  # forms in which nobody speaks of themselves
_SPEECH = (
    "(?:said|asked|cried|shouted|called|whispered|answered|replied|laughed|muttered|sighed|begged|added|sang|yelled|roared|howled|giggled|shrieked|"
    "groaned|grumbled|explained|warned|promised|agreed|gasped|insisted|mumbled|growled|squeaked|demanded|suggested|sobbed|panted|snapped|announced|"
    "admitted|repeated|murmured|wailed|croaked|boasted|guessed|moaned|chuckled|hissed|puffed)"
)
_MEET = Ref("", "meet")
_CLOSES = (".", ",", "?", "!", ";", ":", '"', "")
_ENDS = re.compile(r"[.;]|, (?:and|but|when|\")")  # after "said Tom": nothing more that belongs to Tom
_ONCE = {"plain": 0.16, "fairy": 0.5, "bedtime": 0.2, "funny": 0.1, "told": 0.2}  # how often "once upon a time there was ..." comes first
_OPENING = {"plain": 0.85, "fairy": 0.6, "bedtime": 0.6, "funny": 0.75, "told": 0.5}  # how often another opening does, if that does not
_OWNER = 0.4  # how often the opening tells of a thing that the plot gives to the hero
_BORROWED = 0.75  # how often a sentence that somebody wrote opens a story, where there are such sentences
_OF_SORT, _OF_HERO = 0.5, 0.65  # how often it is one that says of what sort the hero is; else, how often one of a hero
_OF_THIS_SORT = 0.4  # how often that is one which somebody wrote of this sort, where there is one
# What makes a line about a hero who has a name one about a hero who has none yet.
_SORTS = [
    f"{before}{hero}{who}"
    for hero in ("{a.a}", "a little {a.noun}", "a small {a.noun}", "a young {a.noun}")
    for before, who in (
        *[(time, "") for time in ("", "", "One day, ", "One morning ", "Long ago, ", "Late in the evening, ", "Not far from here, ")],
        *product(("Once upon a time there was ", "Once upon a time, there lived ", "There once was "), (" who", " that")),
    )
]
_BEGINS_WITH_HERO = re.compile(
    r"\{a\.name\}(?= (?:was|had|went|came|saw|took|made|got|found|ran|lost|stood|sat|kept|knew|heard|[a-z]{3,}ed)\b)"
)
_LED = {"named": 0.5, "sort": 0.9, "sort-clear": 0.9, "free": 0.85}  # how often words lead from it to the story
_NAME_FIRST = 0.45  # how often it is "Tom said", not "said Tom"
_SMALLEST = "Once there was a stone who wanted to be a loaf, and in the end it was content."
_SMALL_WORDS = {"a", "an", "and", "at", "by", "for", "in", "of", "on", "or", "the", "to", "with"}


@dataclass(frozen=True, slots=True)
class Manner:
    """The style, the length, and the letter of the one who says "I" (none: told from outside)."""

    style: str = "plain"
    size: str = "medium"
    narrator: str = ""


@dataclass(frozen=True, slots=True)
class Telling:
    story: Story
    manner: Manner
    text: str
    met: frozenset[str]  # the keys of those who are mentioned
    extras: tuple[str, ...] = ()  # words that were to be mentioned, too


@dataclass(frozen=True)
class Sentences:
    """Sentences that people wrote, as `models.storyteller.sentences` finds them: about the hero, a hero of some sort, anything else."""

    named: list[str]
    free: list[str]
    sorts: dict[str, list[str]]

    @cached_property
    def unnamed(self) -> list[str]:
        """The lines that can do without the hero's name: they begin with it, and with what the hero did."""
        return [line for line in self.named if _BEGINS_WITH_HERO.match(line) and line.count("{a.") == 1]


Extra = tuple[str, str]  # a word that no plot needs, and what it is: noun, adjective or verb


class Teller:
    """Tells one story once."""

    def __init__(
        self, story: Story, manner: Manner, rng: random.Random, extras: Sequence[Extra] = (), sentences: Sentences | None = None
    ) -> None:
        """With `sentences`, most stories that nobody in them tells begin with one of these."""
        self.story = story
        self.sentences = sentences
        self.extras = extras
        self.manner = manner
        self.rng = rng
        self.world = story.world()
        self.voice = Voice(self.world, rng, manner.narrator)
        self.out: list[str] = []
        self.used: set[str] = set()
        self.kept: dict[str, str] = {}

    # One form.
    def fits(self, form: Form, scope: Scope) -> bool:
        """Whether a form is true now, and can be said by this narrator."""
        if not all(self._holds(condition, scope) for condition in form.conditions):
            return False
        me = self.manner.narrator
        if not me:
            return "a" not in self.voice.met or _MEET not in form.parts  # nobody is met twice
        if form.apart or any(scope.get(letter) == me for letter in form.others):
            return False
        return not any(ref.form == "intro" or (ref.form in _OF_OTHERS and scope.get(ref.letters) == me) for ref in references(form.parts))

    def _holds(self, condition: str, scope: Scope) -> bool:
        if condition.startswith("+"):
            return True
        if condition.startswith("!"):
            return not self._holds(condition[1:], scope)
        letter, equals, tag = condition.partition("=")
        if equals:
            return letter in scope and tag in self._tags(scope[letter])
        manner, story = self.manner, self.story
        if condition == "me":
            return manner.narrator == "a"
        if condition in (f"me-{manner.narrator}", manner.style, story.realm) or (story.realm == "animals" and condition == story.habitat):
            return True
        return (condition == "third" and not manner.narrator) or condition in self.world.facts

    def _tags(self, key: str) -> set[str]:
        one = self.world.entities[key]
        tags = self.world.states.get(key, set()) | {one.noun, self.world.feels.get(key, "")}
        if isinstance(one, Character):
            return tags | {one.kind, one.trait, one.gender, one.role}
        return tags | (set(one.kinds) if isinstance(one, Place) else {one.kind})

    def pick(self, forms: Sequence[Form], scope: Scope) -> Form | None:
        """One of the forms that fit, longer ones for longer stories; those made for this very case come first."""
        fitting = [form for form in forms if self.fits(form, scope)]
        if not fitting:
            return None
        order = sorted(fitting, key=lambda form: form.length)
        top = len(order) - 1
        weights = [self._weight(rank / top if top else 0.5) * _special(form) for rank, form in enumerate(order)]
        return self.rng.choices(order, weights)[0]

    def _weight(self, rank: float) -> float:
        return {"short": (1.2 - rank) ** 2, "medium": 1.0, "long": 0.3 + rank}[self.manner.size]

    def say(self, form: Form, scope: Scope) -> None:
        """Write one form; what it adds to the story (`+crown`) later forms may ask for."""
        self.world.facts.update(condition[1:] for condition in form.conditions if condition.startswith("+"))
        parts = list(choose(form.parts, self.rng))
        for part, after in zip(parts, [*parts[1:], ""], strict=True):
            if isinstance(part, str):
                self.literal(part)
            elif isinstance(after, str) and after.startswith(", who") and not part.form and part.letters in scope:
                self._refer(Ref(part.letters, "full"), scope, ", who")  # not "she, who"
            else:
                self._refer(part, scope, after if isinstance(after, str) else "{")

    def literal(self, text: str) -> None:
        if self.voice.memory.start and text[:1].islower():
            text = text[0].upper() + text[1:]
        self.voice.memory.read(text)
        self.out.append(text)

    def _refer(self, ref: Ref, scope: Scope, after: str) -> None:
        """Write one reference; `after` is the text that follows ("{": another reference)."""
        if not ref.letters:
            self._draw(ref.form, scope)
            return
        key = scope[ref.letters] if len(ref.letters) == 1 else ""
        one = self.world.entities.get(key)
        if isinstance(one, Character) and ref.form == "show":
            self._nested(bank_forms(f"show-{one.trait}"), {"x": key})
        elif isinstance(one, Character) and ref.form == "look":
            self._nested(header_forms((one.look,)), {"x": key})
        elif isinstance(one, Place) and ref.form == "view":
            self.literal(self.voice.write((key,), "view"))
        else:
            last = self.out[-1] if self.out else ""
            closed = after[:1] in _CLOSES and not after.startswith(", who")
            if after == " and " and not ref.form and len(ref.letters) == 1 and re.search(r'" \w+ $', last):
                ref = Ref(ref.letters, "full")  # "said Tom and the heron": a pronoun would go before the verb
            text = self.voice.write(tuple(scope[letter] for letter in ref.letters), ref.form, self._word_before(last, closed))
            self.out.append(self._after_speech(self._with_article(text), after))

    @staticmethod
    def _word_before(text: str, closed: bool) -> str:
        """The word before a reference, by which it is a subject or an object; `closed`: the clause ends right after the reference."""
        if re.search(r'" \w+ $', text):
            return ""  # "Why?" asked he
        before = text.split()[-1:]
        if before == ["asked"] or (closed and before and before[0] in ("for", "before", "after", "like", "than", "but")):
            return "to"  # she asked him; there was nothing for him. But: for he knew
        return before[0].lower() if before else ""

    def _with_article(self, text: str) -> str:
        """Mend "a" before a vowel: the writer of a form cannot know what the reference will be."""
        before = self.out[-1] if self.out else ""
        if re.search(r"\b[Aa] $", before) and article(text).startswith("an "):
            self.out[-1] = before[:-1] + "n "
        return text

    def _after_speech(self, text: str, after: str) -> str:
        """A pronoun stands before the verb of speaking, not "said she"; a name, too, now and then, where nothing more belongs to it."""
        before = self.out[-1] if self.out else ""
        match = re.search(
            rf'(?:(?<=" )|^ )({_SPEECH}|[a-z]+ed|thought|read|wrote|says) $|(?<=, )(thought) $|\b(?<![,;:] )(sat|stood|lay|came|hung) $',
            before,
        )
        if match is None:
            return text
        quoted = match[1] and before[: match.start(1)].endswith('" ')
        may = quoted and self.manner.style != "verse" and " named " not in text and _ENDS.match(after)
        swapped = may and self.rng.random() < _NAME_FIRST
        if text not in ("I", "he", "she", "we", "they") and not swapped:
            return text
        self.out[-1] = before[: match.start(match.lastindex or 0)]
        return f"{text} {match[match.lastindex or 0]}"

    def _tale(self) -> str:
        """A story in the story, in a sentence or two: somebody tells it, and others are in it."""
        names = {one.name for one in self.story.entities.values() if isinstance(one, Character)}
        told = self.story.tales or tuple(plot.name for plot in plots())
        others = [plot for plot in plots() if plot.name in told and plot is not self.story.plot]
        if not others:
            return _SMALLEST
        for _ in range(9):
            try:
                tale = simulate(self.rng.choice(others), self.rng, 0.2)
            except (ImpossibleError, LookupError):
                continue
            if not names & {one.name for one in tale.entities.values() if isinstance(one, Character)}:
                return gist(tale, self.rng).replace('"', "'")
        return _SMALLEST

    def _draw(self, name: str, scope: Scope) -> None:
        if name == "tale":
            self.literal(self._tale())
            return
        if name[-1].isdigit():  # the same item each time, in one story
            if name not in self.kept:
                start = len(self.out)
                self._draw(name[:-1], scope)
                self.kept[name] = "".join(self.out[start:])
            else:
                self.literal(self.kept[name])
            return
        if name == "scene":
            name = f"scene-{self.rng.choice(self.story.plot.words('scene') or ['day'])}"
        self._nested(bank_forms(name), scope)

    def _nested(self, forms: Sequence[Form], scope: Scope) -> None:
        """Say one of the forms that was not said yet in this story."""
        fitting = [form for form in forms if self.fits(form, scope)]
        fresh = [form for form in fitting if str(form.parts) not in self.used] or fitting
        if fresh:
            form = self.rng.choice(fresh)
            self.used.add(str(form.parts))
            if isinstance(form.parts[0], str):
                self._with_article(form.parts[0])
            self.say(form, scope)

    # The whole.
    def line(self, forms: Sequence[Form], scope: Scope | None = None) -> str:
        """One line by itself: a title, a summary, a question."""
        start = len(self.out)
        form = self.pick(forms, scope or self.story.scope)
        if form is not None:
            self.say(form, scope or self.story.scope)
        text = tidy("".join(self.out[start:]))
        del self.out[start:]
        return text

    def tell(self) -> Telling:
        scope = self.story.scope | {"n": self.manner.narrator}
        if self.sentences is None or self.manner.narrator or self.rng.random() >= _BORROWED or not self._borrow(self.sentences, scope):
            self._open(scope)
        limit, asides = self.rng.randint(30, 75), self._asides()
        for number, moment in enumerate(self.story.moments):
            self._mention(asides[number], scope)
            for event in moment.events():
                self.world.do(*event)
            if moment.beat.optional and self.rng.random() > _UNTOLD[self.manner.size]:
                continue
            form = self.pick(moment.beat.forms, moment.scope)
            if form is None:
                if moment.beat.forms and not moment.beat.optional:
                    raise LookupError(f"{self.story.plot.name}: no form fits {moment.beat.forms[0].parts}")
                continue
            if self._paragraph() > limit:
                self.literal("\n\n")
                limit = self.rng.randint(30, 75)
            self.say(form, moment.scope)
            self.literal(" ")
        self._mention(asides[len(self.story.moments)], scope)
        self._end(scope)
        text, words = reword(tidy("".join(self.out)), self.rng), tuple(word for word, _ in self.extras)
        return Telling(self.story, self.manner, text, frozenset(self.voice.met), words)

    def _asides(self) -> defaultdict[int, list[tuple[str, str]]]:
        """Before which moments the extra words are mentioned, each as (bank, word): in the first half, and most nouns once more later."""
        found: defaultdict[int, list[tuple[str, str]]] = defaultdict(list)
        end = len(self.story.moments)
        for word, kind in self.extras:
            first = self.rng.randint(1, max(1, end // 2))
            found[first].append((f"{kind}-comes", word))
            if kind == "noun" and first < end and self.rng.random() < 0.7:
                found[self.rng.randint(first + 1, end)].append(("noun-again", word))
        return found

    def _mention(self, asides: Sequence[tuple[str, str]], scope: Scope) -> None:
        for name, word in asides:
            start, mark = len(self.out), name.partition("-")[0].upper()
            self._nested(bank_forms(name), scope)
            text = "".join(self.out[start:])
            small = article(word)
            text = text.replace(f"a {mark}", small).replace(f"A {mark}", small.capitalize()).replace(mark, word)
            self.out[start:] = [text[:1].upper() + text[1:], " "]

    def _open(self, scope: Scope) -> None:
        opening = self._opening()
        if not (opening and self.manner.style == "fairy"):
            self.frame("open", scope)
        if opening:
            self._nested(bank_forms(opening), scope)
            self.literal(" ")

    def _borrow(self, sentences: Sentences, scope: Scope) -> bool:
        """Begin with a sentence that somebody wrote, and what leads from it to the story. Returns whether one was found."""
        hero = self.story.entities["a"]
        assert isinstance(hero, Character)
        sort = sentences.sorts.get("child" if hero.kind == "child" else hero.noun, ())
        kind, lines = ("named", sentences.named) if self.rng.random() < _OF_HERO else ("free", sentences.free)
        if self.rng.random() < _OF_SORT:
            kind, lines = "sort", sort if sort and self.rng.random() < _OF_THIS_SORT else sentences.unnamed
        line = self.rng.choice(lines)
        if lines is sentences.unnamed:
            line = _BEGINS_WITH_HERO.sub(self.rng.choice(_SORTS), line)
            line = line[0].upper() + line[1:]
        form = read_form(line)
        if not self.fits(form, scope):
            return False
        self.say(form, scope)
        self.literal(" ")
        if kind == "sort" and not self.voice.memory.passer:
            kind = self.rng.choice(("sort", "sort-clear"))
            self.voice.memory.now.append("a")  # "her name" is the hero's: the sentence is about nobody else
        if self.rng.random() < _LED[kind]:
            self._nested(bank_forms(f"after-{kind}"), scope)
            self.literal(" ")
        return True

    def _opening(self) -> str:
        """The bank from which something is said before the first moment; "" for nothing, as in stories told by somebody in them."""
        style = self.manner.style
        if self.manner.narrator:
            return ""
        if self.rng.random() < _ONCE.get(style, 0):
            return "once"
        if self.rng.random() >= _OPENING.get(style, 0):
            return ""
        return "opening-own" if self._owns() and self.rng.random() < _OWNER else self.rng.choice(_OPENINGS)

    def _owns(self) -> bool:
        """Whether the hero has the thing of the plot from the beginning, and does not give it away."""
        thing = self.story.entities.get("t")
        first, *later = (moment.events() for moment in self.story.moments)
        gives = any(event[:3] == ("give", "a", "t") for events in later for event in events)
        return isinstance(thing, Thing) and thing.kind != "envelope" and ("have", "a", "t") in first and not gives

    def _paragraph(self) -> int:
        """The number of words since the last break."""
        return len("".join(self.out).rsplit("\n\n", 1)[-1].split())

    def _end(self, scope: Scope) -> None:
        moral = header_forms(tuple(self.story.plot.forms("moral")))
        if moral and self.manner.style in ("plain", "fairy", "told") and self.rng.random() < 0.2:
            form = self.pick(moral, scope)
            if form is not None:
                self.literal("\n\n" if self.rng.random() < 0.5 else " ")
                self.say(form, scope)
                return
        self.frame("close", scope)

    def frame(self, which: str, scope: Scope) -> None:
        """What the style puts before or after the story."""
        style = self.manner.style
        if style == "plain" or (style not in ("diary", "letter", "told") and self.rng.random() < 0.25):
            return
        form = self.pick(bank_forms(f"{which}-{style}"), scope)
        if form is None:
            return
        breaks = style in ("diary", "letter", "told") or self.rng.random() < 0.4
        if which == "close":
            self.literal("\n\n" if breaks else " ")
        self.say(form, scope)
        if which == "open":
            self.literal("\n\n" if breaks else " ")


def _special(form: Form) -> int:
    return 1 + sum(1 for condition in form.conditions if not condition.startswith(("+", "!")))


def tell(story: Story, manner: Manner, rng: random.Random, extras: Sequence[Extra] = (), sentences: Sentences | None = None) -> Telling:
    """The story in the manner that is asked for. Raises LookupError where a moment cannot be told so."""
    return Teller(story, manner, rng, extras, sentences).tell()


def extras_of(story: Story, rng: random.Random) -> list[Extra]:
    """One to three words that mean nobody and nothing in the story."""
    used = {word for one in story.entities.values() for word in one.noun.split()}
    found: list[Extra] = []
    for _ in range(rng.choice((1, 1, 2, 2, 3))):
        kind = rng.choices(("noun", "adjective", "verb"), (70, 16, 14))[0]
        word = rng.choice(bank(f"{kind}s"))
        if not used & set(word.split()):
            used.update(word.split())
            found.append((word, kind))
    return found


def gist(story: Story, rng: random.Random) -> str:
    """The story in a sentence or two, for a reader who has met nobody."""
    teller = Teller(story, Manner(), rng)
    teller.world = story.after()
    teller.voice.world = teller.world
    return teller.line(header_forms(tuple(story.plot.forms("gist"))))


def brief(story: Story, rng: random.Random) -> Telling:
    """The story in a few sentences: what it is about, and perhaps whom, how it ended, what it teaches, and the frame of a style."""
    style = rng.choices(("plain", "funny", "bedtime", "told"), (70, 10, 10, 10))[0]
    teller = Teller(story, Manner(style, "short"), rng)
    teller.world = teller.voice.world = story.after()
    last, framed = story.moments[-1], style != "plain"
    if framed:
        teller.frame("open", story.scope)
    lines = [(bank_forms("meet"), story.scope)] if rng.random() < 0.4 else []
    lines.append((header_forms(tuple(story.plot.forms("gist"))), story.scope))
    if rng.random() < 0.7:
        lines.append((last.beat.forms, last.scope))
    if rng.random() < 0.4 and not framed:
        lines.append((header_forms(tuple(story.plot.forms("moral"))), story.scope))
    for forms, scope in lines:
        form = teller.pick(forms, scope)
        if form is not None:
            teller.say(form, scope)
            teller.literal(" ")
    if framed:
        teller.frame("close", story.scope)
    return Telling(story, teller.manner, reword(tidy("".join(teller.out)), rng), frozenset(teller.voice.met))


def title(story: Story, rng: random.Random) -> str:
    text = Teller(story, Manner(), rng).line(header_forms(tuple(story.plot.forms("title"))))
    words = text.split()
    last = len(words) - 1
    return " ".join(word if word in _SMALL_WORDS and 0 < n < last else word[:1].upper() + word[1:] for n, word in enumerate(words))


def verse(story: Story, rng: random.Random) -> Telling | None:
    """The story in rhyme, if its plot has a rhyme."""
    forms = header_forms(tuple(line.replace(" // ", "\n\n").replace(" / ", "\n") for line in story.plot.forms("verse")))
    manner = Manner(style="verse", size="short")
    teller = Teller(story, manner, rng)
    form = teller.pick(forms, story.scope)
    if form is None:
        return None
    teller.say(form, story.scope)
    return Telling(story, manner, tidy("".join(teller.out)), frozenset(teller.voice.met))


def tidy(text: str) -> str:
    """Spaces that choices left behind are taken out."""
    text = re.sub(r" +", " ", text)
    text = re.sub(
        rf'([?!]") (He|She|They|We|The|My|His|Her|Our|Their)\b(?=( [A-Za-z-]+){{0,2}} {_SPEECH}\b)',
        lambda match: f"{match[1]} {match[2].lower()}",
        text,
    )
    text = re.sub(r"\bhoofs\b", "hooves", re.sub(r"\bfoots\b", "feet", text))
    text = re.sub(r" ?\n ?", "\n", text)
    return re.sub(r" ([.,;:!?])", r"\1", text).strip()


def named(story: Story, key: str) -> str:
    """What somebody or something is called in an answer."""
    entity = story.entities[key]
    if isinstance(entity, Character):
        return Voice(story.world(), random.Random(0)).name(key)
    return f"the {entity.adjective} {entity.noun}" if isinstance(entity, Thing) else entity.at


def size_of(rng: random.Random) -> tuple[str, float]:
    """A length by chance, and the detail with which to simulate a story that is told at this length."""
    size = rng.choices(SIZES, (42, 36, 22))[0]
    return size, rng.uniform(*_DETAIL[size])


def manner_of(story: Story, rng: random.Random, size: str = "medium") -> Manner:
    """A manner that suits the story, by chance."""
    style = rng.choices(STYLES, (46, 12, 12, 9, 4, 4, 13))[0]
    if style == "fairy" and story.realm == "people":
        style = "plain"
    manner = Manner(style, size)
    tellers = story.plot.words("tellers") or ["a"]
    if tellers == ["none"]:
        return replace(manner, style="plain") if style in FIRST_PERSON else manner
    first = style in FIRST_PERSON or (style == "plain" and rng.random() < 0.15)
    return replace(manner, narrator=rng.choice(tellers)) if first else manner
