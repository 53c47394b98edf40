"""Texts with a label each, from anywhere, in the columns of GLUE's tasks: idx, sentence1, label.

--task sst2 and cola read GLUE's own files, the Hub's nyu-mll/glue, or the built-in sentences like theirs. --task text
reads rows of any file (.jsonl, .csv, .tsv, also with .gz), folder or Hub data set; built in are short texts and what they
are about. The classes are the labels of the training data: numbers by size, other texts by the alphabet.

    {"review": "a fine film", "stars": 5}  ->  {"idx": 0, "sentence1": "a fine film", "label": 1}
"""

import math

from datasets import Dataset, DatasetDict

from hftoolkit.errors import DataError

from .glue import load_task as load_glue_task
from .glue import task_features
from .glue_tasks import TASKS, Task
from .in_context_rows import load_rows
from .labelled import BUILTIN_SHARE, fingerprint

SINGLE_SENTENCE = ("sst2", "cola")  # of GLUE
USUAL_COLUMNS = ("text", "sentence")  # where there are several columns of texts


def load_labelled_texts(data_args, task="text", *, text_column=None, label_column="label", validation_fraction=0.1):
    """Load texts with labels.

    Args:
        data_args: ExampleArguments; max_examples limits the training data to the first ones.
        task: "sst2", "cola" or "text".
        text_column, label_column: of the rows of "text"; the column of texts may be None where there is only one, or one
            called text or sentence.
        validation_fraction: share of the rows of "text" held out where the source has no validation data.

    Returns:
        (task, splits, summary): a Task with the names of the classes; the splits train, validation and, where there is
        one, test; numbers for the record of a run.

    Raises:
        DataError: missing or damaged data, a blank text, one class only, a validation label that training lacks.
        HubError: the Hub cannot be reached, or does not have the data set.
    """
    if task in SINGLE_SENTENCE:
        return TASKS[task], *load_glue_task(task, data_args)
    rows = _builtin(data_args) if data_args.dataset == "builtin" else None
    if rows is None:
        found = load_rows(data_args, label_column, validation_fraction=validation_fraction)
        column = _choose_column(found["train"][0], text_column, data_args.dataset)
        rows = {
            split: [(row.place, row.texts[column].strip(), *row.answers) for row in part]
            for split, part in found.items()
        }
    if "validation" not in rows:
        raise DataError(f"{data_args.dataset} has no validation data; hold some out: --validation_fraction 0.1")
    names = _class_names(label for _, _, label in rows["train"])
    if len(names) < 2:
        raise DataError(f"{data_args.dataset}: all training examples have the label {names[0]!r}; there must be two")
    chosen = Task("text", ("text",), "label", names, names, ("accuracy",), ("text",))
    splits = DatasetDict({split: _examples(part, chosen) for split, part in rows.items()})
    summary = {"name": data_args.dataset, "fingerprint": fingerprint(splits["train"]), "classes": len(names)}
    return chosen, splits, summary | {split: {"examples": len(part)} for split, part in splits.items()}


def _builtin(data_args):
    """(place, text, label) by split: short texts of the microworld, labelled with their topic."""
    from hftoolkit.data.microworld import topic_examples

    number = data_args.builtin_examples
    numbers = {"train": number} | dict.fromkeys(("validation", "test"), math.ceil(number / BUILTIN_SHARE))
    rows = {split: topic_examples(count, data_args.builtin_seed, split) for split, count in numbers.items()}
    rows["train"] = rows["train"][: data_args.max_examples]
    return {split: [("builtin", row["text"], row["label_text"]) for row in part] for split, part in rows.items()}


def _choose_column(row, wanted, where):
    if wanted is not None:
        if wanted not in row.texts:
            raise DataError(f"{where}: no column of texts {wanted!r} (--text_column); there is {', '.join(row.texts)}")
        return wanted
    usual = [name for name in USUAL_COLUMNS if name in row.texts]
    if not usual and len(row.texts) > 1:
        raise DataError(f"{where}: several columns of texts, {', '.join(row.texts)}; choose one with --text_column")
    return (usual or list(row.texts))[0]


def _class_names(labels):
    names = set(labels)
    try:
        return tuple(sorted(names, key=float))
    except ValueError:
        return tuple(sorted(names))


def _examples(rows, task):
    numbers, examples = {name: number for number, name in enumerate(task.names)}, []
    for index, (place, text, label) in enumerate(rows):
        if not text:
            raise DataError(f"{place}: the text is blank; remove the row")
        if label not in numbers:
            known = ", ".join(task.names[:8]) + (", ..." if len(task.names) > 8 else "")
            raise DataError(f"{place}: the label {label!r} does not occur in the training data, which has {known}")
        examples.append({"idx": index, "sentence1": text, "label": numbers[label]})
    return Dataset.from_list(examples, features=task_features(task, examples[0]))
