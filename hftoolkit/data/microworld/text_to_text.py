"""All tasks as text to text, in the manner of T5: a prefix names the task, the target is a string.

Raffel et al. 2020, https://arxiv.org/abs/1910.10683, Section 2.4 and Appendix D.
"""

from .examples import pick
from .pair_tasks import entailment_examples, paraphrase_examples
from .question_tasks import question_examples, summary_examples
from .sentence_tasks import acceptability_examples, sentiment_examples
from .stories import check_arguments, document_random
from .translation import LANGUAGE, translation_examples

LABEL_WORDS = {
    "acceptability": ("unacceptable", "acceptable"),
    "sentiment": ("negative", "positive"),
    "paraphrase": ("not_equivalent", "equivalent"),
    "entailment": ("entailment", "neutral", "contradiction"),
}


def _question(example):
    return f"question: {example['question']} context: {example['context']}", example["answers"]["text"][0]


def _translation(example):
    pair = example["translation"]
    return f"translate English to {LANGUAGE}: {pair['en']}", pair["tamo"]


TASKS = {  # name: (examples, example -> (inputs, target or label))
    "acceptability": (acceptability_examples, lambda e: (f"cola sentence: {e['sentence']}", e["label"])),
    "sentiment": (sentiment_examples, lambda e: (f"sst2 sentence: {e['sentence']}", e["label"])),
    "paraphrase": (
        paraphrase_examples,
        lambda e: (f"mrpc sentence1: {e['sentence1']} sentence2: {e['sentence2']}", e["label"]),
    ),
    "entailment": (
        entailment_examples,
        lambda e: (f"mnli hypothesis: {e['hypothesis']} premise: {e['premise']}", e["label"]),
    ),
    "question": (question_examples, _question),
    "summary": (summary_examples, lambda e: (f"summarize: {e['document']}", e["summary"])),
    "translation": (translation_examples, _translation),
}


def text_to_text_examples(num_examples: int, seed: int = 0, split: str = "train", tasks=tuple(TASKS)) -> list[dict]:
    """Examples of several tasks, equally many of each (the counts differ by one at most), in random order.

    Example:
        {"inputs": "sst2 sentence: Anna was not sad.", "targets": "positive", "task": "sentiment"}

    Raises:
        ValueError: a task is unknown, or an argument is wrong.
    """
    check_arguments(split, num_examples=num_examples, seed=seed)
    unknown = [task for task in tasks if task not in TASKS]
    if unknown or not tasks:
        raise ValueError(f"tasks must be some of {', '.join(TASKS)}, got {list(tasks)}")
    rows = []
    for number, task in enumerate(tasks):
        make, write = TASKS[task]
        for example in make((num_examples + len(tasks) - 1 - number) // len(tasks), seed, split):
            inputs, target = write(example)
            targets = LABEL_WORDS[task][target] if task in LABEL_WORDS else target
            rows.append({"inputs": inputs, "targets": targets, "task": task})
    random, mixed = document_random(seed, split, 0), []
    while rows:
        row = pick(random, rows)
        rows.remove(row)
        mixed.append(row)
    return mixed
