"""One preference of any known form: prompt, answers, scores, margin."""

import math

from hftoolkit.errors import DataError

ASSISTANT, HUMAN = "\n\nAssistant:", "\n\nHuman:"
SPEAKERS = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
ROLES = SPEAKERS | {"observation": "tool", "function_call": "assistant"}
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
        DataError: see preference_parts.

    Example:
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant: No."}
        -> {"prompt": "\n\nHuman: Hi\n\nAssistant:", "completions": [" Hello.", " No."], "scores": [1.0, 0.0],
            "margin": None}
    """
    found = preference_parts(row, where)
    if isinstance(found["prompt"], list):
        found["prompt"] = conversation_text(found["prompt"], tokenizer)
        found["completions"] = [_as_written(text, tokenizer) for text in found["completions"]]
    return found


def preference_parts(row, where: str) -> dict:
    """What read_preference gives, before a template writes it: the prompt of a conversation is its messages.

    Raises:
        DataError: no known form, an empty answer, equal answers, a margin that is no number, all answers tied.

    Example:
        {"prompt": "Hi", "chosen": [assistant "Hello."], "rejected": [assistant "No."]}
        -> {"prompt": [{"role": "user", "content": "Hi"}], "completions": ["Hello.", "No."], "scores": [1.0, 0.0],
            "margin": None}
    """
    prompt, completions = _prompt_and_answers(row, where)
    scores = _scores(row, where) if "completions" in row else [1.0, 0.0]
    for number, text in enumerate(completions):
        if not text.strip():
            name = f"number {number}" if "completions" in row else ("chosen", "rejected")[number]
            raise DataError(f"{where}: the answer {name} is empty")
    _refuse_equal_answers(completions if isinstance(prompt, str) else list(map(str.strip, completions)), scores, where)
    margin = row.get("margin")
    if margin is not None and not _is_number(margin):
        raise DataError(f"{where}: the margin {margin!r} is no finite number")
    return {
        "prompt": prompt,
        "completions": completions,
        "scores": scores,
        "margin": None if margin is None else float(margin),
    }


def preference_prompt(row, where: str):
    """The prompt alone, text or messages, of a row whose answers need not be good: they may be empty, equal or tied.

    Raises:
        DataError: no known form, or no prompt that the answers share.
    """
    return _prompt_and_answers(row, where)[0]


def _prompt_and_answers(row, where):
    """The prompt, text or messages, and its answers as texts."""
    if not isinstance(row, dict):
        raise DataError(f"{where}: a row is an object with {FORMS}, not {type(row).__name__}")
    if "completions" in row:
        return _ranked(row, where)
    if "chosen" in row and "rejected" in row:
        return _pair(row, where)
    raise DataError(f"{where}: no known form ({', '.join(map(str, list(row)[:8]))}); a row has {FORMS}")


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _refuse_equal_answers(completions, scores, where):
    seen = {}
    for text, score in zip(completions, scores, strict=True):
        if seen.setdefault(text, score) != score:
            what = "chosen and rejected are" if len(completions) == 2 else "two answers of different rank are"
            raise DataError(f"{where}: {what} the same text, {text.strip()[:40]!r}: there is nothing to prefer")


def _ranked(row, where):
    prompt, completions = row.get("prompt"), row["completions"]
    if not isinstance(completions, list) or not completions:
        raise DataError(f"{where}: completions are a list of answers, not {str(completions)[:40]!r}")
    if isinstance(prompt, str) and all(isinstance(text, str) for text in completions):
        return prompt, completions
    return _conversation(prompt, completions, where, row.get("system"))


def _scores(row, where):
    """Scores of a ranking; the higher is the better answer."""
    completions, given = row["completions"], [name for name in ("ranks", "scores") if row.get(name) is not None]
    if len(given) != 1:
        raise DataError(f"{where}: completions come with ranks or with scores, one of the two")
    name, values = given[0], row[given[0]]
    if not isinstance(values, list) or len(completions) != len(values):
        raise DataError(f"{where}: completions and {name} are lists of one length")
    if len(completions) < 2:
        raise DataError(f"{where}: {len(completions)} answers; a ranking has at least two")
    for value in values:
        if not _is_number(value):
            raise DataError(f"{where}: {value!r} in {name} is no finite number")
    if len(set(values)) == 1:
        raise DataError(f"{where}: all {len(values)} answers are tied ({name} {values[0]}): none is preferred")
    return [float(-value if name == "ranks" else value) for value in values]


def _pair(row, where):
    sides, system = [row["chosen"], row["rejected"]], row.get("system")
    prompt = row["prompt"] if row.get("conversations") is None and "prompt" in row else row.get("conversations")
    if all(isinstance(side, str) for side in sides):
        if isinstance(row.get("instruction"), str):  # LLaMA-Factory's Alpaca form
            question = "\n".join(text for text in (row["instruction"], row.get("input")) if text)
            return _conversation(question, sides, where, system)
        if not isinstance(prompt, list):
            return (prompt, sides) if isinstance(prompt, str) else split_pair(*sides, where)
    if isinstance(prompt, str) and any(len(side) > 1 for side in sides if isinstance(side, list)):
        prompt = None  # the answers hold the whole conversation, as in UltraFeedback's
    return _conversation(prompt, sides, where, system)


def _conversation(prompt, answers, where, system):
    """Messages before the answers, and the answers as texts."""
    split = [split_messages(prompt, answer, where) for answer in answers]
    messages = split[0][0]
    if any(before != messages for before, _ in split):
        raise DataError(f"{where}: chosen and rejected, or ranked answers, answer different conversations")
    if system and messages[0]["role"] != "system":
        messages = _messages([{"role": "system", "content": system}, *messages], where)
    texts = [text for _, text in split]
    return messages, texts


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


def _as_written(answer, tokenizer):
    """An answer as it stands after the prompt; HH-RLHF's form has a space before it."""
    return answer if _has_template(tokenizer) else f" {answer.lstrip()}"


def split_dialogue(prompt, answer, where, tokenizer):
    """(prompt, answer) as texts: the answer is the assistant's last message, all before it is the prompt."""
    before, text = split_messages(prompt, answer, where)
    return conversation_text(before, tokenizer), _as_written(text, tokenizer)


def split_messages(prompt, answer, where):
    """(messages, text): the text is the assistant's last message, the messages are all before it.

    Args:
        prompt: text, messages or None.
        answer: text, a message, or messages that go on from the prompt.

    Raises:
        DataError: no messages, or none of the assistant after others.
    """
    prompt = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt or []
    answer = [{"role": "assistant", "content": answer}] if isinstance(answer, str) else answer
    *before, last = _messages([*prompt, *(answer if isinstance(answer, list) else [answer])], where) or [
        {"role": None}
    ]
    if last["role"] != "assistant" or not before:
        raise DataError(f"{where}: an answer is a message of the assistant that follows one of the user")
    return before, last["content"]


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
