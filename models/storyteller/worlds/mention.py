"""How those in a story are called: by a name, by a noun, or by a pronoun where exactly one candidate fits."""

import random
import re
from dataclasses import dataclass, field
from functools import cache
from itertools import chain

from .book import bank
from .world import Character, Entity, Place, Thing, World

_PRONOUNS = {
    "she": {"": "she", "him": "her", "'s": "her", "hers": "hers", "self": "herself"},
    "he": {"": "he", "him": "him", "'s": "his", "hers": "his", "self": "himself"},
    "it": {"": "it", "him": "it", "'s": "its", "hers": "its", "self": "itself"},
    "we": {"": "we", "him": "us", "'s": "our", "hers": "ours", "self": "ourselves"},
    "they": {"": "they", "him": "them", "'s": "their", "hers": "theirs", "self": "themselves"},
    "I": {"": "I", "him": "me", "'s": "my", "hers": "mine", "self": "myself"},
}
_RELATIVES = ("parent", "grandparent", "aunt")
_SAME = {"himself": "self", "she": ""}
_CLAUSE = r"(?:^|(?<=[.!?;,:] ))(?:and |but |then |only |even |so |just then |on |in |behind |there (?:was|came|stood|sat) )?"


def article(noun: str) -> str:
    """The noun with "a" or "an"."""
    vowel = noun[0].lower() in "aeiou" and not noun.lower().startswith(("one-", "one ", "uni", "use", "eu"))
    return f"{'an' if vowel or noun.lower().startswith(('hour', 'honest')) else 'a'} {noun}"


@cache
def _passers() -> re.Pattern[str]:
    """Finds a man or beast at the beginning of a clause."""
    return re.compile(rf"{_CLAUSE}(?:an?|the|one|another|every) (?:[a-z]+ )?(?:{'|'.join(bank('passers'))})\b(?!')", re.IGNORECASE)


@cache
def _gendered() -> frozenset[str]:
    """Nouns that say whether somebody is a he or a she."""
    banks = ("jobs", "tale-jobs", "tale-heroes", "people-strangers", "tale-strangers")
    return frozenset({"girl", "boy"} | {word.partition("=")[0] for name in banks for word in bank(name) if "=" in word})


@dataclass(slots=True)
class Memory:
    """Whom and what the reader has just heard of: in this sentence, in the one before, and in what is being said."""

    now: list[str] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    older: list[list[str]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    quoted: bool = False
    start: bool = True
    broken: bool = False  # what is being said goes on after "said Tom,"
    passer: bool = False  # somebody who is nobody in the story was the subject since the last character was named

    def read(self, text: str) -> None:
        """Follow literal text: where sentences and quotations begin and end, and who passes by in it ("only a cow looked up")."""
        if not self.quoted and _passers().search(re.sub(r'"[^"]*"', "", text)):
            self.passer = True
        for at, char in enumerate(text):
            if char == '"':
                self.quoted = not self.quoted
                self.said = []
                if self.quoted:
                    self.start = not self.broken
                    continue
                self.broken = text[:at].endswith(",")
                if self.start and not text[at + 1 : at + 3].strip().islower():
                    self._end()
            elif char in ".!?":
                self.start = True
                if not self.quoted:
                    self.broken = False
                    self._end()
            elif char == "\n":
                self.start = True
                self.older, self.before, self.now = [self.before, self.now], [], []
            elif not char.isspace() and char not in "'()-":
                self.start = False

    def _end(self) -> None:
        """A sentence has ended."""
        if self.now:
            self.older = [*self.older[-2:], self.before]
            self.before, self.now = self.now, []


class Voice:
    """Writes the references of one telling. `narrator` is the key of the one who says "I", if there is one."""

    def __init__(self, world: World, rng: random.Random, narrator: str = "") -> None:
        self.world = world
        self.rng = rng
        self.narrator = narrator
        self.memory = Memory()
        self.met: set[str] = set()
        self.views: set[str] = set()
        self.sorts: set[str] = set()  # of whom the reader knows what they are: a mole, a princess
        self.shown: set[str] = set()  # of whom the reader knows whether they are a he or a she
        self.objective = False

    def write(self, keys: tuple[str, ...], form: str, word_before: str = "") -> str:
        """The text for one reference, after a word that may ask for an object; the memory takes it in."""
        self.objective = word_before in bank("before-object")
        if self.objective and not form and not isinstance(self._entity(keys[0]), Thing | Place):
            form = "him"
        text = self._group(keys, form) if len(keys) > 1 else self._single(keys[0], form)
        capital = self.memory.start
        self.memory.start = False
        return text[:1].upper() + text[1:] if capital else text

    def _entity(self, key: str) -> Entity:
        return self.world.entities[key]

    def _note(self, key: str) -> None:
        (self.memory.said if self.memory.quoted else self.memory.now).append(key)

    def _single(self, key: str, form: str) -> str:
        entity = self._entity(key)
        if isinstance(entity, Place):
            return self._place(key, entity, form)
        if isinstance(entity, Thing):
            text = self._thing(key, entity, form)
        else:
            text = self._character(key, entity, form)
        if not self.memory.quoted:
            self.met.add(key)
            if isinstance(entity, Character):
                self.memory.passer = False
        self._note(key)
        return text

    # Characters.
    def _character(self, key: str, one: Character, form: str) -> str:
        if form in ("noun", "trait", "hand", "home"):
            return str(getattr(one, form))
        me = key == self.narrator and not self.memory.quoted
        if form in ("she", "himself"):
            self.shown.add(key)
            return _PRONOUNS["I" if me else one.gender][_SAME[form]]
        if form == "intro" and key in self.met:
            told = key in self.sorts or not one.named or one.kind == "child"
            self._say_sort(key, one)
            return self.name(key) + ("" if told else f" the {one.noun}")
        if form in ("intro", "a", "the"):
            self._say_sort(key, one)
        if form == "intro":
            return f"{article(f'{one.trait} {one.noun}'.strip())} named {one.name}"
        if form == "a":
            return article(f"{one.trait} {one.noun}".strip())
        if form == "the":
            return f"the {one.noun}"
        if me and form in ("name", "who"):
            form = "him" if self.objective else ""
        if form == "full":
            return self._full(key, one, "")
        if form == "who" and one.kind == "child" and key not in self.met and one.role in ("friend", "sibling"):
            return self._first(key, one)
        if form == "who" and key in self.met and key in self.sorts:
            return self.name(key)
        if form == "who" and one.noun != one.role:
            self._say_sort(key, one)
            return self.name(key) + (f" the {one.noun}" if one.named and one.kind != "child" else "")
        if form == "name" and one.role in _RELATIVES and not self.memory.quoted:
            return f"{self._possessor(key, one.of)} {one.noun}"
        if form in ("name", "call", "sign"):
            return self.name(key, form)
        if me:
            return _PRONOUNS["I"][form]
        if form == "self" or self.clear(key):
            self.shown.add(key)
            return _PRONOUNS[one.gender][form]
        text = self._full(key, one, form)
        return text if form not in ("'s", "hers") else text + ("'" if text.endswith("s") and not one.named else "'s")

    def _say_sort(self, key: str, one: Character) -> None:
        """The reader is told what somebody is; for a few that says whether it is a he or a she."""
        self.sorts.add(key)
        if one.noun in _gendered():
            self.shown.add(key)

    def name(self, key: str, form: str = "name") -> str:
        """What a character is called by everybody (`call`: what others call out to them)."""
        one = self._entity(key)
        assert isinstance(one, Character)
        if one.named:
            return one.name
        if form == "call":
            names = {"grandmother": "Grandma", "grandfather": "Grandpa", "mother": "Mama", "father": "Papa"}
            return names.get(one.noun, one.noun.capitalize())
        return f"{self.name(one.of)}'s {one.noun}" if one.of and one.role != "stranger" else f"the {one.noun}"

    def _full(self, key: str, one: Character, form: str) -> str:
        """A name or a noun; at the first mention with what the reader must know."""
        first = key not in self.met and not self.memory.quoted
        if not one.named:
            if one.role in _RELATIVES or one.noun in _gendered():
                self.shown.add(key)
            if one.role in _RELATIVES:
                if self.memory.quoted:
                    return self.name(key)
                return f"{self._possessor(key, one.of)} {one.noun}"
            return article(one.noun) if first else f"the {one.noun}"
        if first and (form not in ("'s", "hers") or one.role in ("friend", "sibling")):
            return self._first(key, one)
        alone = sum(1 for other in self.world.entities.values() if isinstance(other, Character) and other.noun == one.noun) == 1
        told = key in self.sorts or (one.kind == "child" and key in self.shown)
        if alone and told and not self.memory.quoted and not self.narrator and one.role in ("hero", "friend", "rival") and not first:
            return f"the {one.noun}" if self.rng.random() < 0.12 else one.name
        if key not in self.sorts and one.kind in ("animal", "fairy") and form in ("", "him") and not self.memory.quoted:
            self._say_sort(key, one)  # only the name was said until now
            return f"{one.name} the {one.noun}"
        return one.name

    def _possessor(self, key: str, whose: str) -> str:
        """Whose mother it is; the reader's mind is on the mother then, and still knows whose she is in the next sentence."""
        teller = self.world.entities.get(self.narrator)
        if isinstance(teller, Character) and teller.role == "sibling" and teller.of == whose:
            return "our"
        memory = self.memory
        now, heard = list(memory.now), [*memory.now, *memory.before]
        if whose != self.narrator and whose in heard and any(self._siblings(whose, other) for other in heard):
            return "their"
        others = [other for other in heard if other != key]
        if whose != self.narrator and key in heard and not self._others(whose, others, self._gender(whose)):
            self.shown.add(whose)
            return _PRONOUNS[self._gender(whose)]["'s"]
        text = self._single(whose, "'s")
        memory.now = now
        return text

    def _siblings(self, key: str, other: str) -> bool:
        """Whether one of the two is the brother or sister of the other."""
        pairs = ((self._entity(key), other), (self._entity(other), key))
        return any(isinstance(who, Character) and who.role == "sibling" and who.of == of for who, of in pairs)

    def _first(self, key: str, one: Character) -> str:
        if one.role == "sibling":
            self.shown.add(key)
        sort = one.noun if one.kind != "child" else ""
        if self.narrator and self._entity(self.narrator) is not one:
            teller = self._entity(self.narrator)
            assert isinstance(teller, Character)
            if teller.of == key and teller.role in ("friend", "sibling"):
                word = "friend" if teller.role == "friend" else "sister" if one.gender == "she" else "brother"
                tail = f" the {sort}" if sort and word == "friend" else ""
                self._say_sort(key, one)
                return f"my {word} {one.name}{tail}"
        if one.role in ("friend", "sibling"):
            word = "friend" if one.role == "friend" else "sister" if one.gender == "she" else "brother"
            whose = self._single(one.of, "'s")
            tail = f" the {sort}" if sort and one.role == "friend" else ""
            if tail or one.role == "sibling":
                self._say_sort(key, one)
            return f"{whose} {word} {one.name}{tail}"
        if one.role == "teacher" and one.kind == "adult" and one.noun == "teacher":
            return one.name  # what they are, the story says
        self._say_sort(key, one)
        if one.role in ("elder", "teacher"):
            return f"{one.name} the {one.noun}" if one.name.startswith(("Mr", "Miss ")) else f"old {one.name} the {one.noun}"
        adjective = one.trait if one.role == "hero" else ""
        return f"{article(f'{adjective} {one.noun}'.strip())} named {one.name}"

    def clear(self, key: str) -> bool:
        """Whether a pronoun can mean this character alone."""
        memory = self.memory
        gender = self._gender(key)
        if memory.quoted:
            return key in memory.said and not self._others(key, memory.said, gender)
        if memory.passer or not self._told_apart(key):
            return False
        if self._others(key, memory.now, gender):
            return False
        if key in memory.now:
            return True
        return key in memory.before and not self._others(key, memory.before, gender) and self.rng.random() < 0.92

    def _told_apart(self, key: str) -> bool:
        """Whether the reader can tell by "he" or "she" who is meant: not of a mole and a swan of whom only the names are known."""
        now = self.memory.now
        heard = {key, *now, *(() if key in now else self.memory.before)} - {self.narrator}
        unknown = {one for one in heard if one not in self.shown and self._gender(one) != "it"}
        return not unknown or heard == {key} or (unknown == {key} and len(heard) > 1) or key in self.shown

    def _gender(self, key: str) -> str:
        entity = self._entity(key)
        return entity.gender if isinstance(entity, Character) else "it"

    def _others(self, key: str, keys: list[str], gender: str) -> bool:
        return any(other != key and other != self.narrator and self._gender(other) == gender for other in keys)

    # Things and places.
    def _thing(self, key: str, thing: Thing, form: str) -> str:
        full = f"{thing.adjective} {thing.noun}"
        recent = self.memory.said if self.memory.quoted else self.memory.now or self.memory.before
        things = [other for other in recent if self._gender(other) == "it"]
        if form == "~":
            if things and set(things) == {key}:
                return "it"
            form = ""
        if form:
            return {"noun": thing.noun, "adj": thing.adjective, "full": full, "a": article(full), "the": f"the {thing.noun}"}[form]
        if key in self.met or self.memory.quoted:
            return f"the {full if self.rng.random() < 0.15 else thing.noun}"
        owner = self.world.owner.get(key)
        known = owner is not None and (
            owner == self.narrator or (owner in self.met and (owner not in self.memory.now or self.clear(owner)))
        )
        return self._single(owner, "'s") + f" {full}" if known and owner else article(full)

    def _place(self, key: str, place: Place, form: str) -> str:
        if form == "view":
            left = [view for view in place.views if view not in self.views]
            view = self.rng.choice(left) if left else ""
            self.views.add(view)
            return view
        self.met.add(key)
        return {"at": place.at, "to": place.to, "noun": place.noun}.get(form, f"the {place.noun}")

    # Several at once.
    def _group(self, keys: tuple[str, ...], form: str) -> str:
        memory = self.memory
        recent = memory.said if memory.quoted else [*memory.now, *memory.before, *chain(*memory.older)]
        both = all(key in recent or (key == self.narrator and not memory.quoted) for key in keys)
        crowd = len({key for key in recent if key not in keys and isinstance(self._entity(key), Character)}) > 1
        mine = self.narrator in keys and not memory.quoted
        if both and not crowd and all(key in self.met or key == self.narrator for key in keys):
            for key in keys:
                self._note(key)
            return _PRONOUNS["we" if mine else "they"][form]
        others = [key for key in keys if key != self.narrator or memory.quoted]
        names: list[str] = []
        for key in others:
            one = self._entity(key)
            assert isinstance(one, Character)
            if not names and form != "'s" and key in memory.now and not memory.quoted and self.clear(key):
                self.shown.add(key)
                names.append(_PRONOUNS[one.gender][form])
            else:
                names.append(self._full(key, one, "" if form != "'s" else "him"))
            self._note(key)
            if not memory.quoted:
                self.met.add(key)
        if mine:
            self._note(self.narrator)
            if form == "'s":
                return "our"
            names.append("me" if form == "him" else "I")
        text = ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else names[0]
        return text + "'s" if form == "'s" else text
