"""What a reward model reads: the answer survives a limit, and the score's place is the last token."""

import pytest

from hftoolkit.data.preferences_tokens import answer_tokens, length_limit, pad_right, reads_pairs, special_ends
from hftoolkit.errors import DataError
from hftoolkit.tokenization import train_tokenizer

TEXTS = ["the lamp is in the hall", "who has the lamp?", "anna has it"]


@pytest.fixture(scope="module")
def gpt():
    return train_tokenizer("byte", TEXTS)


@pytest.fixture(scope="module")
def bert():
    return train_tokenizer("wordpiece", TEXTS, vocab_size=60)


def test_one_text_with_the_end_token_last(gpt):
    (row,) = answer_tokens(gpt, ["ab"], [" cd"], 20)
    assert gpt.decode(row["input_ids"]) == "ab cd" + gpt.eos_token and row["input_ids"][-1] == gpt.eos_token_id
    assert (row["prompt_cut"], row["answer_cut"]) == (0, 0) and not reads_pairs(gpt)


@pytest.mark.parametrize(("longest", "left", "cut"), [(6, "b cde", (1, 0)), (5, " cde", (2, 0)), (3, "de", (2, 2))])
def test_the_prompt_is_cut_from_the_left_and_the_answer_last(gpt, longest, left, cut):
    (row,) = answer_tokens(gpt, ["ab"], [" cde"], longest)
    assert gpt.decode(row["input_ids"]) == left + gpt.eos_token
    assert (row["prompt_cut"], row["answer_cut"]) == cut


def test_a_tokenizer_that_separates_texts_reads_a_pair(bert):
    (row,) = answer_tokens(bert, ["the lamp"], ["anna has it"], 20)
    plain = bert("the lamp", "anna has it")
    assert reads_pairs(bert) and row["input_ids"] == plain["input_ids"]
    assert row["token_type_ids"] == plain["token_type_ids"]


def test_a_pair_is_cut_like_a_text(bert):
    answer = bert("anna has it", add_special_tokens=False)["input_ids"]
    prompt = bert("the lamp is", add_special_tokens=False)["input_ids"]
    (row,) = answer_tokens(bert, ["the lamp is"], ["anna has it"], len(answer) + 4)
    assert row["input_ids"] == [bert.cls_token_id, prompt[-1], bert.sep_token_id, *answer, bert.sep_token_id]
    assert (row["prompt_cut"], row["answer_cut"]) == (len(prompt) - 1, 0)
    (row,) = answer_tokens(bert, ["the lamp is"], ["anna has it"], len(answer) + 2)
    assert row["input_ids"] == [bert.cls_token_id, bert.sep_token_id, *answer[1:], bert.sep_token_id]
    assert (row["prompt_cut"], row["answer_cut"]) == (len(prompt), 1)
    assert row["token_type_ids"] == [0, 0] + [1] * len(answer)


def test_special_tokens_of_the_tokenizer_stay(gpt, bert):
    assert special_ends(gpt) == ([], [gpt.eos_token_id])
    assert special_ends(bert) == ([bert.cls_token_id], [bert.sep_token_id])


def test_a_first_token_that_a_chat_template_has_written_is_not_doubled(gpt):
    import copy

    tokenizer = copy.deepcopy(gpt)
    from tokenizers.processors import TemplateProcessing

    first, number = tokenizer.eos_token, tokenizer.eos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{first} $A", special_tokens=[(first, number)]
    )
    plain, written = answer_tokens(tokenizer, ["ab", f"{first}ab"], [" c", " c"], 20)
    assert plain["input_ids"][0] == number != plain["input_ids"][1]
    assert written["input_ids"] == plain["input_ids"]


def test_padding_is_right_and_masked():
    batch = pad_right([{"input_ids": [5, 6, 7]}, {"input_ids": [8]}], 9)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_limits(gpt):
    gpt.model_max_length = 40
    assert length_limit(gpt) == 40 and length_limit(gpt, None, 12) == 12
    with pytest.raises(DataError, match="max_length is 41, but the tokenizer reads at most 40"):
        length_limit(gpt, None, 41)
    with pytest.raises(DataError, match="max_length is 3; a reward model reads at least 8"):
        length_limit(gpt, None, 3)


def test_no_texts(gpt):
    assert answer_tokens(gpt, [], [], 10) == []
