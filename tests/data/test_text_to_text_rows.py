"""Examples of text-to-text tasks from every source, as strings and as token ids."""

import json

import pytest

from hftoolkit.arguments import ExampleArguments
from hftoolkit.data.text_to_text import TEXT_TASKS, text_tasks
from hftoolkit.data.text_to_text_rows import (
    encode_task,
    encode_tasks,
    languages_of,
    load_text_task,
    load_text_tasks,
    source_of,
    training_texts,
    written_answers,
)
from hftoolkit.errors import DataError
from hftoolkit.tokenization import train_tokenizer


def load(name, folder, **options):
    return load_text_task(name, TEXT_TASKS[name], ExampleArguments(dataset=str(folder)), **options)[0]


def write_lines(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def builtin():
    names = ["cola", "sst2", "mrpc", "stsb", "mnli", "qnli", "rte", "squad", "translation", "summarization"]
    tasks = text_tasks(names, languages=("en", "tamo"))
    arguments = ExampleArguments(builtin_examples=20)
    return tasks, *load_text_tasks(tasks, arguments, {}, languages_of(arguments), None)


def test_built_in_tasks(builtin):
    tasks, examples, summary = builtin
    for name, task in tasks.items():
        assert summary[name] == {"train_examples": 20, "validation_examples": 4}
        row = examples[name]["train"][0]
        assert row["inputs"].startswith(task.opening) and row["target"]
        if "label" in row:
            assert row["target"] == task.target(row["label"])
    assert examples["squad"]["train"][0]["target"] == examples["squad"]["train"][0]["answers"][0]
    assert examples["translation"]["train"][0]["inputs"].startswith("translate English to Tamo: ")


def test_token_ids(builtin):
    tasks, examples, _ = builtin
    tokenizer = train_tokenizer("unigram", training_texts(tasks, examples), 700)
    tokens, answers, cut = encode_tasks(tasks, examples, tokenizer, 16, 10)
    for splits in tokens.values():
        for row in splits["train"]:
            assert row["input_ids"][-1] == row["labels"][-1] == tokenizer.eos_token_id
            assert len(row["input_ids"]) <= 16 and len(row["labels"]) <= 10
    assert cut["squad"]["train_cut_inputs"] == 20 and cut["summarization"]["train_cut_targets"] > 0
    assert not cut["sst2"].get("train_cut_targets") and answers["sst2"] == {"negative": 0, "positive": 1}
    assert len(answers["stsb"]) == 26 and not answers["squad"]


def test_a_sentinel_in_a_text_is_text(builtin):
    tasks, examples, _ = builtin
    tokenizer = train_tokenizer("unigram", training_texts(tasks, examples), 700)
    rows = examples["sst2"]["train"].map(lambda row: row | {"inputs": row["inputs"] + " <extra_id_0>"})
    tokens, _ = encode_task({"train": rows}, tokenizer, 512, 8)
    sentinel = tokenizer.convert_tokens_to_ids("<extra_id_0>")
    assert not any(sentinel in row for row in tokens["train"]["input_ids"])


def test_answers_that_a_tokenizer_cannot_write():
    tokenizer = train_tokenizer("unigram", ["positive negative equivalent 0.4 2.0"] * 3, 150)
    assert written_answers(TEXT_TASKS["sst2"], tokenizer, 32) == {"negative": 0, "positive": 1}
    with pytest.raises(DataError, match="writes the answer"):
        written_answers(TEXT_TASKS["stsb"], tokenizer, 32)
    with pytest.raises(DataError, match="'negative' has .* tokens, but max_target_length is 2"):
        written_answers(TEXT_TASKS["sst2"], train_tokenizer("unigram", ["negativ posit e"], 120), 2)


def test_summaries_from_files(tmp_path):
    rows = [{"text": f"Document {n}. More.", "gist": f"Gist {n}."} for n in range(20)]
    write_lines(tmp_path / "json" / "train.jsonl", rows)
    splits = load("summarization", tmp_path / "json", columns=["text", "gist"])
    assert splits["train"][0] == {"inputs": "summarize: Document 0. More.", "target": "Gist 0."}
    assert len(splits["validation"]) == 2  # a tenth is held out
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "train.csv").write_text('document,summary\n"A, long.",Short.\nB.,C.\n')
    (tmp_path / "csv" / "validation.csv").write_text("document,summary\nD.,E.\n")
    assert load("summarization", tmp_path / "csv")["train"]["inputs"][:] == ["summarize: A, long.", "summarize: B."]


@pytest.mark.parametrize(
    "rows, message",
    [
        ([{"document": "A."}], "no text in the column 'summary'"),
        ([{"document": "A.", "summary": 3}], r"jsonl:1: no text in the column 'summary'"),
        ([{"document": "A.", "summary": "B."}, {"document": " ", "summary": "B."}], "the document is blank"),
        ([{"document": "A.", "summary": ""}], "the target is blank"),
    ],
)
def test_bad_summaries(tmp_path, rows, message):
    for split in ("train", "validation"):
        write_lines(tmp_path / "data" / f"{split}.jsonl", rows)
    with pytest.raises(DataError, match=message):
        load("summarization", tmp_path / "data")


def test_a_missing_column_names_the_option(tmp_path):
    (tmp_path / "train.csv").write_text("article,summary\nA.,B.\n")
    with pytest.raises(DataError, match="no column 'document' .*article.*--columns"):
        load("summarization", tmp_path)


def test_translations_from_parallel_files(tmp_path):
    for split, number in (("train", 6), ("val", 2)):
        (tmp_path / f"{split}.en").write_text("".join(f"dog {n}\n" for n in range(number)))
        (tmp_path / f"{split}.de").write_text("".join(f"Hund {n}\n" for n in range(number)))
    splits = load("translation", tmp_path, languages=("en", "de"))
    assert splits["train"][1] == {"inputs": "translate English to German: dog 1", "target": "Hund 1"}
    assert len(splits["validation"]) == 2


def test_questions_without_answers_are_refused(tmp_path):
    question = {"id": "q", "question": "Who?", "answers": [], "is_impossible": True}
    data = {"version": "2", "data": [{"title": "T", "paragraphs": [{"context": "C.", "qas": [question]}]}]}
    for split in ("train", "dev"):
        (tmp_path / f"{split}.json").write_text(json.dumps(data))
    with pytest.raises(DataError, match="1 questions have no answer, such as q: that is SQuAD 2.0"):
        load("squad", tmp_path)


def test_every_task_finds_its_source(tmp_path):
    for name in ("SQuAD", "RTE", "summarization"):
        (tmp_path / name).mkdir()
    arguments = ExampleArguments(dataset=str(tmp_path))
    found = {name: source_of(name, arguments, {"rte": "elsewhere"}).dataset for name in ("squad", "rte", "mrpc")}
    assert found == {"squad": str(tmp_path / "SQuAD"), "rte": "elsewhere", "mrpc": str(tmp_path)}
    assert arguments.dataset == str(tmp_path)
    assert source_of("squad", ExampleArguments(), {}).dataset == "builtin"


def test_a_task_that_is_not_built_in():
    with pytest.raises(DataError, match="no task like wnli"):
        load("wnli", "builtin")
