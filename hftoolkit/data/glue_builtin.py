"""GLUE's tasks about the microworld: the same form, made here.

    cola   grammatical or with one mistake         mrpc   do two sentences tell the same event?
    sst2   a good or a bad feeling                 stsb   how much of an event do two sentences share?
    mnli   does a text entail a statement?         qnli   does a sentence hold the answer to a question?
    rte    the same with two classes

There is nothing like QQP (its questions would be MRPC's sentences again) or WNLI. Every function takes (number, seed,
split) and returns dicts with sentence1, sentence2 where there are two, and label.
"""

import math
import re
from random import Random
from zlib import crc32

from .microworld import (
    SPLITS,
    acceptability_examples,
    entailment_examples,
    paraphrase_examples,
    question_examples,
    sentiment_examples,
)
from .microworld.examples import EVENTFUL, collect, iterate_beginnings, pick
from .microworld.pair_tasks import TELLINGS, roles_of, spoil_roles, tell_event

ENTAILMENT, NOT_ENTAILMENT = 0, 1  # of RTE and QNLI
END_OF_SENTENCE = re.compile(r'(?<=[.!?]) (?=[A-Z"])|(?<=[.!?]") (?=[A-Z"])')


def _single(examples):
    """A function that makes examples of one sentence."""

    def make(number, seed, split):
        return [{"sentence1": row["sentence"], "label": row["label"]} for row in examples(number, seed, split)]

    return make


def natural_language_inference(number, seed, split):
    """MNLI: entailment, neutral, contradiction."""
    return [
        {"sentence1": row["premise"], "sentence2": row["hypothesis"], "label": row["label"]}
        for row in entailment_examples(number, seed, split)
    ]


def two_way_entailment(number, seed, split):
    """RTE: neutral and contradiction are one class; half of the examples is entailed. Other texts than MNLI's."""
    rows, missing = [], {ENTAILMENT: number // 2, NOT_ENTAILMENT: number - number // 2}
    for row in natural_language_inference(3 * math.ceil(number / 2), seed + 1, split):
        label = min(row["label"], NOT_ENTAILMENT)
        if missing[label]:
            missing[label] -= 1
            rows.append(row | {"label": label})
    return rows


def paraphrases(number, seed, split):
    """MRPC: two tellings of one event, or of two that differ in one part."""
    return paraphrase_examples(number, seed, split)


def answering_sentences(number, seed, split):
    """QNLI, as GLUE made it from SQuAD: a question with the sentence of its context that holds the answer, or another.

    The other sentence of the context does not mention the answer.

    Example:
        {"sentence1": "Who has the lamp?", "sentence2": "Anna gave it to Tom.", "label": 0}
    """
    rows, seen, missing = [], set(), {ENTAILMENT: number // 2, NOT_ENTAILMENT: number - number // 2}
    for row in question_examples(2 * number + 32, seed, split, max_sentences=8):
        answer, start = row["answers"]["text"][0], row["answers"]["answer_start"][0]
        ends = [match.start() for match in END_OF_SENTENCE.finditer(row["context"])]
        sentences = END_OF_SENTENCE.split(row["context"])
        right = sentences[sum(end < start for end in ends)]
        mention = re.compile(rf"\b{re.escape(answer)}\b", re.IGNORECASE)
        wrong = [sentence for sentence in sentences if not mention.search(sentence)]
        for label, sentence in ((ENTAILMENT, right), *((NOT_ENTAILMENT, sentence) for sentence in wrong)):
            pair = (row["question"], sentence)
            if missing[label] and pair not in seen and split_of_text("\t".join(pair)) == split:
                seen.add(pair)
                missing[label] -= 1
                rows.append({"sentence1": pair[0], "sentence2": pair[1], "label": label})
                break
    if any(missing.values()):
        raise ValueError(f"only {len(rows)} different examples found, {number} were asked for")
    Random(seed).shuffle(rows)  # the missing ones of a class come last
    return rows


def split_of_text(text):
    """The split of a text whose context does not decide it, so that no pair is in two splits."""
    return SPLITS[crc32(text.encode()) % len(SPLITS)]


def similarities(number, seed, split):
    """STS-B: 5 the same event told twice, 3 one part of it differs, 1 another event of the kind, 0 of another kind.

    Example:
        {"sentence1": "Tom gave the lamp to Anna.", "sentence2": "Tom gave Anna the rope.", "label": 3.0}
    """
    scores = (0.0, 1.0, 3.0, 5.0)

    def candidates():
        for story, random in iterate_beginnings(seed, split, 12, 24, EVENTFUL):
            told = [(event.kind, roles_of(story.world, event)) for event in story.events if event.kind in TELLINGS]
            told = [(kind, roles) for kind, roles in told if roles is not None]
            for kind, roles in told:
                score, parts = pick(random, scores), set(roles.values()) - {"was", "were", None}
                second, other = kind, roles
                if score == 3:
                    other = spoil_roles(story.world, kind, roles, random)
                elif score < 3:
                    others = [
                        pair
                        for pair in told
                        if (pair[0] == kind) == (score == 1) and not parts & set(pair[1].values())
                    ]
                    if not others:
                        continue
                    second, other = pick(random, others)
                sentences = [tell_event(pick(random, TELLINGS[k]), r) for k, r in ((kind, roles), (second, other))]
                if sentences[0] != sentences[1]:
                    example = {"sentence1": sentences[0], "sentence2": sentences[1], "label": score}
                    yield sentences[0], score, example

    return collect(candidates(), number, seed, split, scores)


BUILTIN_TASKS = {
    "cola": _single(acceptability_examples),
    "sst2": _single(sentiment_examples),
    "mrpc": paraphrases,
    "stsb": similarities,
    "mnli": natural_language_inference,
    "qnli": answering_sentences,
    "rte": two_way_entailment,
}
