"""Instructions in every known form become TRL's forms; what cannot be used is refused with file and line."""

import gzip
import json
import zipfile

import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset

from hftoolkit.arguments import ExampleArguments
from hftoolkit.data.instructions import describe_instructions, is_conversational, load_instructions, texts_of
from hftoolkit.data.instructions_rows import PROMPT_WITH_INPUT, PROMPT_WITHOUT_INPUT, conversation, instruction_rows
from hftoolkit.data.microworld import judge_answer
from hftoolkit.errors import DataError

USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}
SYSTEM = {"role": "system", "content": "Be brief."}
TEXT = {"prompt": "Hi", "completion": "Hello."}


def load(path, **options):
    return load_instructions(ExampleArguments(dataset=str(path)), **({"validation_fraction": 0} | options))


def rows_of(row, **options):
    return instruction_rows(row, "file:7", **options)


def test_alpaca_uses_the_templates_of_stanford():
    """Word for word, with and without an input; an empty input is none."""
    head = "Below is an instruction that describes a task"
    tail = "Write a response that appropriately completes the request.\n\n### Instruction:\nAdd {x}.\n\n"
    with_input = (
        f"{head}, paired with an input that provides further context. {tail}### Input:\n1 + 1\n\n### Response:"
    )
    row = {"instruction": "Add {x}.", "input": "1 + 1", "output": "2"}
    assert rows_of(row) == [{"prompt": with_input, "completion": "2"}]
    without = [{"prompt": f"{head}. {tail}### Response:", "completion": "2"}]
    assert rows_of(row | {"input": ""}) == rows_of({"instruction": "Add {x}.", "output": "2"}) == without
    assert rows_of(row | {"input": None}) == without


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, ANSWER]},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]},
        {"conversations": [USER, ANSWER]},
        {"messages": [USER, ANSWER], "prompt": None, "completion": None},
    ],
    ids=["openai", "sharegpt", "role and content", "empty columns beside"],
)
def test_conversations(row):
    assert rows_of(row) == [{"messages": [USER, ANSWER]}] == rows_of(row, chat=True)


def test_systems_and_several_turns():
    row = {"conversations": [{"from": "user", "value": "Hi"}, {"from": "assistant", "value": "Hello."}]}
    assert rows_of(row | {"system": "Be brief."}) == [{"messages": [SYSTEM, USER, ANSWER]}]
    assert rows_of(row | {"system": ""}) == [{"messages": [USER, ANSWER]}]
    own = {"messages": [SYSTEM, USER, ANSWER], "system": "Not this one."}
    assert rows_of(own) == [{"messages": [SYSTEM, USER, ANSWER]}]
    developer = [{"role": "developer", "content": "Be brief."}, USER, ANSWER, USER, ANSWER]
    assert conversation(developer, "x") == [SYSTEM, USER, ANSWER, USER, ANSWER]


def test_prompts_and_completions():
    assert rows_of(TEXT) == [TEXT]
    assert rows_of({"prompt": "Hi\n", "completion": " Hello.<|endoftext|>"}) == [
        {"prompt": "Hi\n", "completion": " Hello."}
    ]
    lists = {"prompt": [SYSTEM, USER], "completion": [ANSWER]}
    assert rows_of(lists | {"kind": "greeting"}) == [lists] == rows_of(lists, chat=True)
    chat = [{"messages": [USER, ANSWER]}]
    assert rows_of({"prompt": "Hi\n", "completion": " Hello."}, chat=True) == chat
    named = {"question": "Hi", "answer": "Hello."}
    assert rows_of(named, columns=["question", "answer"]) == [{"prompt": "Hi\n", "completion": "Hello."}]
    assert rows_of(named, columns=["question", "answer"], chat=True) == chat


def test_relatives_of_alpaca():
    dolly = {"instruction": "Say hi.", "context": "To Tom.", "response": "Hi Tom.", "category": "open"}
    prompt = PROMPT_WITH_INPUT.format(instruction="Say hi.", input="To Tom.")
    assert rows_of(dolly) == [{"prompt": prompt, "completion": "Hi Tom."}]
    seed = {"instruction": "Add.", "instances": [{"input": "1 1", "output": "2"}, {"input": "", "output": "0"}]}
    assert [row["completion"] for row in rows_of(seed)] == ["2", "0"]
    assert rows_of(seed)[1]["prompt"] == PROMPT_WITHOUT_INPUT.format(instruction="Add.")
    factory = {"instruction": "And now?", "input": "", "output": "Bye.", "system": "Be brief."}
    factory["history"] = [["Hi", "Hello."]]
    turns = [SYSTEM, USER, ANSWER, {"role": "user", "content": "And now?"}, {"role": "assistant", "content": "Bye."}]
    assert rows_of(factory, chat=True) == [{"messages": turns}]
    with pytest.raises(DataError, match="file:7: system and history need a conversation: give --chat true"):
        rows_of(factory)


def test_the_best_answer_of_a_preference_is_a_demonstration():
    dialogue = {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant: No."}
    assert rows_of(dialogue) == [{"prompt": "\n\nHuman: Hi\n\nAssistant:", "completion": " Hello."}]
    ranked = {"prompt": "Hi", "completions": ["No.", "Hello.", "Hm."]}
    best = [{"prompt": "Hi", "completion": "Hello."}]
    assert rows_of(ranked | {"scores": [0, 2, 1]}) == best == rows_of(ranked | {"ranks": [3, 1, 2]})
    assert rows_of(ranked | {"ranks": [3, 1, 2]}, chat=True) == [{"messages": [USER, ANSWER]}]
    lists = {"chosen": [ANSWER], "rejected": [ANSWER | {"content": "No."}]}
    assert rows_of(lists | {"prompt": [USER]}) == [{"messages": [USER, ANSWER]}]
    assert rows_of({name: [USER, *turns] for name, turns in lists.items()}) == [{"messages": [USER, ANSWER]}]
    with pytest.raises(DataError, match="file:7: all 3 answers are tied"):
        rows_of(ranked | {"ranks": [1, 1, 1]})


@pytest.mark.parametrize(
    "row, message",
    [
        (
            {"question": "Hi", "answer": "Hello."},
            "the row has question, answer; accepted are messages; chosen, rejected;",
        ),
        ({}, "the row has no columns"),
        (["Hi", "Hello."], "a row is an object with named fields, not list"),
        (TEXT | {"completion": ""}, "the completion is empty"),
        (TEXT | {"completion": " \n"}, "the completion is empty"),
        (TEXT | {"completion": "<|endoftext|>"}, "the completion is empty"),
        (TEXT | {"completion": None}, "the completion is null, not text"),
        (TEXT | {"prompt": 3}, "the prompt is int, not text"),
        (TEXT | {"prompt": ""}, "the prompt is empty"),
        (TEXT | {"prompt": "\ud800"}, "half a surrogate pair at position 0"),
        (TEXT | {"completion": [ANSWER]}, "the completion is list, not text"),
        ({"instruction": "Add.", "output": ""}, "the completion (output) is empty"),
        ({"instruction": "Add.", "output": "2", "input": 1}, "the input is int, not text"),
        ({"instruction": "Add.", "instances": []}, "instances are a list"),
        ({"instruction": "Add.", "instances": [{"output": "1"}, {"input": "1"}]}, "instance 1: an instance has"),
        ({"messages": []}, "a conversation is a list of messages, not empty"),
        ({"messages": "Hi"}, "a conversation is a list of messages, not text"),
        ({"messages": [USER, "Hello."]}, "message 1: a message has role and content"),
        ({"messages": [USER, {"role": "assistant"}]}, "message 1: a message has role and content"),
        (
            {"messages": [USER, {"role": "tool", "content": "3"}]},
            "message 1: unknown role 'tool'; the roles are user,",
        ),
        ({"messages": [USER, {"role": None, "content": "3"}]}, "unknown role None"),
        ({"messages": [ANSWER, USER]}, "message 0: the role is assistant, but it is the turn of user"),
        ({"messages": [USER, USER, ANSWER]}, "message 1: the role is user, but it is the turn of assistant"),
        ({"messages": [USER, SYSTEM, ANSWER]}, "message 1: the role is system, but it is the turn of assistant"),
        ({"messages": [USER, ANSWER, USER]}, "ends with user; the assistant must have the last word"),
        ({"messages": [SYSTEM]}, "ends with system"),
        ({"messages": [USER, ANSWER | {"content": ""}]}, "message 1: the content of assistant is empty"),
        ({"messages": [USER, ANSWER | {"content": ["Hello."]}]}, "message 1: the content of assistant is list"),
        ({"prompt": [USER, ANSWER], "completion": [USER, ANSWER]}, "completion, message 0: the role is user"),
    ],
)
def test_a_row_that_cannot_be_used(row, message):
    with pytest.raises(DataError) as error:
        rows_of(row)
    assert str(error.value).startswith("file:7") and message in str(error.value)


def test_a_column_that_is_not_there():
    with pytest.raises(DataError, match="file:7: no column 'answr'; the columns are question, answer"):
        rows_of({"question": "Hi", "answer": "Hello."}, columns=["question", "answr"])


def test_every_format_of_file(tmp_path):
    """The same two rows from six kinds of files."""
    rows = [TEXT, {"prompt": "Two\nlines, with a comma", "completion": "é"}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "a.jsonl").write_text("\n" + lines)
    (tmp_path / "b.json").write_text(" \n" + json.dumps(rows, indent=1))
    (tmp_path / "c.json").write_text(lines)
    (tmp_path / "d.csv").write_text('completion,prompt\nHello.,Hi\né,"Two\nlines, with a comma"\n')
    with gzip.open(tmp_path / "e.jsonl.gz", "wt") as file:
        file.write(lines)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "f.parquet")
    for path in sorted(tmp_path.iterdir()):
        assert load(path)["train"].to_list() == rows, path.name
    (tmp_path / "g.tsv").write_text('prompt\tcompletion\nHi\t"Hello."\n')
    assert load(tmp_path / "g.tsv")["train"][0]["completion"] == '"Hello."'


def test_conversations_in_parquet_with_other_columns(tmp_path):
    rows = [{"messages": [USER, ANSWER], "source": "x"}] * 2
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert load(tmp_path / "a.parquet")["train"].to_list() == [{"messages": [USER, ANSWER]}] * 2


def test_splits(tmp_path):
    """Files named after splits are these; otherwise the last rows are held out."""
    lines = [json.dumps({"prompt": f"{n}", "completion": "x"}) + "\n" for n in range(10)]
    (tmp_path / "train.jsonl").write_text("".join(lines[:8]))
    held = load(tmp_path / "train.jsonl", validation_fraction=0.25)
    assert held["validation"]["prompt"][:] == ["6", "7"] and len(held["train"]) == 6
    assert set(load(tmp_path / "train.jsonl")) == {"train"}
    (tmp_path / "validation.jsonl").write_text("".join(lines[8:]))
    both = load(tmp_path, validation_fraction=0.25)
    assert both["validation"]["prompt"][:] == ["8", "9"] and len(both["train"]) == 8


def test_the_place_of_a_bad_row(tmp_path):
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(TEXT)}\n\n{json.dumps(TEXT | {'completion': ''})}\n")
    with pytest.raises(DataError, match=r"a\.jsonl:3: the completion is empty"):
        load(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").write_text(f"{json.dumps(TEXT)}\n{{broken\n")
    with pytest.raises(DataError, match=r"b\.jsonl:2:2: broken JSON"):
        load(tmp_path / "b.jsonl")
    (tmp_path / "c.csv").write_text("prompt,completion\nHi,Hello.\nHi\n")
    with pytest.raises(DataError, match=r"c\.csv:3: another number of fields"):
        load(tmp_path / "c.csv")
    (tmp_path / "d.parquet").write_bytes(b"PAR1 this is none")
    with pytest.raises(DataError, match=r"d\.parquet: the Parquet file is damaged"):
        load(tmp_path / "d.parquet")


def test_rows_of_another_form(tmp_path):
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(TEXT)}\n{json.dumps({'messages': [USER, ANSWER]})}\n")
    with pytest.raises(DataError, match=r"a\.jsonl:2: messages as messages, but the rows before are prompt and compl"):
        load(tmp_path / "a.jsonl")
    assert load(tmp_path / "a.jsonl", chat=True)["train"].to_list() == [{"messages": [USER, ANSWER]}] * 2


def test_bad_rows_can_be_left_out_and_are_counted(tmp_path, caplog):
    rows = [json.dumps(TEXT | {"completion": "" if n in (2, 5) else "x"}) for n in range(8)] + ["{broken"]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    skipped = []
    with caplog.at_level("WARNING"):
        found = load(tmp_path / "a.jsonl", on_bad_row="skip", max_bad_rows=3, skipped=skipped)
    assert len(found["train"]) == 6 and [line.split(":")[1] for line in skipped] == ["3", "6", "9"]
    assert "3 rows are left out" in caplog.text
    with pytest.raises(DataError, match="more than 2 rows cannot be used: .*a.jsonl:3.*--max_bad_rows"):
        load(tmp_path / "a.jsonl", on_bad_row="skip", max_bad_rows=2)


@pytest.mark.parametrize("name", ["builtin", "builtin:instructions"])
def test_built_in_data(name):
    """Deterministic, nobody's story in two splits; the questions' answers are true by the microworld itself."""
    options = ExampleArguments(dataset=name, builtin_examples=30)
    found = load_instructions(options)
    assert {split: len(rows) for split, rows in found.items()} == {"train": 30, "validation": 6, "test": 6}
    assert found["train"].to_list() == load_instructions(options)["train"].to_list()
    assert found["train"].column_names == ["prompt", "completion"]
    assert not set(found["train"]["prompt"]) & set(found["validation"]["prompt"])
    if name == "builtin":
        assert all(judge_answer(row["prompt"], row["completion"]) == 1 for row in found["validation"])
    chat = load_instructions(options, chat=True)["train"]
    assert is_conversational(chat[0]) and not is_conversational(found["train"][0])
    assert describe_instructions(chat) == {"examples": 30, "messages": 60}
    assert describe_instructions(found["train"]) == {"examples": 30}
    assert chat[0]["messages"][1]["content"] == found["train"][0]["completion"].strip()


def test_a_data_set_of_the_hub(monkeypatch):
    """Its splits by their usual names, its rows by their numbers."""
    rows = [{"messages": [USER, ANSWER], "id": n} for n in range(3)]
    found = {"train": Dataset.from_list(rows), "dev": Dataset.from_list(rows[:1])}
    monkeypatch.setattr("hftoolkit.data.hub.fetch", lambda data_args: found)
    splits = load("user/chats")
    assert splits["train"].to_list() == [{"messages": [USER, ANSWER]}] * 3 and len(splits["validation"]) == 1
    found["train"] = Dataset.from_list([*rows, {"messages": [USER], "id": 3}])
    with pytest.raises(DataError, match="^user/chats, train, row 3: the conversation ends with user"):
        load("user/chats")


def test_texts_for_a_tokenizer():
    assert list(texts_of([TEXT])) == ["HiHello."]
    assert list(texts_of([{"messages": [USER, ANSWER]}])) == ["Hi", "Hello."]
    assert list(texts_of([{"prompt": [USER], "completion": [ANSWER]}])) == ["Hi", "Hello."]


@pytest.mark.realdata
def test_real_files(real_data, tmp_path):
    """As they are distributed; the counts are those of the manifest."""
    folder = real_data / "instruction"
    seeds = load(folder / "alpaca_seed_tasks.jsonl")["train"]
    assert len(seeds) == 175 and seeds[0]["prompt"].endswith("1000 calories?\n\n### Response:")
    demo = load(folder / "llamafactory_alpaca_en_demo.json")["train"]
    assert len(demo) == 999 and demo[0]["prompt"].startswith(PROMPT_WITHOUT_INPUT[:40])
    gsm = load(folder / "gsm8k_test.jsonl.gz", columns=["question", "answer"], chat=True)["train"]
    assert len(gsm) == 1319 and gsm[0]["messages"][1]["content"].endswith("#### 18")
    with pytest.raises(DataError, match="the row has question, answer"):
        load(folder / "gsm8k_test.jsonl.gz")
    with pytest.raises(DataError, match="the row has question_id, text, category"):
        load(folder / "vicuna_question_80.jsonl")
    with zipfile.ZipFile(folder / "self_instruct_t0_templates_sample.zip") as archive:
        archive.extract("t0/ag_news_classify.jsonl", tmp_path)
    news = load(tmp_path / "t0")["train"]
    assert len(news) > 190 and not any("<|endoftext|>" in text for text in news["completion"])


@pytest.mark.realdata
def test_sharegpt_of_llama_factory(real_data, tmp_path):
    """Its preference demo has ShareGPT's conversations: with the chosen answer behind them they are instructions."""
    rows = json.loads((real_data / "preference/llamafactory_dpo_en_demo.json").read_text())
    whole = [{"conversations": [*row["conversations"], row["chosen"]]} for row in rows]
    (tmp_path / "train.json").write_text(json.dumps(whole))
    found = load(tmp_path / "train.json")["train"]
    assert len(found) == len(rows) and all(row["messages"][-1]["role"] == "assistant" for row in found)
