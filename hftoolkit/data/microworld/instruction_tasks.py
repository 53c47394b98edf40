"""Instructions with answers, preferences between answers, and a judge who knows the truth.

A prompt holds a story and a question about the moment after it. `judge_answer` replays the story and scores any
completion: 1 true, 0 false but well formed, -1 anything else. It is the true preference that a learned reward can be
compared with.
"""

from functools import lru_cache

from .examples import collect, iterate_beginnings, pick
from .facts import SETTLED_BY, facts_of
from .narration import PLURAL_NUMBERS
from .question_tasks import iterate_kinds, summarise
from .sentence_tasks import iterate_pairs
from .stories import retell
from .translation import LANGUAGE, translate

TRUE, FALSE, MALFORMED = 1.0, 0.0, -1.0
QUESTION, ANSWER = "\nQuestion: ", "\nAnswer:"


def iterate_questions(seed, split, max_sentences):
    """Yield (story, fact, random) without end: for every story a fact of each kind that can also be told falsely."""
    for story, _, facts, random in iterate_kinds(seed, split, 3, max_sentences, tuple(SETTLED_BY)):
        facts = [fact for fact in facts if fact.alternatives]
        if facts:
            yield story, pick(random, facts), random


def write_prompt(story, fact):
    """The story, the question, and the word after which the answer is to stand."""
    return f"{story.text}{QUESTION}{fact.question}{ANSWER}"


def judge_answer(prompt: str, completion: str) -> float:
    """Score a completion of a prompt: 1.0 true, 0.0 false but well formed, -1.0 anything else.

    Spaces around the completion do not count.

    Example:
        prompt "It was a cold winter morning in the house. Anna, a young cook, was in the hall.
        Question: Where is Anna?
        Answer:", completion " Anna is in the hall." -> 1.0; " Anna is in the attic." -> 0.0; " Anna hall" -> -1.0

    Raises:
        ValueError: the prompt is none that `preference_examples` or `question_prompts` writes.
    """
    return judge_statement(read_prompt(prompt), completion.strip())


@lru_cache(maxsize=4096)
def read_prompt(prompt):
    """The fact a prompt asks for, by replaying its story; a prompt with many completions is read once."""
    text, _, question = prompt.removesuffix(ANSWER).rpartition(QUESTION)
    if not text or not prompt.endswith(ANSWER):
        raise ValueError(f"not a prompt of the microworld: it ends with {prompt[-40:]!r}")
    facts = [fact for fact in facts_of(retell(text, complete=False).world) if fact.question == question]
    if not facts:
        raise ValueError(f"the story does not answer this question: {question!r}")
    return facts[0]


def judge_statement(fact, statement):
    """Score a statement, without spaces around it, as an answer to the question of a fact."""
    if statement == fact.state(fact.answer):
        return TRUE
    return FALSE if statement in {fact.state(answer) for answer in fact.alternatives} else MALFORMED


def garble(sentence, random):
    """Spoil the form of a sentence: leave out a word, say one twice, or exchange two neighbours that differ."""
    words = sentence[:-1].split()
    while True:
        i = int(random() * (len(words) - 1))
        change = int(random() * 3)
        if change == 0:
            spoilt = words[:i] + words[i + 1 :]
        elif change == 1:
            spoilt = words[: i + 1] + words[i:]
        else:
            spoilt = words[:i] + [words[i + 1], words[i]] + words[i + 2 :]
        if spoilt != words:
            return " ".join(spoilt) + "."


def question_prompts(num_examples: int, seed: int = 0, split: str = "train", max_sentences: int = 8) -> list[dict]:
    r"""Prompts with the true answer, for supervised fine-tuning and for PPO.

    Example:
        {"prompt": "... Anna took the lamp.\nQuestion: Who has the lamp?\nAnswer:",
         "completion": " Anna has the lamp.", "kind": "holder"}
    """

    def candidates():
        for story, fact, _ in iterate_questions(seed, split, max_sentences):
            prompt, completion = write_prompt(story, fact), f" {fact.state(fact.answer)}"
            yield story.text, fact.aspect, {"prompt": prompt, "completion": completion, "kind": fact.aspect}

    return collect(candidates(), num_examples, seed, split, tuple(SETTLED_BY))


def iterate_answers(seed, split, max_sentences):
    """Yield (story, fact, answers, random) without end; answers holds a statement for each of the judge's verdicts."""
    for story, fact, random in iterate_questions(seed, split, max_sentences):
        right, wrong = fact.state(fact.answer), fact.state(pick(random, fact.alternatives))
        spoilt = garble(right if random() < 0.5 else wrong, random)
        if judge_statement(fact, spoilt) == MALFORMED:
            yield story, fact, {TRUE: right, FALSE: wrong, MALFORMED: spoilt}, random


def preference_examples(num_examples: int, seed: int = 0, split: str = "train", max_sentences: int = 8) -> list[dict]:
    r"""Pairs of answers, the better one chosen: true before false before malformed, each kind of pair a third.

    Example:
        {"prompt": "... Anna took the lamp.\nQuestion: Who has the lamp?\nAnswer:", "chosen": " Anna has the lamp.",
         "rejected": " Tom has the lamp.", "chosen_score": 1.0, "rejected_score": 0.0}
    """
    pairs = ((TRUE, FALSE), (TRUE, MALFORMED), (FALSE, MALFORMED))

    def candidates():
        for story, fact, answers, random in iterate_answers(seed, split, max_sentences):
            better, worse = pick(random, pairs)
            yield (
                story.text,
                (better, worse),
                {
                    "prompt": write_prompt(story, fact),
                    "chosen": f" {answers[better]}",
                    "rejected": f" {answers[worse]}",
                    "chosen_score": better,
                    "rejected_score": worse,
                },
            )

    return collect(candidates(), num_examples, seed, split, pairs)


def multiply(story, index, number):
    """Turn what is said of one thing into the same of several, after the sentence about the first person."""
    person, sentence, event = story.sentences[1], story.sentences[index], story.events[index]
    noun, place = event.thing.noun, event.value
    start = f"There were {number} {noun.plural}"
    if not sentence.startswith("There"):
        start = f"{number.capitalize()} {noun.plural} {noun.rests}"
    instruction = f"Say it of {number} {noun.plural} instead of one {noun.word}."
    return instruction, f"{person} {sentence}", f"{person} {start} {place.where}."


def write_instruction(kind, story, random):
    """(instruction, input, output) of one kind for a story, or None."""
    world = story.world
    if kind == "answer":
        fact = pick(random, facts_of(world))
        return fact.question, story.text, fact.state(fact.answer)
    if kind == "summarise":
        return "Say where everybody is and what they have.", story.text, summarise(world)
    if kind == "translate":
        sentence = pick(random, story.sentences[1:])
        return f"Translate into {LANGUAGE}.", sentence, translate(sentence)
    if kind == "count":
        finds = [i for i, event in enumerate(story.events) if event.kind == "find" and not event.thing.plural]
        number = pick(random, PLURAL_NUMBERS)
        return multiply(story, finds[0], number) if finds else None
    people = " and ".join(person.word for person in world.people)
    return "Name the people in the story.", story.text, people


def instruction_examples(num_examples: int, seed: int = 0, split: str = "train") -> list[dict]:
    """Instructions of several kinds with the right output, in Alpaca's form.

    Example:
        {"instruction": "Correct the mistake.", "input": "The lamps was red.", "output": "The lamps were red.",
         "kind": "correct"}
    """
    kinds = ("answer", "summarise", "translate", "count", "people", "correct")
    mistakes = iterate_pairs(seed, split)

    def candidates():
        for index, (story, random) in enumerate(iterate_beginnings(seed, split, 4, 9)):
            kind = kinds[index % len(kinds)]
            if kind == "correct":
                good, _, pair = next(mistakes)
                parts = ("Correct the mistake.", pair["sentence_bad"], good)
            else:
                parts = write_instruction(kind, story, random)
            if parts is None:
                continue
            instruction, given, output = parts
            example = {"instruction": instruction, "input": given, "output": output, "kind": kind}
            yield given, kind, example

    return collect(candidates(), num_examples, seed, split, kinds)
