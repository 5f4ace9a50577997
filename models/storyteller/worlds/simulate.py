"""What happens: a plot is cast and played through, event by event, before anybody tells it."""

import random
from dataclasses import dataclass, field

from .book import Beat, Branch, Call, Node, Section, family
from .cast import HABITATS, REALMS, Cast
from .world import Entity, World

Scope = dict[str, str]  # the letters of a section, and the keys of those whom they mean in this story


@dataclass(frozen=True, slots=True)
class Moment:
    beat: Beat
    scope: Scope

    def events(self) -> list[tuple[str, ...]]:
        """The events of the beat with keys for letters."""
        return [(verb, *(self.scope.get(part, part) for part in parts)) for verb, *parts in self.beat.events]


@dataclass(slots=True)
class Story:
    """A cast and the moments that follow from each other; it can be told in many ways."""

    plot: Section
    realm: str
    habitat: str
    entities: dict[str, Entity]
    scope: Scope
    moments: list[Moment] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)  # the names of the sections that were played in it
    tales: tuple[str, ...] = ()  # the plots that somebody in it may tell of (none named: all)

    def world(self) -> World:
        """The world at the beginning."""
        return World(self.entities)

    def after(self) -> World:
        """The world at the end, with every event."""
        world = self.world()
        for moment in self.moments:
            for event in moment.events():
                world.do(*event)
        return world


class _Player:
    def __init__(self, plot: Section, cast: Cast, rng: random.Random, detail: float) -> None:
        self.cast = cast
        self.rng = rng
        self.detail = detail
        self.count = 0
        self.story = Story(plot, cast.realm, cast.habitat, cast.entities, {})
        self.world = self.story.world()
        self.story.scope = self._enter(plot, {})
        self._play(plot.nodes, self.story.scope)

    def _enter(self, section: Section, scope: Scope) -> Scope:
        """Cast those letters of a section that do not stand for somebody already."""
        scope = dict(scope)
        for entry in " ".join(section.forms("cast")).split(";"):
            if not entry.strip():
                continue
            letter, role, *of = entry.split()
            key = letter if letter not in self.cast.entities else f"{letter}{self.count}"
            self.cast.add(key, role, scope[of[0]] if of else "")
            scope[letter] = key
        self.count += 1
        self.story.parts.append(section.name)
        return scope

    def _play(self, nodes: tuple[Node, ...], scope: Scope) -> None:
        for node in nodes:
            if isinstance(node, Beat):
                moment = Moment(node, scope)
                for event in moment.events():
                    self.world.do(*event)
                self.story.moments.append(moment)
            elif isinstance(node, Branch):
                span = node.most - node.least + 1
                number = node.least + min(int(span * self.rng.random() ** (1.6 - self.detail)), span - 1)
                order = self.rng.sample(range(len(node.roads)), number)
                for road in sorted(order) if node.ordered else order:
                    self._play(node.roads[road], scope)
            else:
                self._call(node, scope)

    def _call(self, call: Call, scope: Scope) -> None:
        if call.optional and self.rng.random() > self.detail:
            return
        fitting = [section for section in family(call.name) if self._fits(section)]
        if not fitting:
            if call.optional:
                return
            raise LookupError(f"no {call.name} fits the realm {self.cast.realm}")
        section = self.rng.choice(fitting)
        given = dict(zip(section.words("takes"), (scope[letter] for letter in call.letters), strict=True))
        self._play(section.nodes, self._enter(section, given))

    def _fits(self, section: Section) -> bool:
        if section.name in self.story.parts:
            return False
        realms = section.words("realm")
        return not realms or self.cast.realm in realms or self.cast.habitat in realms


def simulate(plot: Section, rng: random.Random, detail: float = 0.5) -> Story:
    """Cast a plot and play it through. `detail` (0 to 1) says how many optional episodes happen. Raises ImpossibleError."""
    for _ in range(8):
        realm = rng.choice([realm for realm in plot.words("realm") if realm in REALMS] or REALMS)
        habitats = [habitat for habitat in plot.words("realm") if habitat in HABITATS] or HABITATS[:4]  # the ice only where asked for
        cast = Cast(realm, rng.choice(habitats if realm == "animals" else HABITATS[:2]), rng)
        try:
            return _Player(plot, cast, rng, detail).story
        except LookupError:  # a habitat that lacks such a place
            continue
    raise LookupError(f"{plot.name} cannot be cast")
