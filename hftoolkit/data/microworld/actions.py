"""Sentences in which somebody does or feels something.

Each action is a function (world, source, scene) -> (sentence, Event). It may read the world but not change it.
"""

from .choices import Table
from .lexicon import BREAKABLE, EDIBLE, LOCKABLE, PAINTABLE
from .morphology import adverb, quality
from .scene import (
    AWAY,
    BROKEN,
    DEBT,
    FINDS,
    FRIENDS,
    HOLDS,
    MATES,
    MOOD,
    MOVED,
    RICH_MATES,
    ROADS,
    Scene,
    choose_actor,
    refer_to_actor,
    refer_to_object,
)
from .world import Event

CONNECTIVES = ("then", "soon", "later", "after that,", "a little later,")
GO_VERBS = ("went", "walked", "ran", "hurried", "returned")
TAKE_VERBS = ("took", "grabbed", "lifted", "collected")
PUT_VERBS = ("put", "set", "laid")
GIVE_VERBS = ("gave", "handed", "passed")
STEAL_VERBS = ("stole", "snatched")
MEND_VERBS = ("mended", "repaired")
GREET_VERBS = ("greeted", "waved to", "nodded to", "laughed with", "whispered to")
REFLEXIVE_VERBS = ("washed", "warmed", "scratched", "dressed", "praised")
SMILE_VERBS = ("smiled", "laughed", "sang")
SIGH_VERBS = ("sighed", "wept", "frowned")
VERBS = GO_VERBS + TAKE_VERBS + PUT_VERBS + GIVE_VERBS + STEAL_VERBS + MEND_VERBS
VERBS += GREET_VERBS + REFLEXIVE_VERBS + SMILE_VERBS + SIGH_VERBS
GLAD_CAUSES = ("give", "mend")  # the other events that move somebody, steal and smash, make sad


def go(world, source, scene):
    """Anna went to the hall."""
    places = [place for place in world.places_for(scene.actor.index) if place is not scene.actor.place]
    verb, place = source.pick(GO_VERBS), source.pick(places)
    return f"{scene.subject} {verb} to {place.the}.", Event("go", scene.actor, value=place)


def seek(world, source, scene):
    """Anna wanted the lamp, so she went to the hall: where it is, the text has told."""
    thing, it = refer_to_object(world, source, scene.away)
    sentence = f"{scene.subject} wanted {it}, so {scene.actor.he} went to {thing.place.the}."
    return sentence, Event("seek", scene.actor, thing, value=thing.place)


def visit(world, source, scene):
    """Anna wanted to see Tom, so she went to the hall."""
    friend = source.pick(scene.friends)
    place = friend.place
    sentence = f"{scene.subject} wanted to see {friend.word}, so {scene.actor.he} went to {place.the}."
    return sentence, Event("visit", scene.actor, other=friend, value=place)


def take(world, source, scene):
    """Anna took the lamp."""
    verb = source.pick(TAKE_VERBS)
    thing, it = refer_to_object(world, source, scene.here)
    return f"{scene.subject} {verb} {it}.", Event("take", scene.actor, thing)


def put(world, source, scene):
    """Anna put the lamp down, or down in the hall: where she is."""
    verb = source.pick(PUT_VERBS)
    thing, it = refer_to_object(world, source, scene.held)
    if source.chance(0.6):
        place = scene.actor.place
        return f"{scene.subject} {verb} {it} down {place.where}.", Event("put", scene.actor, thing, value=place)
    return f"{scene.subject} {verb} {it} down.", Event("put", scene.actor, thing)


def carry(world, source, scene):
    """Anna carried the lamp to the hall."""
    thing, it = refer_to_object(world, source, scene.held)
    place = source.pick([place for place in world.places_for(scene.actor.index) if place is not scene.actor.place])
    return f"{scene.subject} carried {it} to {place.the}.", Event("carry", scene.actor, thing, value=place)


def give(world, source, scene):
    """Anna gave Tom the lamp, or gave it to Tom."""
    verb, receiver = source.pick(GIVE_VERBS), source.pick(scene.mates)
    thing, it = refer_to_object(world, source, scene.held)
    event = Event("give", scene.actor, thing, receiver)
    if it == thing.the and source.chance(0.5):
        return f"{scene.subject} {verb} {receiver.word} {it}.", event
    return f"{scene.subject} {verb} {it} to {receiver.word}.", event


def steal(world, source, scene):
    """Anna stole the lamp from Tom."""
    verb = source.pick(STEAL_VERBS)
    thing, it = refer_to_object(world, source, scene.others)
    owner = thing.holder
    return f"{scene.subject} {verb} {it} from {owner.word}.", Event("steal", scene.actor, thing, owner)


def paint(world, source, scene):
    """Anna painted the lamp red; the second time she repaints it."""
    thing, it = refer_to_object(world, source, [thing for thing in scene.held if thing.noun.uses & PAINTABLE])
    colour = source.pick(world.colours_for(thing))
    verb = "repainted" if thing.painted else "painted"
    return f"{scene.subject} {verb} {it} {colour}.", Event("paint", scene.actor, thing, value=colour)


def lock(world, source, scene):
    """Anna locked the box, or unlocked it if it was locked."""
    thing, it = refer_to_object(
        world, source, [thing for thing in scene.held + scene.here if thing.noun.uses & LOCKABLE]
    )
    verb = "unlocked" if thing.locked else "locked"
    return f"{scene.subject} {verb} {it}.", Event("lock", scene.actor, thing)


def smash(world, source, scene):
    """Anna dropped the cup, and it broke."""
    thing, it = refer_to_object(world, source, [thing for thing in scene.held if thing.noun.uses & BREAKABLE])
    ending = "broke again" if thing.broken else "broke"
    return f"{scene.subject} dropped {it}, and {thing.they} {ending}.", Event("smash", scene.actor, thing)


def mend(world, source, scene):
    """Anna mended the cup: only what is broken."""
    verb = source.pick(MEND_VERBS)
    thing, it = refer_to_object(world, source, [thing for thing in scene.here if thing.broken])
    return f"{scene.subject} {verb} {it}.", Event("mend", scene.actor, thing)


def eat(world, source, scene):
    """Anna ate the apple."""
    thing, it = refer_to_object(world, source, [thing for thing in scene.held if thing.noun.uses & EDIBLE])
    return f"{scene.subject} ate {it}.", Event("eat", scene.actor, thing)


def feel(world, source, scene):
    """The event that moved the actor decides between glad and sad; a denied mood is of the other kind."""
    cause = scene.actor.cause
    fitting, contrary = world.lexicon.glad_moods, world.lexicon.sad_moods
    if cause.kind not in GLAD_CAUSES:
        fitting, contrary = contrary, fitting
    if source.chance(0.15):
        denied = source.pick(contrary)
        clause, mood = f"was not {denied}", None
    else:
        mood = source.pick(fitting)
        clause = f"{source.pick(('was', 'felt'))} {mood}"
    reason = f" because {explain(cause, scene.actor)}" if source.chance(0.6) else ""
    return f"{scene.subject} {clause}{reason}.", Event("feel", scene.actor, other=cause, value=mood)


def explain(cause, actor):
    """The event as a reason: "Tom had given her the lamp"."""
    kind, doer, thing = cause[:3]
    if kind == "give":
        return f"{doer.word} had given {actor.him} {thing.the}"
    if kind == "steal":
        return f"{doer.word} had stolen {thing.the}"
    return f"{thing.the} {thing.be} {'broken' if kind == 'smash' else 'whole again'}"


def show(world, source, scene):
    """Anna smiled happily: if she is happy."""
    mood = scene.actor.mood
    verb = source.pick(SMILE_VERBS if mood in world.lexicon.glad_moods else SIGH_VERBS)
    return f"{scene.subject} {verb} {adverb(mood)}.", Event("show", scene.actor, value=mood)


def fade(world, source, scene):
    """Anna lost her happiness, or overcame her sadness."""
    actor, mood = scene.actor, scene.actor.mood
    verb = "lost" if mood in world.lexicon.glad_moods else "overcame"
    return f"{scene.subject} {verb} {actor.his} {quality(mood)}.", Event("fade", actor, value=mood)


def thank(world, source, scene):
    """Anna thanked Tom for the lamp: the last thing somebody here gave her."""
    giver, thing = scene.actor.debt.actor, scene.actor.debt.thing
    return f"{scene.subject} thanked {giver.word} for {thing.the}.", Event("thank", scene.actor, thing, giver)


def greet(world, source, scene):
    """Anna waved to Tom."""
    verb, mate = source.pick(GREET_VERBS), source.pick(scene.mates)
    return f"{scene.subject} {verb} {mate.word}.", Event("greet", scene.actor, other=mate)


def reflect(world, source, scene):
    """Anna washed herself."""
    return f"{scene.subject} {source.pick(REFLEXIVE_VERBS)} {scene.actor.him}self.", Event("reflect", scene.actor)


ACTIONS = {
    "go": (go, ROADS),
    "seek": (seek, AWAY),
    "visit": (visit, FRIENDS),
    "take": (take, FINDS),
    "put": (put, HOLDS),
    "carry": (carry, HOLDS | ROADS),
    "give": (give, HOLDS | MATES),
    "steal": (steal, RICH_MATES),
    "paint": (paint, PAINTABLE),
    "lock": (lock, LOCKABLE),
    "smash": (smash, BREAKABLE),
    "mend": (mend, BROKEN),
    "eat": (eat, EDIBLE),
    "feel": (feel, MOVED),
    "show": (show, MOOD),
    "fade": (fade, MOOD),
    "thank": (thank, DEBT),
    "greet": (greet, MATES),
    "reflect": (reflect, 0),
}


def act(world, source):
    """Choose who does something, what, and how to say it."""
    connective = source.pick(CONNECTIVES) + " " if source.chance(0.15) else ""  # before all else: it stands first
    actor = choose_actor(world, source)
    subject = connective + refer_to_actor(world, source, actor)
    source.begin(subject)
    scene = Scene(world, actor, subject)
    action = source.draw(possible_actions(world.lexicon, scene.flags), hidden=True)
    sentence, event = action(world, source, scene)
    return sentence[0].upper() + sentence[1:], event


def possible_actions(lexicon, flags):
    """Table of the actions whose needs are all met."""
    table = lexicon.cache.get(("actions", flags))
    if table is None:
        names = [name for name, (_, needs) in ACTIONS.items() if flags & needs == needs]
        names = [name for name in names if lexicon.action_weights.get(name)]
        table = Table([ACTIONS[name][0] for name in names], [lexicon.action_weights[name] for name in names])
        lexicon.cache["actions", flags] = table
    return table
