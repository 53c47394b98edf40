r"""Instructions with answers: a row of any known form as a text prompt with its completion, or as a conversation.

    prompt, completion       texts (OpenAI's older form, T0), or both lists of messages (TRL)
    messages                 [{"role": "user", "content": "Hi"}, ...] (OpenAI)
    conversations            [{"from": "human", "value": "Hi"}, ...] (ShareGPT, LLaMA-Factory), "system" beside it
    instruction, input, output               Alpaca; LLaMA-Factory's "system" and "history" beside them
    instruction, context, response           Dolly
    instruction, instances [{input, output}] Self-Instruct: one example for each instance
    chosen, rejected; or prompt, completions, ranks or scores: preferences, whose best answer is the demonstration; what
                             is no plain text or HH-RLHF's is a conversation, as reward models read it

The templates of Alpaca's prompts are those of tatsu-lab/stanford_alpaca, train.py (PROMPT_DICT), commit 15b51ae.
"""

from hftoolkit.errors import DataError

from .preferences_rows import SPEAKERS, preference_parts

PROMPT_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
PROMPT_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:"
)
END_OF_TEXT = "<|endoftext|>"  # ends completions that were written for GPT-2; the recipe adds the tokenizer's own
FORMS = (  # the columns that tell a form, in the order in which they are looked for
    ("messages",),
    ("chosen", "rejected"),  # before conversations and instruction, which are their prompt in LLaMA-Factory's files
    ("prompt", "completions"),
    ("conversations",),
    ("prompt", "completion"),
    ("instruction", "instances"),
    ("instruction", "output"),
    ("instruction", "response"),
)
KNOWN = "; ".join(", ".join(form) for form in FORMS)


def instruction_rows(row, where: str, *, chat: bool = False, columns: list[str] | None = None) -> list[dict]:
    """The examples of a row, in TRL's forms: mostly one, several where it has instances.

    Args:
        where: file and line, in an error.
        chat: turn texts into conversations of one turn each.
        columns: what prompt and completion are called in these data; a line break then parts them.

    Returns:
        Dictionaries with prompt and completion, texts or both lists of messages, or with messages alone.

    Raises:
        DataError: no known form, an empty completion, an unknown role or one out of order, a text that is none.

    Example:
        {"instruction": "Name a colour.", "output": "Red."}
        -> [{"prompt": PROMPT_WITHOUT_INPUT with the instruction, "completion": "Red."}]
        the same with chat -> [{"messages": [{"role": "user", "content": "Name a colour."},
                                             {"role": "assistant", "content": "Red."}]}]
    """
    if not isinstance(row, dict):
        raise DataError(f"{where}: a row is an object with named fields, not {_kind(row)}")
    if columns is not None:
        missing = [name for name in columns if name not in row]
        if missing:
            raise DataError(f"{where}: no column '{missing[0]}'; the columns are {_listed(row)}")
        prompt = _text(row[columns[0]], f"the prompt ({columns[0]})", where)
        row = {"prompt": prompt if prompt[-1].isspace() or chat else f"{prompt}\n", "completion": row[columns[1]]}
    form = next((form for form in FORMS if all(row.get(name) is not None for name in form)), None)
    form = form or next((form for form in FORMS if all(name in row for name in form)), None)
    if form is None:
        raise DataError(
            f"{where}: none of the known columns: the row has {_listed(row)}; accepted are {KNOWN}. Where they are "
            "called otherwise, name prompt and completion with --columns"
        )
    if form == ("messages",) or form == ("conversations",):
        return [{"messages": conversation(row[form[0]], where, row.get("system"))}]
    if form == ("prompt", "completion"):
        return [_prompt_completion(row, where, chat)]
    if form[-1] in ("rejected", "completions"):
        return [_preferred(row, where, chat)]
    if form == ("instruction", "instances"):
        return _instances(row, where, chat)
    return [_alpaca(row, form[1], where, chat)]


def conversation(turns, where: str, system: str | None = None, *, begins: str = "user") -> list[dict]:
    """The messages of a conversation, with the roles system, user and assistant.

    Args:
        turns: list of {"role", "content"} or {"from", "value"}.
        system: what stands before them where they have no system message; None or empty is nothing.
        begins: whose turn the first is that is not the system's.

    Raises:
        DataError: see instruction_rows; also a conversation that does not end with the assistant.

    Example:
        [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]
        -> [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    """
    if not isinstance(turns, list) or not turns:
        raise DataError(
            f"{where}: a conversation is a list of messages, not {_kind(turns) if turns != [] else 'empty'}"
        )
    messages = [_message(turn, f"{where}, message {number}") for number, turn in enumerate(turns)]
    if system and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": _text(system, "system", where)})
    expected = begins
    for number, message in enumerate(messages):
        role, place = message["role"], f"{where}, message {number}"
        if role == "system" and number == 0 and begins == "user":
            continue
        if role != expected:
            rule = "after an optional system message, user and assistant take turns"
            raise DataError(f"{place}: the role is {role}, but it is the turn of {expected}: {rule}")
        expected = "assistant" if role == "user" else "user"
    if messages[-1]["role"] != "assistant":
        raise DataError(
            f"{where}: the conversation ends with {messages[-1]['role']}; the assistant must have the last word"
        )
    return messages


def _message(turn, where):
    keys = ("from", "value") if isinstance(turn, dict) and "from" in turn else ("role", "content")
    if not isinstance(turn, dict) or any(key not in turn for key in keys):
        found = _listed(turn) if isinstance(turn, dict) else _kind(turn)
        raise DataError(f"{where}: a message has role and content, or from and value; this one is {found}")
    role = SPEAKERS.get(turn[keys[0]]) if isinstance(turn[keys[0]], str) else None
    if role is None:
        raise DataError(f"{where}: unknown role {turn[keys[0]]!r}; the roles are {', '.join(SPEAKERS)}")
    return {"role": role, "content": _text(turn[keys[1]], f"the content of {role}", where)}


def _prompt_completion(row, where, chat):
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, list) and isinstance(completion, list):
        whole = conversation([*prompt, *completion], where)
        answer = conversation(completion, f"{where}, completion", begins="assistant")
        return {"prompt": whole[: len(prompt)], "completion": answer}
    prompt = _text(prompt, "the prompt", where)
    completion = _text(completion, "the completion", where).removesuffix(END_OF_TEXT)
    return _example(prompt, _text(completion, "the completion", where), chat)


def _preferred(row, where, chat):
    """The best answer of a preference; a conversation where reward models read one, with the same prompt."""
    found = preference_parts(row, where)
    best = max(range(len(found["scores"])), key=found["scores"].__getitem__)
    prompt, answer = found["prompt"], found["completions"][best]
    if isinstance(prompt, str):
        return _example(_text(prompt, "the prompt", where), answer, chat)
    return {"messages": conversation([*prompt, {"role": "assistant", "content": answer}], where)}


def _instances(row, where, chat):
    instances = row["instances"]
    if not isinstance(instances, list) or not instances:
        raise DataError(f"{where}: instances are a list of objects with input and output, not {_kind(instances)}")
    found = []
    for number, instance in enumerate(instances):
        if not isinstance(instance, dict) or "output" not in instance:
            raise DataError(f"{where}, instance {number}: an instance has input and output")
        whole = {"instruction": row["instruction"], "input": instance.get("input"), "output": instance["output"]}
        found.append(_alpaca(whole, "output", f"{where}, instance {number}", chat))
    return found


def _alpaca(row, output, where, chat):
    """An instruction with an optional input; LLaMA-Factory's system and history only fit into a conversation."""
    answer = _text(row[output], f"the completion ({output})", where)
    instruction = _text(row["instruction"], "the instruction", where)
    given = row.get("input") if output == "output" else row.get("context")
    if given is not None and not isinstance(given, str):
        raise DataError(f"{where}: the input is {_kind(given)}, not text")
    history, system = row.get("history") or [], row.get("system")
    if not chat:
        if history or system:
            raise DataError(f"{where}: system and history need a conversation: give --chat true")
        template = PROMPT_WITH_INPUT if given else PROMPT_WITHOUT_INPUT
        return {"prompt": template.format(instruction=instruction, input=given), "completion": answer}
    turns = []
    for number, pair in enumerate(history):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise DataError(f"{where}: history {number} is a pair of a question and its answer, not {_kind(pair)}")
        turns += zip(("user", "assistant"), pair, strict=True)
    turns += [("user", f"{instruction}\n{given}" if given else instruction), ("assistant", answer)]
    return {"messages": conversation([{"role": role, "content": text} for role, text in turns], where, system)}


def _example(prompt, completion, chat):
    if not chat:
        return {"prompt": prompt, "completion": completion}
    turns = (("user", prompt), ("assistant", completion))
    return {"messages": [{"role": role, "content": text.strip()} for role, text in turns]}


def _text(value, what, where):
    if not isinstance(value, str):
        raise DataError(f"{where}: {what} is {_kind(value)}, not text")
    if not value.strip():
        raise DataError(f"{where}: {what} is empty")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: {what} holds half a surrogate pair at position {error.start}") from None
    return value


def _kind(value):
    return (
        "null"
        if value is None
        else {"str": "text", "dict": "an object"}.get(type(value).__name__, type(value).__name__)
    )


def _listed(row):
    return ", ".join(map(str, list(row)[:12])) or "no columns"
