"""Prompts as text, conversations and ids, and those that cannot be used."""

import json

import pytest
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from hftoolkit.arguments import ExampleArguments
from hftoolkit.data.prompt_sources import load_prompts, prompt_rows
from hftoolkit.data.prompts import as_dataset, tokenize_prompts
from hftoolkit.errors import DataError
from hftoolkit.tokenization.chat import CHAT_TEMPLATE

WORDS = ["<pad>", "</s>", "a", "b", "c", "<|im_start|>user", "<|im_start|>assistant"]


@pytest.fixture
def tokenizer():
    inner = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="</s>")


def encode(rows, tokenizer, limit=5, **options):
    return tokenize_prompts(as_dataset(rows), tokenizer, max_prompt_length=limit, **options)


def test_text_keeps_its_other_columns(tokenizer):
    found = encode([{"prompt": "a b", "answer": "c"}, {"prompt": "c", "answer": "a"}], tokenizer)
    assert found["prompt_ids"][:] == [[2, 3], [4]]
    assert found["answer"][:] == ["c", "a"] and found["prompt"][:] == ["a b", "c"]


def test_ids_and_lists_of_texts(tokenizer):
    ids = tokenize_prompts(Dataset.from_dict({"input_ids": [[2, 4]]}), tokenizer, max_prompt_length=5)
    assert ids["prompt_ids"][:] == [[2, 4]] and ids["prompt"][:] == ["a c"]
    assert encode(["a", "b c"], tokenizer)["prompt_ids"][:] == [[2], [3, 4]]


def test_a_conversation_ends_where_the_assistant_begins(tokenizer):
    tokenizer.chat_template = CHAT_TEMPLATE
    found = encode([{"prompt": [{"role": "user", "content": "a"}]}], tokenizer)
    assert tokenizer.convert_ids_to_tokens(found["prompt_ids"][0])[-1] == "<|im_start|>assistant"
    assert found["prompt"][0] == [{"role": "user", "content": "a"}]


def test_an_end_token_that_the_tokenizer_adds_is_taken_off(tokenizer):
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    assert tokenizer("a b")["input_ids"] == [2, 3, 1]
    assert encode(["a b", "a </s>"], tokenizer)["prompt_ids"][:] == [[2, 3], [2, 1, 1]]


def test_the_processes_that_tokenize(tokenizer, monkeypatch):
    asked, plain = [], Dataset.map
    monkeypatch.setattr(
        Dataset, "map", lambda self, *args, num_proc, **kw: asked.append(num_proc) or plain(self, *args, **kw)
    )
    assert encode(["a", "b"], tokenizer, num_workers=2)["prompt_ids"][:] == [[2], [3]]
    assert len(encode(["a"], tokenizer)) == 1 and asked == [2, None]


def test_what_is_too_long(tokenizer):
    rows = ["a", "a b c a b c"]
    with pytest.raises(DataError, match="row 1 of the training prompts has 6 tokens, and the limit is 5"):
        encode(rows, tokenizer)
    assert encode(rows, tokenizer, on_long="skip")["prompt_ids"][:] == [[2]]
    assert encode(rows, tokenizer, on_long="truncate")["prompt_ids"][:] == [[2], [3, 4, 2, 3, 4]]
    with pytest.raises(DataError, match="no evaluation prompt is left: all 1 have more than 2"):
        encode(["a b c"], tokenizer, limit=2, on_long="skip", name="evaluation")


def test_what_is_no_prompt(tokenizer):
    with pytest.raises(DataError, match="row 1 of the training prompts is empty"):
        encode(["a", " "], tokenizer)
    with pytest.raises(DataError, match="columns text, but none of prompt, messages, input_ids"):
        encode([{"text": "a"}], tokenizer)


def test_a_conversation_needs_a_chat_template_that_takes_it(tokenizer):
    rows = [{"prompt": [{"role": "user", "content": "a"}]}]
    with pytest.raises(DataError, match=r"row 0 of the training prompts is a conversation, .*recipes/sft\.py"):
        encode(rows, tokenizer)
    tokenizer.chat_template = "{{ raise_exception('no users here') }}"
    with pytest.raises(DataError, match="row 0 of the evaluation prompts cannot be written .* no users here"):
        encode(rows, tokenizer, name="evaluation")


@pytest.fixture
def load(tmp_path):
    """The prompts of a file with these rows."""

    def prompts_of(*rows, **options):
        lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
        (tmp_path / "a.jsonl").write_text("\n".join(lines))
        return load_prompts(ExampleArguments(dataset=str(tmp_path / "a.jsonl")), 0, **options)["train"]["prompt"][:]

    return prompts_of


def test_rows_without_a_prompt_stop_or_are_left_out(load, caplog):
    rows = [{"prompt": "a"}, {"prompt": ""}, "{broken", {"prompt": "b"}]
    with pytest.raises(DataError, match=r"a.jsonl:2: the prompt is ''.*--on_bad_row skip"):
        load(*rows)
    skipped = {}
    assert load(*rows, on_bad_row="skip", max_bad_rows=2, skipped=skipped) == ["a", "b"]
    assert skipped["skipped"] == 2 and "a.jsonl:3:2: broken JSON" in skipped["skipped_at"][1]
    assert "2 rows are left out: " in caplog.text
    with pytest.raises(DataError, match="more than 1 rows cannot be read: .*raise --max_bad_rows"):
        load(*rows, on_bad_row="skip", max_bad_rows=1)


def test_prompts_of_another_form_are_named(load):
    chat = {"prompt": [{"role": "user", "content": "b"}]}
    with pytest.raises(DataError, match=r"a.jsonl:3: the prompt is a conversation, but those before are text"):
        load({"prompt": "a"}, {"prompt": "b"}, chat)
    with pytest.raises(DataError, match=r"a.jsonl:2: the prompt is text, but those before are a conversation"):
        load(chat, {"prompt": "a"})
    with pytest.raises(DataError, match=r"a.jsonl:1: the prompt is .*has to be text or a conversation"):
        load({"prompt": ["a", "b"]})


def test_answers_that_are_not_read_need_not_be_good(load):
    hh = "\n\nHuman: Hi\n\nAssistant:"
    pairs = [{"chosen": hh, "rejected": f"{hh} No."}, {"chosen": f"{hh} No.", "rejected": f"{hh} No."}]
    assert load(*pairs) == [hh] * 2
    assert load({"prompt": "Hi", "completions": ["No.", "No."], "ranks": [1, 1]}) == ["Hi"]
    with pytest.raises(DataError, match="their prompts are not the same"):
        load({"chosen": f"{hh} A\n\nHuman: x\n\nAssistant: y", "rejected": f"{hh} B"})


def test_preferences_hold_prompts():
    assert prompt_rows({"prompt": "Hi", "completions": ["No.", "Hm."], "ranks": [2, 1]}, "x") == [{"prompt": "Hi"}]
    dialogue = {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant: No."}
    assert prompt_rows(dialogue, "x") == [{"prompt": "\n\nHuman: Hi\n\nAssistant:"}]
