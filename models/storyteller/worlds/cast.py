"""The choice of characters, things and places for one story: from one realm, so that they fit together."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache

from .book import bank, bank_names
from .world import Character, Entity, Place, Thing

REALMS = ("people", "animals", "tale")
HABITATS = ("forest", "farm", "river", "plain", "ice")
NARRATORS = {"hero", "friend", "sibling"}  # those who can tell the story as "I"


@dataclass(frozen=True, slots=True)
class Animal:
    noun: str
    hand: str
    home: str
    habitats: frozenset[str]
    look: str


@cache
def animals() -> dict[str, Animal]:
    found = {}
    for line in bank("animals"):
        noun, hand, home, habitats, look = (part.strip() for part in line.split("|"))
        found[noun] = Animal(noun, hand, home, frozenset(habitats.split()), look)
    return found


@cache
def things(kind: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The nouns of one kind, each with the adjectives that fit it."""
    rows = (line.split("|") for line in bank(kind))
    return tuple((noun.strip(), tuple(adjective.strip() for adjective in rest.split(","))) for noun, rest in rows)


@cache
def places() -> tuple[Place, ...]:
    found: list[Place] = []
    for line in bank("places"):
        if line.startswith("~"):
            last = found.pop()
            found.append(Place(last.noun, last.at, last.to, last.kinds, (*last.views, line[1:].strip())))
        else:
            noun, at, to, kinds = (part.strip() for part in line.split("|"))
            found.append(Place(noun, at, to, frozenset(kinds.split())))
    return tuple(found)


@dataclass(slots=True)
class Cast:
    """Who and what is in the story so far; `add` chooses one more. Raises LookupError where nothing is left that fits."""

    realm: str
    habitat: str
    rng: random.Random
    entities: dict[str, Entity] = field(default_factory=dict)

    def add(self, key: str, role: str, of: str = "") -> None:
        maker = _ROLES.get(role)
        if maker is not None:
            self.entities[key] = maker(self, role, of)
        elif role == "home":
            self.entities[key] = Place("house" if not of else self._character(of).home, "at home", "home", frozenset({"home"}))
        elif role in _NOWHERE:
            self.entities[key] = Place(role, *_NOWHERE[role], frozenset({role}))
        elif set(role.split("|")) <= bank_names("things"):
            self.entities[key] = self._thing(role.split("|"))
        else:
            self.entities[key] = self._place(frozenset(role.split("+")))

    def _character(self, key: str) -> Character:
        entity = self.entities[key]
        assert isinstance(entity, Character), key
        return entity

    def _all(self, kind: type[Character]) -> list[Character]:
        return [entity for entity in self.entities.values() if isinstance(entity, kind)]

    def _fresh(self, words: Iterable[str]) -> str:
        """One of the words that names nobody and nothing in the story."""
        used = {word for entity in self.entities.values() for word in (entity.noun, getattr(entity, "name", ""))}
        used_words = {part for word in used for part in word.split()}
        return self.rng.choice([word for word in words if not used_words & set(word.split("=")[0].split()) - {"the", "of", "with"}])

    def _noun(self, name: str) -> tuple[str, str]:
        """A noun from a bank, and the gender: the one that goes with it, or one that few in the story have."""
        noun, _, gender = self._fresh(bank(name)).partition("=")
        return noun, gender or self.gender()

    def gender(self) -> str:
        """Mostly the gender that fewer have, so that a pronoun is clear."""
        count = sum(1 if one.gender == "she" else -1 for one in self._all(Character))
        if count == 0 or self.rng.random() < 0.1:
            return self.rng.choice(("she", "he"))
        return "he" if count > 0 else "she"

    def name(self, prefix: str, gender: str) -> str:
        return self._fresh(bank(f"{prefix}{'girls' if gender == 'she' else 'boys'}"))

    def animal(self) -> Animal:
        noun = self._fresh(noun for noun, animal in animals().items() if self.habitat in animal.habitats)
        return animals()[noun]

    def _thing(self, kinds: list[str]) -> Thing:
        kind = self.rng.choice(kinds)
        noun = self._fresh(noun for noun, _ in things(kind))
        return Thing(noun, self.rng.choice(dict(things(kind))[noun]), kind)

    def _place(self, kinds: frozenset[str]) -> Place:
        realm = self.habitat if self.realm == "animals" else self.realm
        fitting = {place.noun: place for place in places() if kinds | {realm} <= place.kinds}
        return fitting[self._fresh(fitting)]


def _peer(cast: Cast, role: str, of: str) -> Character:
    """A hero, friend or rival: a child, a young animal, or somebody out of a fairy tale."""
    gender, trait, look = cast.gender(), cast.rng.choice(bank("traits")), cast.rng.choice(bank("looks"))
    if cast.realm == "people":
        return Character(cast.name("", gender), "girl" if gender == "she" else "boy", gender, "child", role, trait, of=of, look=look)
    if cast.realm == "animals" or (role == "friend" and cast.rng.random() < 0.4):
        one = cast.animal()
        name = cast.name("animal-", gender)
        return Character(name, one.noun, gender, "animal", role, trait, of=of, hand=one.hand, home=one.home, look=one.look)
    noun, gender = cast._noun("tale-heroes")
    hand = "claw" if noun == "dragon" else "hand"
    return Character(cast.name("tale-", gender), noun, gender, "fairy", role, trait, of=of, hand=hand, look=look)


def _elder(cast: Cast, role: str, of: str) -> Character:
    if cast.realm == "animals":
        one, gender = cast.animal(), cast.gender()
        return Character(cast.name("animal-", gender), one.noun, gender, "adult", role, of=of, hand=one.hand, home=one.home)
    if role == "teacher":
        noun, gender = "teacher", cast.gender()
    else:
        noun, gender = cast._noun("jobs" if cast.realm == "people" else "tale-jobs")
    if cast.realm == "people":
        name = cast._fresh(bank("old-women" if gender == "she" else "old-men"))
        return Character(name, noun, gender, "adult", role, of=of)
    return Character(noun, noun, gender, "adult", role, named=False, of=of)


def _sibling(cast: Cast, role: str, of: str) -> Character:
    whose = cast._character(of)
    gender = whose.gender if whose.kind == "fairy" else cast.gender()  # the brother of a princess is no princess
    prefix = {"child": "", "animal": "animal-", "fairy": "tale-"}[whose.kind]
    noun = whose.noun if whose.kind != "child" else "girl" if gender == "she" else "boy"
    trait = cast.rng.choice(bank("traits"))
    return Character(cast.name(prefix, gender), noun, gender, whose.kind, role, trait, of=of, hand=whose.hand, home=whose.home)


def _parent(cast: Cast, role: str, of: str) -> Character:
    whose, gender = cast._character(of), cast.gender()
    words = {"parent": ("mother", "father"), "grandparent": ("grandmother", "grandfather"), "aunt": ("aunt", "uncle")}
    noun = words[role][gender == "he"]
    return Character(noun, noun, gender, "adult", role, named=False, of=of, hand=whose.hand, home=whose.home)


def _stranger(cast: Cast, role: str, of: str) -> Character:
    """One without a name: a stranger on the way, a little one that needs help, or an animal that cannot talk."""
    if role == "pet":
        noun = cast._fresh(bank("animal-pets" if cast.realm == "animals" else "pets"))
        return Character(noun, noun, "it", "animal", role, named=False, of=of)
    if cast.realm == "animals":
        name = {"stranger": "strangers", "little": "littles"}[role]
    else:
        name = {"stranger": f"{cast.realm}-strangers", "little": "tale-littles"}[role]
    if role == "little" and cast.realm == "people":
        gender = cast.gender()
        return Character(cast._fresh(bank("little-names")), "little girl" if gender == "she" else "little boy", gender, "child", role)
    noun, gender = cast._noun(name)
    return Character(noun, noun, gender, "animal" if cast.realm == "animals" else "adult", role, named=False, of=of)


_ROLES: dict[str, Callable[[Cast, str, str], Character]] = {
    "hero": _peer,
    "friend": _peer,
    "rival": _peer,
    "elder": _elder,
    "teacher": _elder,
    "sibling": _sibling,
    "parent": _parent,
    "grandparent": _parent,
    "aunt": _parent,
    "stranger": _stranger,
    "little": _stranger,
    "pet": _stranger,
    "dragon": lambda _cast, role, _of: Character("dragon", "dragon", "it", "fairy", role, named=False, hand="claw", home="cave"),
}
_NOWHERE = {
    "school": ("at school", "to school"),
    "kitchen": ("in the kitchen", "into the kitchen"),
    "bridge": ("on the bridge", "to the bridge"),
    "pit": ("down in the hole", "down the hole"),
    "away": ("far away", "away"),
    "sky": ("up in the sky", "into the sky"),
    "bed": ("in bed", "to bed"),
    "stage": ("on the stage", "up on the stage"),
    "boat": ("in the boat", "into the boat"),
    "door": ("at the door", "to the door"),
}  # places that are in no list, since any story can have them
