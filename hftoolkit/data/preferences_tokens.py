"""What a reward model reads: a prompt with an answer, as token ids that end where the score is read.

A tokenizer that separates texts as BERT's does reads the pair, [CLS] prompt [SEP] answer [SEP], in its own form. Any
other (GPT, Llama, T5) reads one text, prompt and answer joined as they stand, with the end token last if it has one.
What is too long loses tokens at its beginning: the prompt's first, the answer's only when nothing is left of it.
"""

from hftoolkit.errors import DataError

SHORTEST = 8  # tokens that a reward model must be able to read


def length_limit(tokenizer, model=None, max_length=None):
    """Tokens that are read: max_length, or as many as the tokenizer and the model allow.

    Raises:
        DataError: max_length is below SHORTEST, or more than the tokenizer or the model can read.
    """
    limits = {"the tokenizer": tokenizer.model_max_length}
    if model is not None and getattr(model.config, "max_position_embeddings", None):
        limits["the model"] = model.config.max_position_embeddings
    wanted = min(limits.values()) if max_length is None else max_length
    for reader, limit in limits.items():
        if wanted > limit:
            raise DataError(f"max_length is {wanted}, but {reader} reads at most {limit} tokens")
    if wanted < SHORTEST:
        raise DataError(f"max_length is {wanted}; a reward model reads at least {SHORTEST} tokens")
    return wanted


def reads_pairs(tokenizer):
    """Whether prompt and answer are two segments: there is a [CLS], and what separates two texts also ends one."""
    cls, sep, eos = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.eos_token_id
    return None not in (cls, sep) and eos in (None, sep)


def answer_tokens(tokenizer, prompts, completions, max_length):
    """Token ids of each prompt with its answer, without padding.

    Args:
        prompts, completions: texts, as many of one as of the other.
        max_length: tokens that are kept, special ones included.

    Returns:
        One dictionary per text: input_ids; token_type_ids where the tokenizer has them; prompt_cut and answer_cut,
        how many tokens each has lost.

    Example (GPT; eos 0; max_length 5):
        "a b c", " d e" -> input_ids [b, c, d, e, 0], prompt_cut 1, answer_cut 0
    """
    if not prompts:
        return []
    return (_pairs if reads_pairs(tokenizer) else _texts)(tokenizer, list(prompts), list(completions), max_length)


def _ids(tokenizer, texts):
    return tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]


def _texts(tokenizer, prompts, completions, max_length):
    start, end = special_ends(tokenizer)
    joined = _ids(tokenizer, [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)])
    room, rows = max_length - len(start) - len(end), []
    for ids, completion in zip(joined, completions, strict=True):
        lost = max(len(ids) - room, 0)
        of_answer = max(len(_ids(tokenizer, [completion])[0]) - room, 0) if lost else 0
        cut = {"prompt_cut": lost - min(of_answer, lost), "answer_cut": min(of_answer, lost)}
        has_start = not lost and start and ids[: len(start)] == start  # a chat template has written it
        row = {"input_ids": ([] if has_start else start) + ids[lost:] + end}
        if "token_type_ids" in tokenizer.model_input_names:
            row["token_type_ids"] = [0] * len(row["input_ids"])
        rows.append(row | cut)
    return rows


def special_ends(tokenizer):
    """Special ids that stand before and after a text; the end token is last where the tokenizer has one."""
    start, end = _specials(tokenizer, "a")
    eos = tokenizer.eos_token_id
    return start, end + [eos] * (eos is not None and end[-1:] != [eos])


def _specials(tokenizer, *texts):
    """Special ids before the first text, between two, and after the last."""
    encoded = tokenizer(*texts, return_special_tokens_mask=True)
    runs, was_special = [[]], True
    for token, is_special in zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True):
        if is_special and not was_special:
            runs.append([])
        if is_special:
            runs[-1].append(token)
        was_special = bool(is_special)
    return runs + [[]] * (len(texts) + 1 - len(runs))


def _pairs(tokenizer, prompts, completions, max_length):
    start, between, end = _specials(tokenizer, "a", "a")
    room, rows = max_length - len(start + between + end), []
    for prompt, answer in zip(_ids(tokenizer, prompts), _ids(tokenizer, completions), strict=True):
        cut = {"prompt_cut": min(max(len(prompt) + len(answer) - room, 0), len(prompt))}
        cut["answer_cut"] = max(len(answer) - room, 0)
        first = [*start, *prompt[cut["prompt_cut"] :], *between]
        second = [*answer[cut["answer_cut"] :], *end]
        row = {"input_ids": first + second}
        if "token_type_ids" in tokenizer.model_input_names:
            row["token_type_ids"] = [0] * len(first) + [1] * len(second)
        rows.append(row | cut)
    return rows


def pad_right(rows, pad_token_id):
    """A batch of token rows: input_ids, attention_mask (1 = real token) and token_type_ids where they are, (N, T)."""
    import torch

    longest = max(len(row["input_ids"]) for row in rows)
    fillings = {"input_ids": pad_token_id or 0, "token_type_ids": 0}
    batch = {
        name: torch.tensor([list(row[name]) + [fill] * (longest - len(row[name])) for row in rows])
        for name, fill in fillings.items()
        if name in rows[0]
    }
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    return batch | {"attention_mask": (torch.arange(longest) < lengths[:, None]).long()}
