"""Cut a question and its context into rows that a model can read: windows that overlap.

Paper: Devlin et al. 2018, https://arxiv.org/abs/1810.04805, Section 4.2; google-research/bert run_squad.py,
convert_examples_to_features.
Differs from it: `doc_stride` is what two neighbouring windows share, as in transformers' examples (in run_squad.py it
is how far the window moves).
"""

import numpy as np
from datasets import Dataset, Features, List, Value

from hftoolkit.errors import DataError

NO_CHARACTER = -1  # offset of a token that is not of the context
COLUMNS = {
    "input_ids": List(Value("int32")),
    "start_positions": Value("int32"),
    "end_positions": Value("int32"),
    "question_row": Value("int32"),
    "null_position": Value("int32"),
    "has_answer": Value("bool"),
    "question_cut": Value("bool"),
}
OFFSETS = {"first_characters": List(Value("int32")), "last_characters": List(Value("int32"))}


def make_windows(
    questions: Dataset, tokenizer, *, max_length=384, doc_stride=128, max_question_length=64, num_workers=None
) -> Dataset:
    """Rows of at most max_length tokens: question and a window of the context, in the order of the questions.

    The columns beside the model's inputs: question_row (index of the question), null_position (where an answer that
    is not in this window points: [CLS], or the first token), first_characters and last_characters (each token's
    characters of the context, [first, last); -1 for other tokens), has_answer, question_cut.

    Args:
        questions: from load_questions.
        max_question_length: tokens of a question that are read; the rest of a longer one is cut off.

    Raises:
        DataError: a slow tokenizer (it gives no offsets), or lengths that leave no room for the context.
    """
    if not tokenizer.is_fast:
        raise DataError(f"{type(tokenizer).__name__} gives no offsets of its tokens; use a fast tokenizer")
    special = tokenizer.num_special_tokens_to_add(pair=True)
    room = max_length - special - max_question_length
    if room <= doc_stride:
        raise DataError(
            f"max_length {max_length} leaves {room} tokens for the context beside a question of "
            f"max_question_length {max_question_length}: that must be more than doc_stride {doc_stride}"
        )
    if max_length > tokenizer.model_max_length:
        raise DataError(f"max_length {max_length}: the model reads at most {tokenizer.model_max_length} tokens")
    inputs = {name: List(Value("int8")) for name in tokenizer.model_input_names if name != "input_ids"}
    return questions.map(
        _window_rows,
        batched=True,
        batch_size=200,
        with_indices=True,
        remove_columns=questions.column_names,
        features=Features(COLUMNS | OFFSETS | inputs),
        num_proc=num_workers,
        fn_kwargs={
            "tokenizer": tokenizer,
            "max_length": max_length,
            "doc_stride": doc_stride,
            "max_question_length": max_question_length,
        },
    )


def _window_rows(batch, indices, tokenizer, max_length, doc_stride, max_question_length):
    texts, is_cut = _cut_questions(batch["question"], tokenizer, max_question_length)
    rows = tokenizer(
        texts,
        batch["context"],
        max_length=max_length,
        truncation="only_second",
        stride=doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        verbose=False,
    )
    extra = {name: [] for name in (*COLUMNS, *OFFSETS) if name != "input_ids"}
    for row, example in enumerate(rows["overflow_to_sample_mapping"]):
        in_context = np.array([part == 1 for part in rows.sequence_ids(row)])
        offsets = np.where(in_context[:, None], np.array(rows["offset_mapping"][row]), NO_CHARACTER)
        ids = rows["input_ids"][row]
        null = ids.index(tokenizer.cls_token_id) if tokenizer.cls_token_id in ids else 0
        span = find_tokens(offsets[:, 0], offsets[:, 1], batch["span"][example])
        start, end = span or (null, null)
        values = (start, end, indices[example], null, span is not None, is_cut[example], offsets[:, 0], offsets[:, 1])
        for column, value in zip(extra.values(), values, strict=True):
            column.append(value)
    return {name: rows[name] for name in tokenizer.model_input_names} | extra


def _cut_questions(questions, tokenizer, max_question_length):
    """The questions without the characters after their first max_question_length tokens, and which were cut.

    Leading white space goes, too: some questions have so much of it that nothing else is left.
    """
    texts = [question.strip() for question in questions]
    found = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    is_cut = [len(offsets) > max_question_length for offsets in found]
    ends = [offsets[max_question_length - 1][1] if cut else None for offsets, cut in zip(found, is_cut, strict=True)]
    return [text[:end] for text, end in zip(texts, ends, strict=True)], is_cut


def find_tokens(first, last, span) -> tuple[int, int] | None:
    """The first and last token of an answer, or None where the window does not hold it whole.

    Args:
        first, last: characters of each token, [first, last), arrays (T,); NO_CHARACTER outside the context.
        span: characters of the answer, [start, end); empty where there is none.

    Example:
        tokens  [CLS] who [SEP] Anna took it   with first -1 -1 -1 0 5 10, last -1 -1 -1 4 9 12
        span    [5, 9] -> (4, 4);  [0, 9] -> (3, 4);  [9, 20] -> None
    """
    if not len(span):
        return None
    start, end = span
    inside = np.flatnonzero((last > start) & (first < end) & (first != NO_CHARACTER) & (last > first))
    if not len(inside) or first[inside[0]] > start or last[inside[-1]] < end:
        return None
    return int(inside[0]), int(inside[-1])


def describe_windows(questions: Dataset, windows: Dataset) -> dict[str, int]:
    """Numbers of rows, of questions cut, and of answers that no window holds whole."""
    rows, has_answer = np.array(windows["question_row"]), np.array(windows["has_answer"], dtype=bool)
    counts = {"windows": len(windows), "tokens": sum(map(len, windows["input_ids"]))}
    if lost := len(lost_answers(questions, windows)):
        counts["answers_lost_by_truncation"] = lost
    if cut := len(np.unique(rows[np.array(windows["question_cut"], dtype=bool)])):
        counts["questions_cut"] = cut
    return counts | {"windows_without_answer": int((~has_answer).sum())}


def lost_answers(questions: Dataset, windows: Dataset) -> set[int]:
    """Rows of the questions whose answer stands in the context, but in no window whole."""
    rows, has_answer = np.array(windows["question_row"]), np.array(windows["has_answer"], dtype=bool)
    held = set(rows[has_answer].tolist())
    return {row for row, span in enumerate(questions["span"]) if span and row not in held}


def drop_lost_answers(questions: Dataset, windows: Dataset) -> Dataset:
    """The windows to train on: a question whose answer is in none of them would be taught to have none."""
    lost = lost_answers(questions, windows)
    if not lost:
        return windows
    return windows.select([number for number, row in enumerate(windows["question_row"]) if row not in lost])
