"""Examples of text-to-text tasks from each task's own source, as strings and as token ids.

GLUE comes from its TSV folders or the Hub, SQuAD from its JSON, translations from parallel text, summaries from rows with
a column for the document and one for the summary (JSON lines, CSV, TSV, Parquet); all are also built in.
"""

import hashlib
from copy import copy
from pathlib import Path

from datasets import Dataset, Features, Value

from hftoolkit.errors import DataError

from .formats import MISSING, read_rows
from .glue import available_tasks, load_task
from .glue_tasks import TASKS
from .labelled import fingerprint, load_examples
from .language_modeling import AS_TEXT
from .parallel import BUILTIN_LANGUAGES, load_parallel
from .question_answering import load_questions
from .splits import local_source

VALIDATION_FRACTION = 0.1  # held out where a source has no validation data
SUMMARY_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


def source_of(name, data_args, sources):
    """ExampleArguments for one of several tasks: its own source, or its subfolder of --dataset, or --dataset.

    A folder is looked for under the task's name, in any case; GLUE's own folders are found by the reader of GLUE.
    """
    found = copy(data_args)
    if name in sources:
        found.dataset = str(sources[name])
    elif data_args.dataset != "builtin" and (folder := local_source(data_args.dataset)) is not None:
        folders = [path for path in sorted(Path(folder).glob("*")) if path.is_dir() and path.name.lower() == name]
        if name not in TASKS and folders:
            found.dataset = str(folders[0])
    return found


def load_text_tasks(tasks, data_args, sources, languages, columns):
    """Examples of all tasks, see load_text_task, and a summary for the record of a run.

    Args:
        tasks: {name: TextTask}.
        sources: {task: a data set of its own}.
    """
    examples, summary, prints = {}, {}, []
    for name, task in tasks.items():
        source = source_of(name, data_args, sources)
        examples[name], found = load_text_task(name, task, source, languages, columns)
        prints.append(found["fingerprint"])
        summary[name] = {f"{split}_examples": len(part) for split, part in examples[name].items()}
    together = prints[0] if len(prints) == 1 else hashlib.sha256("-".join(prints).encode()).hexdigest()[:16]
    return examples, {"name": data_args.dataset, "fingerprint": together} | summary


def load_text_task(name, task, data_args, languages=None, columns=None):
    """Examples of a task, each with inputs, target and what its metric compares with.

    Args:
        name, task: of text_to_text.TEXT_TASKS.
        languages: of a translation, source and target.
        columns: of a summary's rows: the document's, and the summary's; None is document and summary.

    Returns:
        ({split: Dataset}, summary for the record of a run). Columns: inputs, target, and label (a class or a score),
        answers (of a question) or none.

    Raises:
        DataError: the data are missing, damaged or empty, a text is blank, a question has no answer.
        HubError: the Hub cannot be reached, or does not have the data set.
    """
    if name in TASKS:
        if data_args.dataset == "builtin" and name not in available_tasks(data_args):
            raise DataError(f"the built-in data have no task like {name}")
        splits, summary = load_task(name, data_args)
        splits = {split: part for split, part in splits.items() if split.startswith(("train", "validation"))}
    elif name == "squad":
        splits, summary = _questions(data_args), None
    elif name == "translation":
        splits, summary = load_parallel(data_args, languages, validation_fraction=VALIDATION_FRACTION)[0], None
        splits = {split: part for split, part in splits.items() if split in ("train", "validation")}
    else:
        splits, summary = _summaries(data_args, columns or ("document", "summary")), None
    if "validation" not in splits:
        raise DataError(f"{data_args.dataset}: {name} has no validation data")
    if summary is None:
        summary = {"name": data_args.dataset, "fingerprint": fingerprint(splits["train"])}
    return {split: _as_text(name, task, part) for split, part in splits.items()}, summary


def _as_text(name, task, rows):
    """The rows of one split as inputs and targets, with what is needed to score them."""
    found = []
    for number, row in enumerate(rows):
        example = {"inputs": task.inputs(row)}
        if name in TASKS:
            example |= {"target": task.target(row["label"]), "label": row["label"]}
        elif name == "squad":
            example |= {"target": row["answers"]["text"][0], "answers": row["answers"]["text"]}
        else:
            example |= {"target": row["target" if name == "translation" else "summary"]}
        blank = [column for _, column in task.parts if not row[column].strip()]
        if not example["target"].strip() or (task.is_text and blank):
            raise DataError(
                f"{name}, example {number}: the {blank[0] if blank else 'target'} is blank: {dict(row)}"[:300]
            )
        found.append(example)
    return Dataset.from_list(found)


def _questions(data_args):
    splits = load_questions(data_args, validation_fraction=VALIDATION_FRACTION)
    for split, rows in splits.items():
        if without := [row["id"] for row in rows if not row["answers"]["text"]]:
            raise DataError(
                f"{data_args.dataset}, {split}: {len(without)} questions have no answer, such as {without[0]}: that is "
                "SQuAD 2.0, and T5's form is of 1.1"
            )
    return {split: splits[split] for split in ("train", "validation") if split in splits}


def _summaries(data_args, columns):
    from hftoolkit.data.microworld import summary_examples

    def from_hub(rows, where):
        for column in columns:
            if column not in rows.column_names:
                raise DataError(f"{where}: no column {column!r}; it has {', '.join(rows.column_names)}")
        yield from ({"document": row[columns[0]], "summary": row[columns[1]]} for row in rows)

    splits = load_examples(
        data_args,
        Features({"document": Value("string"), "summary": Value("string")}),
        builtin=summary_examples,
        read_file=lambda file: _read_columns(file, columns),
        read_hub=from_hub,
        suffixes=SUMMARY_SUFFIXES,
        validation_fraction=VALIDATION_FRACTION,
    )
    return {split: splits[split] for split in ("train", "validation") if split in splits}


def _read_columns(file, columns):
    """Documents and summaries of a file of rows."""
    try:
        for (number, document), (_, summary) in zip(
            *(read_rows(file, column, "line") for column in columns), strict=True
        ):
            for column, text in zip(columns, (document, summary), strict=True):
                if isinstance(text, DataError):
                    raise text
                if text is MISSING or not isinstance(text, str):
                    raise DataError(f"{file}:{number}: no text in the column '{column}'")
            yield {"document": document.strip(), "summary": summary.strip()}
    except DataError as error:
        raise DataError(str(error).replace("--text_column", "--columns")) from error


def training_texts(tasks, examples):
    """All inputs and targets of the training data, and every answer that a task knows, for a tokenizer to learn from."""
    for name, task in tasks.items():
        yield from task.answers()
        for row in examples[name]["train"]:
            yield row["inputs"]
            yield row["target"]


def encode_task(splits, tokenizer, max_length, max_target_length, num_workers=None):
    """Token ids of inputs and targets, each ending with the end of sequence and cut to its limit.

    Returns:
        ({split: Dataset of input_ids and labels}, {split: how many inputs and targets were cut, and how many targets
        have an unknown token}).
    """
    eos, unknown = tokenizer.eos_token_id, tokenizer.unk_token_id

    def encode(batch):
        rows = {}
        for side, column, limit in (("inputs", "input_ids", max_length), ("target", "labels", max_target_length)):
            ids = tokenizer(batch[side], return_attention_mask=False, verbose=False, **AS_TEXT)["input_ids"]
            rows[column] = [row[: limit - 1] + [eos] for row in ids]
            rows[f"cut_{side}"] = [len(row) >= limit for row in ids]
        rows["unknown"] = [unknown is not None and unknown in row[:-1] for row in rows["labels"]]
        return rows

    tokens, counts = {}, {}
    for split, part in splits.items():
        names = part.column_names
        options = dict(batched=True, remove_columns=names, num_proc=num_workers, desc="tokenise")
        found = part.map(encode, **options)
        kinds = {"cut_inputs": "cut_inputs", "cut_target": "cut_targets", "unknown": "targets_with_unknown_tokens"}
        counts[split] = {shown: n for name, shown in kinds.items() if (n := sum(found[name]))}
        tokens[split] = found.remove_columns(list(kinds))
    return tokens, counts


def encode_tasks(tasks, examples, tokenizer, max_length, max_target_length, num_workers=None):
    """Token ids of all tasks, each task's answers as the tokenizer writes them, and what was cut, for the record.

    Returns:
        ({task: {split: Dataset}}, {task: {answer: label}}, {task: {"train_cut_inputs": number, ...}}).
    """
    answers = {name: written_answers(task, tokenizer, max_target_length) for name, task in tasks.items()}
    limits = (max_length, max_target_length, num_workers)
    encoded = {name: encode_task(splits, tokenizer, *limits) for name, splits in examples.items()}
    tokens = {name: splits for name, (splits, _) in encoded.items()}
    cut = {
        name: {f"{split}_{what}": number for split, found in counts.items() for what, number in found.items()}
        for name, (_, counts) in encoded.items()
    }
    return tokens, answers, cut


def written_answers(task, tokenizer, max_target_length):
    """A task's answers as the tokenizer writes them, to their labels; empty for free text.

    Raises:
        DataError: two answers look alike, or one is longer than the limit.
    """
    found = {}
    for word, label in task.answers().items():
        ids = tokenizer(word, **AS_TEXT)["input_ids"]
        if len(ids) >= max_target_length:
            raise DataError(
                f"the answer {word!r} has {len(ids) + 1} tokens, but max_target_length is {max_target_length}"
            )
        text = tokenizer.decode(ids, skip_special_tokens=True).strip()
        if text in found:
            raise DataError(
                f"the tokenizer writes the answer {word!r} as {text!r}, as it does another one: it was not trained on "
                "these characters; use one that knows them"
            )
        found[text] = label
    return found


def languages_of(data_args, languages=None):
    """Source and target language: those asked for, or those of the built-in data, or English and German."""
    if languages:
        return tuple(languages)
    return BUILTIN_LANGUAGES if data_args.dataset == "builtin" else ("en", "de")
