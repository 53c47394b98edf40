"""Preferences as pairs of token rows: one prompt, the better answer, the worse one.

Answers end with the end token. What is too long loses tokens at the beginning of its prompt, the same ones for both
answers; a pair whose longer answer leaves no room for a token of the prompt is left out.
"""

import itertools

from datasets import Dataset, Features, List, Value

from .preferences_tokens import special_ends

COLUMNS = ("prompt_ids", "chosen_ids", "rejected_ids")


def ranked_pairs(scores):
    """Places (better, worse) of all answers of which one is preferred to the other.

    Example:
        [0.0, 2.0, 2.0] -> [(1, 0), (2, 0)]
    """
    both = itertools.permutations(range(len(scores)), 2)
    return [(better, worse) for better, worse in both if scores[better] > scores[worse]]


def tokenize_pairs(preferences: Dataset, tokenizer, max_length: int, num_workers: int | None = None) -> Dataset:
    """A row for each pair of all prompts: the columns COLUMNS, and prompt_cut, how many tokens the prompt has lost.

    Args:
        preferences: of hftoolkit.data.preferences; a ranking of K answers becomes its pairs, C(K, 2) at most.
        max_length: tokens of a prompt with an answer and its end; what an answer needs, the prompt loses.

    Example (end token 0; max_length 5):
        "a b c", [" d", " e f"], [1, 0] -> prompt_ids [b, c], chosen_ids [d, 0], rejected_ids [e, f, 0], prompt_cut 1
    """
    numbers = List(Value("int32"))
    return preferences.map(
        _pairs_of,
        batched=True,
        features=Features({name: numbers for name in COLUMNS} | {"prompt_cut": Value("int32")}),
        remove_columns=preferences.column_names,
        num_proc=num_workers,
        fn_kwargs={"tokenizer": tokenizer, "max_length": max_length},
    )


def _pairs_of(rows, tokenizer, max_length):
    found = {name: [] for name in (*COLUMNS, "prompt_cut")}
    for prompt, answers, scores in zip(rows["prompt"], rows["completions"], rows["scores"], strict=True):
        for better, worse in ranked_pairs(scores):
            pair = pair_tokens(tokenizer, prompt, answers[better], answers[worse], max_length)
            for name, value in (pair or {}).items():
                found[name].append(value)
    return found


def pair_tokens(tokenizer, prompt, chosen, rejected, max_length):
    """One row of tokenize_pairs; None where the longer answer leaves no room for the prompt.

    Each answer is encoded together with the prompt, as a text is read; the prompt is what both begin with. A prompt
    that already begins with the tokenizer's first token, as chat templates write it, does not get another one.
    """
    start, end = special_ends(tokenizer)
    if tokenizer.bos_token and prompt.startswith(tokenizer.bos_token):
        start = []
    texts = [prompt, prompt + chosen, prompt + rejected]
    alone, *both = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    shared = min(_common_beginning(alone, ids) for ids in both)
    answers = [ids[shared:] + end for ids in both]
    room = max_length - max(map(len, answers)) - len(start)
    if room < 1 or shared < 1:
        return None
    cut = max(shared - room, 0)
    row = {"prompt_ids": start + alone[cut:shared], "prompt_cut": cut}
    return row | dict(zip(("chosen_ids", "rejected_ids"), answers, strict=True))


def _common_beginning(one, other):
    pairs = zip(one, other, strict=False)
    return next((place for place, (left, right) in enumerate(pairs) if left != right), min(len(one), len(other)))


def describe_pairs(tokens: Dataset, num_pairs: int) -> dict[str, int]:
    """Counts for the record: token pairs, tokens of both rows, prompts that lost tokens, and pairs left out.

    Args:
        num_pairs: before they were tokenised.
    """
    tokens_of = {name: sum(map(len, tokens[name])) for name in COLUMNS}
    counts = {"token_pairs": len(tokens), "tokens": sum(tokens_of.values()) + tokens_of["prompt_ids"]}
    notable = {"prompts_cut": sum(cut > 0 for cut in tokens["prompt_cut"]), "left_out": num_pairs - len(tokens)}
    return counts | {name: number for name, number in notable.items() if number}
