"""Preferences about the microworld: a true answer before a false one before one that is no sentence of it."""

from .microworld.examples import collect, pick
from .microworld.facts import SETTLED_BY
from .microworld.instruction_tasks import iterate_answers, preference_examples, write_prompt


def builtin_pairs(num_examples: int, seed: int = 0, split: str = "train") -> list[dict]:
    """Pairs of answers, the better one first: the microworld's preference_examples in the one form."""
    return [
        {
            "prompt": row["prompt"],
            "completions": [row["chosen"], row["rejected"]],
            "scores": [1.0, 0.0],
            "margin": None,
        }
        for row in preference_examples(num_examples, seed, split)
    ]


def builtin_rankings(num_examples: int, seed: int = 0, split: str = "train", max_sentences: int = 8) -> list[dict]:
    r"""Three answers for each prompt, in any order: a true, a false and a malformed one, with the judge's scores.

    Example:
        {"prompt": "... Who has the lamp?\nAnswer:", "completions": [" Tom has the lamp.", " Anna the lamp.",
         " Anna has the lamp."], "scores": [0.0, -1.0, 1.0], "margin": None}
    """

    def candidates():
        for story, fact, answers, random in iterate_answers(seed, split, max_sentences):
            left, order = list(answers.items()), []
            while left:
                order.append(pick(random, left))
                left.remove(order[-1])
            scores, texts = zip(*order, strict=True)
            prompt, completions = write_prompt(story, fact), [f" {text}" for text in texts]
            row = {"prompt": prompt, "completions": completions, "scores": list(scores), "margin": None}
            yield story.text, fact.aspect, row

    return collect(candidates(), num_examples, seed, split, tuple(SETTLED_BY))
