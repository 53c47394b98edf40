"""The scene of an action: who acts, what is around, and how to refer to it."""

from .lexicon import LOCKABLE

# what a scene offers and an action may need; the first four bits are those of lexicon.py, for what is at hand
HOLDS, FINDS, MATES, RICH_MATES, AWAY, FRIENDS, BROKEN, MOVED, MOOD, DEBT, ROADS = (1 << bit for bit in range(4, 15))


class Scene:
    """What the actor has around.

    Things held, free things here, things of others here, free things elsewhere (`away`); people here (`mates`) and
    elsewhere (`friends`). Elsewhere means where the actor may go.
    """

    __slots__ = ("actor", "away", "flags", "friends", "held", "here", "mates", "others", "subject")

    def __init__(self, world, actor, subject):
        place, places = actor.place, world.places_for(actor.index)
        self.actor, self.subject = actor, subject
        self.held, self.here, self.others, self.away = held, here, others, away = [], [], [], []
        self.mates, self.friends = mates, friends = [], []
        for person in world.people:
            if person.place is not place:
                if person.place in places:
                    friends.append(person)
            elif person is not actor:
                mates.append(person)
        flags = (MATES if mates else 0) | (FRIENDS if friends else 0) | (ROADS if len(places) > 1 else 0)
        for thing in world.things:
            holder = thing.holder
            if holder is None:
                if thing.place is place:
                    here.append(thing)
                    flags |= FINDS | (thing.noun.uses & LOCKABLE) | (BROKEN if thing.broken else 0)
                elif thing.place in places:
                    away.append(thing)
                    flags |= AWAY
            elif holder is actor:
                held.append(thing)
                flags |= HOLDS | thing.noun.uses
            elif holder.place is place:
                others.append(thing)
                flags |= RICH_MATES
        if actor.cause is not None:
            flags |= MOVED
        if actor.mood is not None:
            flags |= MOOD
        if actor.debt is not None and actor.debt.actor in mates:
            flags |= DEBT
        self.flags = flags


def choose_actor(world, source):
    """Prefer whom the sentence before was about: first the one to whom something was done, then the one who did it."""
    people = world.people
    for favourite, probability in ((world.partner, 0.4), (world.subject, 0.55)):
        if favourite is not None and len(people) > 1:
            if source.chance(probability):
                return favourite
            people = [person for person in people if person is not favourite]
    return source.pick(people, hidden=True)


def refer_to_actor(world, source, actor):
    """She, Anna, or the baker. A pronoun means the subject of the sentence before."""
    if actor is world.subject and source.chance(0.7):
        return actor.he
    return f"the {actor.role}" if source.chance(0.15) else actor.word


def refer_to_object(world, source, things):
    """Choose a thing and how to call it: the lamp, or "it" if the sentence before was about it."""
    thing = source.pick(things, hidden=True)
    return thing, thing.it if thing is world.object and source.chance(0.6) else thing.the
