"""What every stage of the quickstart does: say where it is, and run recipes as their command lines would."""

import sys


def run(recipe, argv):
    """Call a recipe as its command line would be."""
    return recipe.main(*recipe.parse(argv))


def say(line):
    """A headline on the screen."""
    sys.stdout.write(f"\n=== {line}\n")
    sys.stdout.flush()
