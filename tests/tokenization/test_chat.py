"""The chat template: its text, its mask, and its special tokens."""

import pytest
from transformers import PreTrainedTokenizerFast

from hftoolkit.tokenization import KINDS, train_tokenizer

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "walk or talk?"},
    {"role": "assistant", "content": "walk"},
    {"role": "user", "content": "stone?"},
]


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request, texts):
    return train_tokenizer(request.param, texts, 450, chat_template=True, progress=False)


def test_turns_end_with_the_end_token(tokenizer):
    end = tokenizer.eos_token
    assert tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True) == (
        f"<|im_start|>system\nBe brief.{end}\n<|im_start|>user\nwalk or talk?{end}\n"
        f"<|im_start|>assistant\nwalk{end}\n<|im_start|>user\nstone?{end}\n<|im_start|>assistant\n"
    )


def test_the_mask_covers_the_answer_and_its_end(tokenizer):
    encoded = tokenizer.apply_chat_template(MESSAGES, return_dict=True, return_assistant_tokens_mask=True)
    pairs = zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    answer = [number for number, masked in pairs if masked]
    assert answer[-1] == tokenizer.eos_token_id
    text = tokenizer.decode(answer[:-1]).strip()
    assert text == "walk" or set(answer[:-1]) == {tokenizer.unk_token_id}


def test_a_turn_starts_with_one_token(tokenizer):
    start = tokenizer.convert_tokens_to_ids("<|im_start|>")
    ids = tokenizer.apply_chat_template(MESSAGES, return_dict=True)["input_ids"]
    assert ids.count(start) == 4 and start in tokenizer.all_special_ids


def test_the_template_is_saved_and_loaded(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    arguments = dict(return_dict=True, return_assistant_tokens_mask=True)
    ours, theirs = (t.apply_chat_template(MESSAGES, **arguments) for t in (tokenizer, loaded))
    assert dict(ours) == dict(theirs)
