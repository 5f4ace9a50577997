"""The state of a story world: who is where, has what, knows what and feels what; an event that cannot happen is refused."""

from collections import defaultdict
from dataclasses import dataclass, field


class ImpossibleError(Exception):
    """An event whose precondition does not hold."""


@dataclass(frozen=True, slots=True)
class Character:
    """Somebody in the story. `named` is False for those who are called "the heron" or "his mother" all along."""

    name: str
    noun: str
    gender: str
    kind: str
    role: str
    trait: str = ""
    named: bool = True
    of: str = ""  # the key of the one to whom `role` relates: whose friend, whose mother
    hand: str = "hand"
    home: str = "house"
    look: str = ""


@dataclass(frozen=True, slots=True)
class Thing:
    noun: str
    adjective: str
    kind: str


@dataclass(frozen=True, slots=True)
class Place:
    noun: str
    at: str
    to: str
    kinds: frozenset[str]
    views: tuple[str, ...] = ()


Entity = Character | Thing | Place


@dataclass(frozen=True, slots=True)
class Event:
    """One event with the keys of those who take part, and where it happened (the place of the first of them)."""

    verb: str
    parts: tuple[str, ...]
    place: str = ""


@dataclass(slots=True)
class World:
    """Everything that is true at one moment, and the events that led to it. Entities are known by their keys."""

    entities: dict[str, Entity]
    where: dict[str, str] = field(default_factory=dict)
    holder: dict[str, str] = field(default_factory=dict)
    owner: dict[str, str] = field(default_factory=dict)
    feels: dict[str, str] = field(default_factory=dict)
    knows: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    states: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    facts: set[str] = field(default_factory=set)
    events: list[Event] = field(default_factory=list)

    def do(self, verb: str, *parts: str) -> None:
        """Let one event happen, or raise ImpossibleError and change nothing."""
        method = getattr(self, f"do_{verb}", None)
        if method is None:
            raise ImpossibleError(f"there is no event {verb!r}")
        place = self.place_of(parts[0]) if parts else ""
        try:
            method(*parts)
        except ImpossibleError as error:
            raise ImpossibleError(f"{verb} {' '.join(parts)}: {error}") from None
        except TypeError as error:
            raise ImpossibleError(f"{verb} {' '.join(parts)}: wrong number of parts: {error}") from None
        self.events.append(Event(verb, parts, place or (self.place_of(parts[0]) if parts else "")))

    def place_of(self, key: str) -> str:
        """Where a character is, or a thing, which is where its holder is."""
        return self.where.get(self.holder.get(key, key), "")

    # What must hold.
    def _is(self, key: str, kind: type[Entity]) -> None:
        _need(isinstance(self.entities.get(key), kind), f"{key} is no {kind.__name__.lower()}")

    def _here(self, who: str) -> str:
        self._is(who, Character)
        _need(who in self.where, f"{who} is nowhere")
        return self.where[who]

    def _together(self, one: str, other: str) -> None:
        _need(self._here(one) == self._here(other), f"{one} and {other} are not in one place")

    def _able(self, who: str, *bars: str) -> None:
        for bar in bars:
            _need(bar not in self.states.get(who, ()), f"{who} is {bar}")

    def _near(self, who: str, what: str) -> None:
        self._is(what, Thing)
        _need("gone" not in self.states.get(what, ()), f"{what} is gone")
        _need(self.place_of(what) == self._here(who), f"{what} is not where {who} is")

    def _holds(self, who: str, what: str) -> None:
        self._is(what, Thing)
        _need(self.holder.get(what) == who, f"{who} has no {what}")

    # Where everybody is.
    def do_at(self, who: str, place: str) -> None:
        self._is(who, Character)
        self._is(place, Place)
        _need(who not in self.where, f"{who} is somewhere already")
        self.where[who] = place

    def do_go(self, who: str, place: str) -> None:
        self._is(place, Place)
        _need(self._here(who) != place, f"{who} is there already")
        self._able(who, "stuck", "asleep", "ill")
        _need("shut" not in self.states.get(place, ()), f"{place} is shut")
        self.where[who] = place

    def do_come(self, who: str, whom: str) -> None:
        """Somebody comes to where another is, from wherever (from outside the story, too)."""
        self._is(who, Character)
        _need(self.where.get(who) != self._here(whom), f"{who} is there already")
        self._able(who, "stuck", "asleep", "ill")
        self.where[who] = self.where[whom]

    def do_leave(self, who: str) -> None:
        self._here(who)
        self._able(who, "stuck", "asleep")
        del self.where[who]

    # Who has what.
    def do_have(self, who: str, what: str) -> None:
        """At the beginning: somebody owns and holds a thing."""
        self._is(what, Thing)
        _need(what not in self.holder and what not in self.where, f"{what} is somewhere already")
        self.holder[what] = self.owner[what] = who

    def do_lies(self, what: str, place: str) -> None:
        """At the beginning: a thing is in a place."""
        self._is(what, Thing)
        self._is(place, Place)
        _need(what not in self.holder and what not in self.where, f"{what} is somewhere already")
        self.where[what] = place

    def do_own(self, who: str, what: str) -> None:
        self._is(what, Thing)
        self.owner[what] = who

    def do_take(self, who: str, what: str) -> None:
        self._near(who, what)
        self._able(who, "asleep", "stuck")
        _need(what not in self.holder, f"{what} is in somebody's hand")
        self.holder[what] = who
        self.where.pop(what, None)

    def do_find(self, who: str, what: str) -> None:
        self.do_take(who, what)
        self.knows[who].add(f"where {what}")

    def do_see(self, who: str, what: str) -> None:
        self._near(who, what)
        self.knows[who].add(f"where {what}")

    def do_make(self, who: str, what: str) -> None:
        self._able(who, "asleep")
        self.do_have(who, what)

    def do_give(self, who: str, what: str, whom: str) -> None:
        self._holds(who, what)
        self._together(who, whom)
        self.holder[what] = whom

    def do_snatch(self, who: str, what: str, whom: str) -> None:
        self._holds(whom, what)
        self._together(who, whom)
        self.holder[what] = who

    def do_put(self, who: str, what: str) -> None:
        self._holds(who, what)
        del self.holder[what]
        self.where[what] = self._here(who)

    def do_lose(self, who: str, what: str, place: str) -> None:
        """A thing leaves somebody's hand and gets to a place, which the loser does not know."""
        self._holds(who, what)
        self._is(place, Place)
        del self.holder[what]
        self.where[what] = place
        self.knows[who].discard(f"where {what}")

    def do_carry(self, what: str, place: str) -> None:
        """Wind, water or an unseen hand takes a thing that lies about to another place."""
        _need(what in self.where, f"{what} does not lie about")
        self._is(place, Place)
        self.where[what] = place

    def do_use(self, who: str, what: str) -> None:
        self._holds(who, what)
        _need("broken" not in self.states.get(what, ()), f"{what} is broken")

    def do_eat(self, who: str, what: str) -> None:
        self._near(who, what)
        _need(self.holder.get(what, who) == who, f"somebody else holds {what}")
        self.holder.pop(what, None)
        self.where.pop(what, None)
        self.states[what].add("gone")

    def do_break(self, what: str) -> None:
        _need(not self.states.get(what, set()) & {"broken", "gone"}, f"{what} is broken or gone")
        self.states[what].add("broken")

    def do_mend(self, who: str, what: str) -> None:
        self._near(who, what)
        _need("broken" in self.states.get(what, ()), f"{what} is whole")
        self.states[what].discard("broken")

    # What they know, feel and are.
    def do_know(self, who: str, fact: str) -> None:
        self._is(who, Character)
        self.knows[who].add(fact)

    def do_knows(self, who: str, fact: str) -> None:
        _need(fact in self.knows.get(who, ()), f"{who} does not know {fact}")

    def do_tell(self, who: str, fact: str, whom: str) -> None:
        self.do_knows(who, fact)
        self._together(who, whom)
        self.knows[whom].add(fact)

    def do_meet(self, who: str, whom: str) -> None:
        self._together(who, whom)
        self._able(who, "asleep")
        self._able(whom, "asleep")

    def do_feel(self, who: str, feeling: str) -> None:
        self._is(who, Character)
        _need(self.feels.get(who) != feeling, f"{who} is {feeling} already")
        self.feels[who] = feeling

    def do_is(self, who: str, state: str) -> None:
        _need(who in self.entities, f"there is no {who}")
        _need(state not in self.states.get(who, ()), f"{who} is {state} already")
        self.states[who].add(state)

    def do_not(self, who: str, state: str) -> None:
        _need(state in self.states.get(who, ()), f"{who} is not {state}")
        self.states[who].discard(state)

    def do_free(self, who: str, whom: str) -> None:
        self._together(who, whom)
        self.do_not(whom, "stuck")

    def do_quarrel(self, one: str, other: str) -> None:
        self._together(one, other)
        self.do_true(f"quarrel {min(one, other)} {max(one, other)}")

    def do_forgive(self, one: str, other: str) -> None:
        self._together(one, other)
        self.do_false(f"quarrel {min(one, other)} {max(one, other)}")

    def do_promise(self, who: str, what: str) -> None:
        self.do_true(f"promise {who} {what}")

    def do_keep(self, who: str, what: str) -> None:
        _need(f"promise {who} {what}" in self.facts, f"{who} never promised {what}")

    def do_true(self, fact: str) -> None:
        _need(fact not in self.facts, f"{fact} holds already")
        self.facts.add(fact)

    def do_false(self, fact: str) -> None:
        _need(fact in self.facts, f"{fact} does not hold")
        self.facts.discard(fact)

    def do_need(self, fact: str) -> None:
        _need(fact in self.facts, f"{fact} does not hold")


def _need(holds: bool, reason: str) -> None:
    if not holds:
        raise ImpossibleError(reason)
