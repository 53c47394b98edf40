"""One preference of any known form: prompt, answers, scores, margin."""

import math

from hftoolkit.errors import DataError

ASSISTANT, HUMAN = "\n\nAssistant:", "\n\nHuman:"
ROLES = {"human": "user", "gpt": "assistant", "observation": "tool", "function_call": "assistant"}
SHAREGPT = {"from": "role", "value": "content"}
FORMS = (
    "chosen and rejected (also with prompt, conversations or instruction), or prompt, completions and ranks or scores"
)


def read_preference(row, where: str, tokenizer=None) -> dict:
    r"""Bring a row of any known form into the one form, and check it.

    Args:
        where: file and line, in an error.
        tokenizer: see conversation_text.

    Raises:
        DataError: no known form, an empty answer, equal answers, a margin that is no number, all answers tied.

    Example:
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant: No."}
        -> {"prompt": "\n\nHuman: Hi\n\nAssistant:", "completions": [" Hello.", " No."], "scores": [1.0, 0.0],
            "margin": None}
    """
    if not isinstance(row, dict):
        raise DataError(f"{where}: a row is an object with {FORMS}, not {type(row).__name__}")
    if "completions" in row:
        prompt, completions, scores = _ranking(row, where, tokenizer)
    elif "chosen" in row and "rejected" in row:
        prompt, completions = _pair(row, where, tokenizer)
        scores = [1.0, 0.0]
    else:
        raise DataError(f"{where}: no known form ({', '.join(map(str, list(row)[:8]))}); a row has {FORMS}")
    for number, text in enumerate(completions):
        if not text.strip():
            name = ("chosen", "rejected")[number] if "chosen" in row else f"number {number}"
            raise DataError(f"{where}: the answer {name} is empty")
    _refuse_equal_answers(completions, scores, where)
    margin = row.get("margin")
    if margin is not None and not _is_number(margin):
        raise DataError(f"{where}: the margin {margin!r} is no finite number")
    return {
        "prompt": prompt,
        "completions": completions,
        "scores": scores,
        "margin": None if margin is None else float(margin),
    }


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _refuse_equal_answers(completions, scores, where):
    seen = {}
    for text, score in zip(completions, scores, strict=True):
        if seen.setdefault(text, score) != score:
            what = "chosen and rejected are" if len(completions) == 2 else "two answers of different rank are"
            raise DataError(f"{where}: {what} the same text, {text.strip()[:40]!r}: there is nothing to prefer")


def _ranking(row, where, tokenizer):
    completions, given = row["completions"], [name for name in ("ranks", "scores") if row.get(name) is not None]
    if len(given) != 1:
        raise DataError(f"{where}: completions come with ranks or with scores, one of the two")
    name, values = given[0], row[given[0]]
    if not isinstance(completions, list) or not isinstance(values, list) or len(completions) != len(values):
        raise DataError(f"{where}: completions and {name} are lists of one length")
    if len(completions) < 2:
        raise DataError(f"{where}: {len(completions)} answers; a ranking has at least two")
    for value in values:
        if not _is_number(value):
            raise DataError(f"{where}: {value!r} in {name} is no finite number")
    if len(set(values)) == 1:
        raise DataError(f"{where}: all {len(values)} answers are tied ({name} {values[0]}): none is preferred")
    if isinstance(row.get("prompt"), str) and all(isinstance(text, str) for text in completions):
        prompt = row["prompt"]
    else:
        written = [split_dialogue(row.get("prompt"), answer, where, tokenizer) for answer in completions]
        prompt, completions = written[0][0], [answer for _, answer in written]
    return prompt, completions, [float(-value if name == "ranks" else value) for value in values]


def _pair(row, where, tokenizer):
    sides = [row["chosen"], row["rejected"]]
    if all(isinstance(side, str) for side in sides):
        if isinstance(row.get("instruction"), str):  # LLaMA-Factory's Alpaca form
            question = "\n".join(text for text in (row["instruction"], row.get("input")) if text)
            system = [{"role": "system", "content": row["system"]}] if row.get("system") else []
            return _dialogue([*system, {"role": "user", "content": question}], sides, where, tokenizer)
        if isinstance(row.get("prompt"), list):
            return _dialogue(row["prompt"], sides, where, tokenizer)
        return (row["prompt"], sides) if isinstance(row.get("prompt"), str) else split_pair(*sides, where)
    prompt = row.get("conversations", row.get("prompt"))
    if isinstance(prompt, str) and any(len(side) > 1 for side in sides if isinstance(side, list)):
        prompt = None  # the answers hold the whole conversation, as in UltraFeedback's
    if row.get("system") and isinstance(prompt, list):
        prompt = [{"role": "system", "content": row["system"]}, *prompt]
    (prompt_text, chosen), (other, rejected) = [split_dialogue(prompt, side, where, tokenizer) for side in sides]
    if prompt_text != other:
        raise DataError(f"{where}: chosen and rejected answer different conversations")
    return prompt_text, [chosen, rejected]


def split_pair(chosen: str, rejected: str, where: str) -> tuple[str, list[str]]:
    """Prompt and answers of HH-RLHF's texts: the prompt ends with their last common "Assistant:".

    Raises:
        DataError: there is none, or one of the texts has another turn after it.
    """
    common = next(
        (place for place, (one, other) in enumerate(zip(chosen, rejected, strict=False)) if one != other),
        min(len(chosen), len(rejected)),
    )
    cut = chosen.rfind(ASSISTANT, 0, common)
    if cut < 0:
        raise DataError(
            f"{where}: chosen and rejected have no common beginning that ends with 'Assistant:'; give the prompt in a "
            "column of its own"
        )
    cut += len(ASSISTANT)
    answers = [chosen[cut:], rejected[cut:]]
    if any(turn in answer for answer in answers for turn in (HUMAN, ASSISTANT)):
        raise DataError(
            f"{where}: chosen and rejected differ before their last answer: their prompts are not the same"
        )
    return chosen[:cut], answers


def _dialogue(messages, answers, where, tokenizer):
    return conversation_text(_messages(messages, where), tokenizer), [_as_written(text, tokenizer) for text in answers]


def _as_written(answer, tokenizer):
    """An answer as it stands after the prompt; HH-RLHF's form has a space before it."""
    return answer if _has_template(tokenizer) else f" {answer.lstrip()}"


def split_dialogue(prompt, answer, where, tokenizer):
    """(prompt, answer) as texts: the answer is the assistant's last message, all before it is the prompt."""
    prompt = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt or []
    answer = [{"role": "assistant", "content": answer}] if isinstance(answer, str) else answer
    *before, last = _messages([*prompt, *(answer if isinstance(answer, list) else [answer])], where)
    if last["role"] != "assistant" or not before:
        raise DataError(f"{where}: an answer is a message of the assistant that follows one of the user")
    return conversation_text(before, tokenizer), _as_written(last["content"], tokenizer)


def _messages(messages, where):
    """Messages as {role, content}; ShareGPT's {from, value} are renamed."""
    found = []
    for message in messages:
        if not isinstance(message, dict):
            raise DataError(f"{where}: a message is an object with role and content, not {type(message).__name__}")
        message = {SHAREGPT.get(key, key): value for key, value in message.items()}
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or not isinstance(content, str):
            raise DataError(f"{where}: a message has role and content (or from and value), both texts")
        found.append({"role": ROLES.get(role, role), "content": content})
    return found


def _has_template(tokenizer):
    return tokenizer is not None and bool(tokenizer.chat_template)


def conversation_text(messages: list[dict], tokenizer=None) -> str:
    r"""The text after which the assistant answers: by the tokenizer's chat template, or else as in HH-RLHF.

    Example:
        [{"role": "user", "content": "Hi"}] -> "\n\nHuman: Hi\n\nAssistant:"
    """
    if _has_template(tokenizer):
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    names = {"user": f"{HUMAN} ", "assistant": f"{ASSISTANT} "}
    return "".join(names.get(one["role"], "") + one["content"].strip() for one in messages) + ASSISTANT
