"""Sources of choices: the grammar asks, a source answers and keeps the log probability of what was chosen.

The grammar is written once, as functions that call `pick`, `draw` and `chance`. With `Draw` they write a random
sentence; with `Retrace` the same functions find every way in which a given sentence can have been written, so that
generating and scoring cannot disagree. A visible choice is between words, or objects with a `word`, and the chosen
word then stands in the sentence; a hidden one (`chance`, or `hidden=True`) is between constructions, or between
people or things that a pronoun may stand for.
"""

from bisect import bisect_right
from itertools import accumulate
from math import log

LOGS = [0.0] + [log(n) for n in range(1, 257)]


class Table:
    """Options with fixed probabilities, proportional to `weights` (all equal when None)."""

    __slots__ = ("cumulative", "logs", "options")

    def __init__(self, options, weights=None):
        self.options = list(options)
        weights = [1.0] * len(self.options) if weights is None else list(weights)
        total = sum(weights)
        self.cumulative = [part / total for part in accumulate(weights)][:-1]
        self.logs = [log(weight / total) for weight in weights]

    def __len__(self):
        return len(self.options)


def zipf(options):
    """Return a Table in which the first options are the frequent ones: weight 1 / (rank + 2), rank from 0."""
    options = list(options)
    return Table(options, [1.0 / (rank + 2) for rank in range(len(options))])


class Draw:
    """Answer every question at random. `random` gives floats in [0, 1), as `random.Random(seed).random` does."""

    __slots__ = ("log_probability", "random")

    def __init__(self, random):
        self.random = random
        self.log_probability = 0.0

    def pick(self, options, *, hidden=False):
        """One of `options`, all equally likely."""
        count = len(options)
        if count == 1:
            return options[0]
        self.log_probability -= LOGS[count]
        return options[int(self.random() * count)]

    def draw(self, table, *, hidden=False, prefix=""):
        """One of the options of a Table. A visible one stands in the sentence right after `prefix`."""
        index = bisect_right(table.cumulative, self.random())
        self.log_probability += table.logs[index]
        return table.options[index]

    def chance(self, probability):
        """True with this probability."""
        if self.random() < probability:
            self.log_probability += log(probability)
            return True
        self.log_probability += log(1.0 - probability)
        return False

    def begin(self, words):
        """Tell that the sentence begins with these words, whatever follows."""


class DeadEndError(Exception):
    """No option fits the sentence."""


class Retrace:
    """Go through all answers, run after run, leaving out words that do not stand in `sentence`.

    Without a sentence it goes through every answer: an enumeration of the whole language.
    """

    def __init__(self, sentence=None):
        self.sentence = None if sentence is None else sentence.lower()
        self.path = []  # one [position, possible indices] per question of the current run
        self.restart()

    def restart(self):
        """Begin the next run at the first question."""
        self.depth = 0
        self.log_probability = 0.0

    def advance(self):
        """Turn to the next untried answer; False when there is none."""
        while self.path:
            self.path[-1][0] += 1
            if self.path[-1][0] < len(self.path[-1][1]):
                return True
            self.path.pop()
        return False

    def _answer(self, options, prefix):
        """Index of the answer in this run; `prefix` None makes the question a hidden one."""
        if self.depth == len(self.path):
            possible = range(len(options))
            if prefix is not None and self.sentence is not None:
                words = [option if type(option) is str else option.word for option in options]
                possible = [index for index in possible if (prefix + words[index]).lower() in self.sentence]
                if not possible:
                    raise DeadEndError
            self.path.append([0, possible])
        position, possible = self.path[self.depth]
        self.depth += 1
        return possible[position]

    def pick(self, options, *, hidden=False):
        self.log_probability -= LOGS[len(options)]
        return options[self._answer(options, None if hidden else "")]

    def draw(self, table, *, hidden=False, prefix=""):
        index = self._answer(table.options, None if hidden else prefix)
        self.log_probability += table.logs[index]
        return table.options[index]

    def chance(self, probability):
        answer = (True, False)[self._answer((True, False), None)]
        self.log_probability += log(probability if answer else 1.0 - probability)
        return answer

    def begin(self, words):
        if self.sentence is not None and not self.sentence.startswith(words.lower()):
            raise DeadEndError


def derivations(write, sentence=None):
    """Yield (what `write(source)` returned, log probability) for every run of answers that reaches an end.

    Args:
        write: a function of a source. It must not change anything outside itself.
        sentence: the sentence it should write; runs that need a word outside it are cut short. What comes
            back may still be another sentence: the caller compares.
    """
    source = Retrace(sentence)
    while True:
        source.restart()
        try:
            result = write(source)
        except DeadEndError:
            pass
        else:
            yield result, source.log_probability
        if not source.advance():
            return
