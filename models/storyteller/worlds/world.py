"""The state of a story world: who is where, has what, knows what and feels what; an event that cannot happen is refused."""

from dataclasses import dataclass, field


class ImpossibleError(Exception):
    """An event whose precondition does not hold."""


@dataclass(eq=False, slots=True)
class Character:
    name: str
    noun: str
    gender: str
    kind: str
    trait: str = ""
    named: bool = True
    relation: str = ""
    place: "Place | None" = None
    feeling: str = "calm"
    knows: set[str] = field(default_factory=set)
    state: set[str] = field(default_factory=set)


@dataclass(eq=False, slots=True)
class Thing:
    noun: str
    adjective: str
    holder: Character | None = None
    owner: Character | None = None
    place: "Place | None" = None
    state: set[str] = field(default_factory=set)


@dataclass(eq=False, slots=True)
class Place:
    noun: str
    at: str
    to: str
    the: str
    state: set[str] = field(default_factory=set)


Entity = Character | Thing | Place


@dataclass(frozen=True, slots=True)
class Event:
    verb: str
    parts: tuple[str, ...]


class World:
    """Everything that is true at one moment, and the events that led to it."""

    def __init__(self, entities: dict[str, Entity]) -> None:
        self.entities = entities
        self.facts: set[str] = set()
        self.events: list[Event] = []

    def do(self, source: str) -> None:
        """Let one event happen, written as a verb and letters: `give a t b`."""
        verb, *parts = source.split()
        method = getattr(self, f"do_{verb}", None)
        if method is None:
            raise ImpossibleError(f"nobody knows how to {verb}: {source}")
        try:
            method(*parts)
        except ImpossibleError as error:
            raise ImpossibleError(f"{source}: {error}") from None
        except (TypeError, KeyError) as error:
            raise ImpossibleError(f"{source}: wrong parts: {error}") from None
        self.events.append(Event(verb, tuple(parts)))

    def character(self, letter: str) -> Character:
        entity = self.entities[letter]
        _need(isinstance(entity, Character), f"{letter} is no character")
        assert isinstance(entity, Character)
        return entity

    def thing(self, letter: str) -> Thing:
        entity = self.entities[letter]
        _need(isinstance(entity, Thing), f"{letter} is no thing")
        assert isinstance(entity, Thing)
        return entity

    def place(self, letter: str) -> Place:
        entity = self.entities[letter]
        _need(isinstance(entity, Place), f"{letter} is no place")
        assert isinstance(entity, Place)
        return entity

    def here(self, letter: str) -> Place:
        place = self.character(letter).place
        _need(place is not None, f"{letter} is nowhere")
        assert place is not None
        return place

    def _together(self, one: str, other: str) -> None:
        _need(self.here(one) is self.here(other), f"{one} and {other} are not in one place")

    def _awake(self, letter: str) -> None:
        _need("asleep" not in self.character(letter).state, f"{letter} is asleep")

    # Where characters are.
    def do_at(self, who: str, where: str) -> None:
        self.character(who).place = self.place(where)

    def do_go(self, who: str, where: str) -> None:
        one, place = self.character(who), self.place(where)
        _need(one.place is not place, f"{who} is there already")
        _need(not one.state & {"stuck", "asleep", "ill"}, f"{who} cannot walk")
        _need("shut" not in place.state and (one.place is None or "shut" not in one.place.state), "the way is shut")
        one.place = place

    def do_come(self, who: str, whom: str) -> None:
        one = self.character(who)
        _need(one.place is not self.here(whom), f"{who} is there already")
        _need(not one.state & {"stuck", "asleep", "ill"}, f"{who} cannot walk")
        one.place = self.here(whom)

    def do_leave(self, who: str) -> None:
        self.here(who)
        _need(not self.character(who).state & {"stuck", "asleep"}, f"{who} cannot walk")
        self.character(who).place = None

    def do_shut(self, where: str) -> None:
        _need("shut" not in self.place(where).state, "it is shut already")
        self.place(where).state.add("shut")

    def do_open(self, where: str) -> None:
        _need("shut" in self.place(where).state, "it is not shut")
        self.place(where).state.discard("shut")

    # Who has what.
    def do_have(self, who: str, what: str) -> None:
        thing = self.thing(what)
        _need(thing.holder is None, f"{what} is somebody's already")
        thing.holder = thing.owner = self.character(who)

    def do_lies(self, what: str, where: str) -> None:
        thing = self.thing(what)
        _need(thing.holder is None, f"somebody holds {what}")
        thing.place = self.place(where)

    def do_take(self, who: str, what: str) -> None:
        thing = self.thing(what)
        self._awake(who)
        _need(thing.holder is None, f"somebody holds {what}")
        _need("gone" not in thing.state and thing.place is self.here(who), f"{what} is not here")
        thing.holder, thing.place = self.character(who), None

    def do_find(self, who: str, what: str) -> None:
        self.do_take(who, what)
        self.character(who).knows.add(f"where {what}")

    def do_see(self, who: str, what: str) -> None:
        thing = self.thing(what)
        place = thing.place if thing.holder is None else thing.holder.place
        _need(place is self.here(who), f"{what} is not here")
        self.character(who).knows.add(f"where {what}")

    def do_make(self, who: str, what: str) -> None:
        self._awake(who)
        thing = self.thing(what)
        _need(thing.holder is None and thing.place is None, f"{what} is made already")
        thing.holder = thing.owner = self.character(who)

    def do_give(self, who: str, what: str, whom: str) -> None:
        thing = self.thing(what)
        _need(thing.holder is self.character(who), f"{who} has no {what}")
        self._together(who, whom)
        thing.holder = self.character(whom)

    def do_snatch(self, who: str, what: str, whom: str) -> None:
        thing = self.thing(what)
        _need(thing.holder is self.character(whom), f"{whom} has no {what}")
        self._together(who, whom)
        thing.holder = self.character(who)

    def do_own(self, who: str, what: str) -> None:
        self.thing(what).owner = self.character(who)

    def do_put(self, who: str, what: str) -> None:
        thing = self.thing(what)
        _need(thing.holder is self.character(who), f"{who} has no {what}")
        thing.holder, thing.place = None, self.here(who)

    def do_lose(self, who: str, what: str, where: str) -> None:
        thing = self.thing(what)
        _need(thing.holder is self.character(who), f"{who} has no {what}")
        thing.holder, thing.place = None, self.place(where)
        self.character(who).knows.discard(f"where {what}")

    def do_carry(self, what: str, where: str) -> None:
        thing = self.thing(what)
        _need(thing.holder is None and "gone" not in thing.state, f"{what} cannot be carried off")
        thing.place = self.place(where)

    def do_eat(self, who: str, what: str) -> None:
        thing = self.thing(what)
        _need(thing.holder is self.character(who), f"{who} has no {what}")
        thing.holder = None
        thing.state.add("gone")

    def do_break(self, what: str) -> None:
        _need(not self.thing(what).state & {"broken", "gone"}, f"{what} is broken or gone")
        self.thing(what).state.add("broken")

    def do_mend(self, who: str, what: str) -> None:
        thing = self.thing(what)
        _need("broken" in thing.state, f"{what} is whole")
        place = thing.place if thing.holder is None else thing.holder.place
        _need(place is self.here(who), f"{what} is not here")
        thing.state.discard("broken")

    def do_use(self, who: str, what: str) -> None:
        thing = self.thing(what)
        _need(thing.holder is self.character(who), f"{who} has no {what}")
        _need("broken" not in thing.state, f"{what} is broken")

    # What characters know, feel and are.
    def do_know(self, who: str, fact: str) -> None:
        self.character(who).knows.add(fact)

    def do_tell(self, who: str, fact: str, whom: str) -> None:
        _need(fact in self.character(who).knows, f"{who} does not know {fact}")
        self._together(who, whom)
        self.character(whom).knows.add(fact)

    def do_knows(self, who: str, fact: str) -> None:
        _need(fact in self.character(who).knows, f"{who} does not know {fact}")

    def do_meet(self, who: str, whom: str) -> None:
        self._together(who, whom)
        self._awake(who)
        self._awake(whom)

    def do_feel(self, who: str, feeling: str) -> None:
        _need(self.character(who).feeling != feeling, f"{who} is {feeling} already")
        self.character(who).feeling = feeling

    def do_is(self, who: str, state: str) -> None:
        _need(state not in self.character(who).state, f"{who} is {state} already")
        self.character(who).state.add(state)

    def do_not(self, who: str, state: str) -> None:
        _need(state in self.character(who).state, f"{who} is not {state}")
        self.character(who).state.discard(state)

    def do_free(self, who: str, whom: str) -> None:
        self._together(who, whom)
        self.do_not(whom, "stuck")

    def do_quarrel(self, one: str, other: str) -> None:
        self._together(one, other)
        self._fact(f"quarrel {min(one, other)} {max(one, other)}", holds=False)

    def do_forgive(self, one: str, other: str) -> None:
        self._together(one, other)
        self._fact(f"quarrel {min(one, other)} {max(one, other)}", holds=True)

    def do_promise(self, who: str, what: str) -> None:
        self._fact(f"promise {who} {what}", holds=False)

    def do_keep(self, who: str, what: str) -> None:
        _need(f"promise {who} {what}" in self.facts, f"{who} never promised {what}")

    def do_true(self, fact: str) -> None:
        self._fact(fact, holds=False)

    def do_false(self, fact: str) -> None:
        self._fact(fact, holds=True)

    def do_need(self, fact: str) -> None:
        _need(fact in self.facts, f"{fact} does not hold")

    def _fact(self, fact: str, *, holds: bool) -> None:
        """Turn a fact over that must hold before, or must not."""
        _need((fact in self.facts) == holds, f"{fact} {'does not hold' if holds else 'holds already'}")
        if holds:
            self.facts.discard(fact)
        else:
            self.facts.add(fact)


def _need(holds: bool, reason: str) -> None:
    if not holds:
        raise ImpossibleError(reason)
