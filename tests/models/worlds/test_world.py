"""The state of a story world refuses what cannot happen."""

import pytest

from models.storyteller.worlds.world import Character, Entity, ImpossibleError, Place, Thing, World

ENTITIES: dict[str, Entity] = {
    "a": Character("Tom", "boy", "he", "child", "hero"),
    "b": Character("Mia", "girl", "she", "child", "friend", of="a"),
    "t": Thing("kite", "red", "toy"),
    "p": Place("pond", "by the pond", "to the pond", frozenset({"outdoor"})),
    "q": Place("hill", "on the hill", "up the hill", frozenset({"outdoor"})),
}


def played(events: str) -> World:
    world = World(dict(ENTITIES))
    for event in filter(None, events.split(";")):
        world.do(*event.split())
    return world


@pytest.mark.parametrize(
    ("before", "event", "reason"),
    [
        ("", "go a p", "a is nowhere"),
        ("at a p", "go a p", "there already"),
        ("at a p;is a stuck", "go a q", "a is stuck"),
        ("at a p;at b q;have a t", "give a t b", "not in one place"),
        ("at a p;at b p;have b t", "give a t b", "a has no t"),
        ("at a p;lies t q", "find a t", "not where a is"),
        ("at a p;at b p;have b t", "take a t", "in somebody's hand"),
        ("at a p;have a t;break t", "use a t", "broken"),
        ("at a p;have a t", "mend a t", "whole"),
        ("at a p;have a t;eat a t", "see a t", "gone"),
        ("at a p;at b p", "tell a secret b", "does not know secret"),
        ("at a p;at b p", "forgive a b", "does not hold"),
        ("at a p", "keep a word", "never promised"),
        ("feel a sad", "feel a sad", "sad already"),
        ("at a p;at b q;is b stuck", "free a b", "not in one place"),
        ("", "fly a p", "no event 'fly'"),
        ("at a p", "go a", "wrong number of parts"),
        ("", "at t p", "no character"),
    ],
)
def test_what_cannot_happen_is_refused_and_changes_nothing(before: str, event: str, reason: str) -> None:
    world, same = played(before), played(before)
    with pytest.raises(ImpossibleError, match=reason):
        world.do(*event.split())
    assert world == same


def test_a_thing_goes_where_its_holder_goes_and_stays_where_it_is_lost() -> None:
    world = played("at a p;have a t;go a q")
    assert world.place_of("t") == "q"
    world.do("lose", "a", "t", "p")
    assert (world.place_of("t"), world.holder) == ("p", {})
    world.do("go", "a", "p")
    world.do("find", "a", "t")
    assert world.holder == {"t": "a"} and world.owner == {"t": "a"}
    assert [event.place for event in world.events] == ["p", "p", "p", "q", "q", "p"]


def test_only_who_knows_something_can_tell_it() -> None:
    world = played("at a p;at b p;know a secret;tell a secret b")
    assert world.knows["b"] == {"secret"}
