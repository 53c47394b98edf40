"""Preferences: every distributed form becomes the one form, and wrong rows are named with their place."""

import gzip
import json

import pytest
from datasets import Dataset

from hftoolkit.arguments import ExampleArguments
from hftoolkit.data.microworld import judge_answer
from hftoolkit.data.preferences import BadRows, describe_preferences, load_preferences, read_preferences
from hftoolkit.errors import DataError
from hftoolkit.tokenization import train_tokenizer

HH = {
    "chosen": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Who?\n\nAssistant: Anna.",
    "rejected": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Who?\n\nAssistant: Tom",
}
USER, ANNA, TOM = ({"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Anna."},
                   {"role": "assistant", "content": "Tom"})  # fmt: skip
SHORT = {"prompt": "\n\nHuman: Who?\n\nAssistant:", "completions": [" Anna.", " Tom"]}
RANKING = {"prompt": "Who?", "completions": [" a", " b", " c"], "ranks": [2, 1, 2]}


@pytest.fixture
def read(write):
    """Rows of a file train.jsonl with these rows."""

    def read_rows(*rows, name="train.jsonl", **options):
        text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
        return list(read_preferences(write({name: text}) / name, **options))

    return read_rows


def test_hh_rlhf_is_split_after_the_last_common_assistant(read):
    (row,) = read(HH)
    assert row["prompt"] == HH["chosen"].removesuffix(" Anna.") and row["completions"] == [" Anna.", " Tom"]
    assert row["scores"] == [1.0, 0.0] and row["margin"] is None


def test_answers_that_begin_alike_stay_whole(read):
    (row,) = read({"chosen": "\n\nHuman: x\n\nAssistant: It is.", "rejected": "\n\nHuman: x\n\nAssistant: It isn't."})
    assert row["completions"] == [" It is.", " It isn't."]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": SHORT["prompt"], "chosen": " Anna.", "rejected": " Tom"},
        {"prompt": [USER], "chosen": [ANNA], "rejected": [TOM]},
        {"chosen": [USER, ANNA], "rejected": [USER, TOM]},
        {"prompt": "Who?", "chosen": [USER, ANNA], "rejected": [USER, TOM]},
        {"prompt": "Who?", "chosen": [ANNA], "rejected": [TOM]},
        {"prompt": [USER], "chosen": "Anna.", "rejected": "Tom"},
        {"conversations": [{"from": "human", "value": "Who?"}], "chosen": {"from": "gpt", "value": "Anna."},
         "rejected": {"from": "gpt", "value": "Tom"}},
        {"instruction": "Who?", "input": "", "chosen": "Anna.", "rejected": "Tom"},
    ],
)  # fmt: skip
def test_every_form_of_a_pair_becomes_one(read, row):
    assert read(row | {"margin": 0.5}) == [SHORT | {"scores": [1.0, 0.0], "margin": 0.5}]


def test_a_chat_template_writes_the_prompt_and_leaves_the_answer(read):
    tokenizer = train_tokenizer("byte", ["a"])
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    (row,) = read({"prompt": [USER], "chosen": [ANNA], "rejected": [TOM]}, tokenizer=tokenizer)
    assert row["prompt"] == "<user>Who?<assistant>" and row["completions"] == ["Anna.", "Tom"]


def test_rankings(read):
    by_rank, by_score = read(RANKING, {"prompt": "Who?", "completions": [" a", " b"], "scores": [0.5, 3]})
    assert by_rank["scores"] == [-2.0, -1.0, -2.0] and by_score["scores"] == [0.5, 3.0]
    counts = describe_preferences(Dataset.from_list([by_rank, by_score]))
    assert counts == {"prompts": 2, "answers": 5, "pairs": 3, "tied_pairs": 1}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{broken", "train.jsonl:1:2: broken JSON"),
        ([1], "a row is an object with chosen and rejected"),
        ({"text": "x"}, r"no known form \(text\)"),
        ({"prompt": "p", "chosen": " a", "rejected": " \n"}, "the answer rejected is empty"),
        ({"prompt": "p", "chosen": " a", "rejected": " a"}, "chosen and rejected are the same text, 'a'"),
        ({"chosen": "a", "rejected": "b"}, "no common beginning that ends with 'Assistant:'"),
        (HH | {"chosen": HH["chosen"].replace("Yes", "No")}, "their prompts are not the same"),
        ({"prompt": "p", "chosen": " a", "rejected": " b", "margin": "much"}, "the margin 'much' is no finite number"),
        ({"prompt": [USER], "chosen": [USER], "rejected": [TOM]}, "an answer is a message of the assistant"),
        ({"chosen": [USER, ANNA], "rejected": [USER | {"content": "Where?"}, TOM]}, "different conversations"),
        ({"prompt": [{"role": "user"}], "chosen": [ANNA], "rejected": [TOM]}, "a message has role and content"),
        (RANKING | {"ranks": [1, 1, 1]}, r"all 3 answers are tied \(ranks 1\)"),
        (RANKING | {"ranks": [1, 2]}, "completions and ranks are lists of one length"),
        (RANKING | {"scores": [1, 2, 3]}, "with ranks or with scores, one of the two"),
        (RANKING | {"ranks": [1, 2, None]}, "None in ranks is no finite number"),
        (RANKING | {"completions": [" a", " ", " c"]}, "the answer number 1 is empty"),
        (RANKING | {"completions": [" a", " a", " c"]}, "two answers of different rank are the same text"),
        ({"prompt": "p", "completions": [" a"], "ranks": [1]}, "1 answers; a ranking has at least two"),
    ],
)
def test_a_wrong_row_is_named_with_its_place(read, row, message):
    with pytest.raises(DataError, match=message) as error:
        read(row)
    assert "train.jsonl:1" in str(error.value) and "--on_bad_row skip" in str(error.value)


def test_bad_rows_are_skipped_and_counted_up_to_a_limit(write):
    rows = [SHORT_ROW, {"prompt": "p", "chosen": " a", "rejected": " a"}, "{", SHORT_ROW | {"prompt": "q"}]
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    data_args = ExampleArguments(dataset=str(write({"train.jsonl": text})))
    splits, skipped = load_preferences(data_args, on_bad_row="skip", max_bad_rows=2, validation_fraction=0)
    assert splits["train"]["prompt"][:] == ["p", "q"] and skipped["skipped"] == 2
    assert "train.jsonl:2" in skipped["skipped_at"][0] and "train.jsonl:3" in skipped["skipped_at"][1]
    with pytest.raises(DataError, match="more than 1 rows cannot be read: .*raise --max_bad_rows"):
        load_preferences(data_args, on_bad_row="skip", max_bad_rows=1, validation_fraction=0)


SHORT_ROW = {"prompt": "p", "chosen": " a", "rejected": " b"}


def test_formats_and_splits(write, tmp_path):
    rows = [SHORT_ROW | {"prompt": f"p{n // 2}"} for n in range(20)]
    lines = "\n".join(map(json.dumps, rows)).encode()
    folder = write({"gz/train.jsonl.gz": gzip.compress(lines), "json/train.json": json.dumps(rows),
                    "json/dev.json": lines})  # fmt: skip
    (tmp_path / "parquet").mkdir()
    Dataset.from_list(rows).to_parquet(str(tmp_path / "parquet/train.parquet"))
    found = {
        name: load_preferences(ExampleArguments(dataset=str(folder / name)))[0] for name in ("gz", "json", "parquet")
    }
    assert (
        found["gz"]["train"].to_list() == found["parquet"]["train"].to_list() == found["json"]["train"].to_list()[:18]
    )
    assert found["json"]["validation"].to_list() == found["json"]["train"].to_list()
    assert set(found["gz"]["validation"]["prompt"]) == {"p9"} and len(found["gz"]["validation"]) == 2


def test_a_damaged_parquet_file(write):
    with pytest.raises(DataError, match="train.parquet: the Parquet file is damaged"):
        list(read_preferences(write({"train.parquet": "no parquet"}) / "train.parquet"))


@pytest.mark.parametrize(("name", "answers"), [("builtin", 2), ("builtin:rankings", 3)])
def test_builtin_preferences_are_those_of_the_judge(name, answers):
    splits, skipped = load_preferences(ExampleArguments(dataset=name, builtin_examples=30))
    assert {split: len(part) for split, part in splits.items()} == {"train": 30, "validation": 6, "test": 6}
    assert not skipped and not set(splits["train"]["prompt"]) & set(splits["validation"]["prompt"])
    for row in splits["train"]:
        judged = [judge_answer(row["prompt"], text) for text in row["completions"]]
        assert len(judged) == answers == len(set(judged)) and all(text.startswith(" ") for text in row["completions"])
        assert sorted(judged) == [score for _, score in sorted(zip(row["scores"], judged, strict=True))]
    assert len({tuple(row["scores"]) for row in splits["train"]}) == (1 if answers == 2 else 6)


@pytest.mark.realdata
def test_real_files(real_data):
    bad = BadRows("skip", 10)
    rows = list(read_preferences(real_data / "preference/hh-rlhf/harmless-base/test.jsonl.gz", bad=bad))
    assert len(rows) + len(bad.skipped) == 2312 and len(bad.skipped) == 9
    assert all(row["prompt"].startswith("\n\nHuman:") and row["prompt"].endswith("\n\nAssistant:") for row in rows)
    shared = list(read_preferences(real_data / "preference/llamafactory_dpo_en_demo.json"))
    assert len(shared) == 300 and shared[0]["completions"][0].startswith(" That sounds like a fun")
