"""Prompts as text, conversations and ids, and those that cannot be used."""

import pytest
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from hftoolkit.data.prompt_sources import prompt_rows
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


def test_preferences_hold_prompts():
    assert prompt_rows({"prompt": "Hi", "completions": ["No.", "Hm."], "ranks": [2, 1]}, "x") == [{"prompt": "Hi"}]
    dialogue = {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant: No."}
    assert prompt_rows(dialogue, "x") == [{"prompt": "\n\nHuman: Hi\n\nAssistant:"}]
