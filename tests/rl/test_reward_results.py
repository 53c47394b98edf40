"""Which answers get the mean reward 0, and what is reported where there is nothing to evaluate."""

import json
from types import SimpleNamespace

import pytest
from datasets import Dataset

from hftoolkit.data.preferences_batches import tokenize_preferences
from hftoolkit.errors import DataError
from hftoolkit.rl.reward_results import evaluate_rewards, load_demonstrations
from hftoolkit.tokenization import train_tokenizer

ROWS = [{"prompt": "ab", "completions": [" c", " def"], "scores": [0.0, 1.0], "margin": None}] * 3


def test_sources_of_demonstrations(tmp_path):
    tokenizer = train_tokenizer("byte", ["a"])
    tokens = tokenize_preferences(Dataset.from_list(ROWS), tokenizer, 20)
    assert load_demonstrations("none", 2, tokens, tokenizer, 20) is None
    chosen = load_demonstrations("chosen", 2, tokens, tokenizer, 20)
    assert [tokenizer.decode(row["input_ids"]) for row in chosen] == ["ab def<|endoftext|>"] * 2
    file = tmp_path / "train.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": f"p{n}", "completion": " yes"}) for n in range(4)))
    found = load_demonstrations(str(file), 3, tokens, tokenizer, 20)
    assert [tokenizer.decode(row["input_ids"]) for row in found] == [f"p{n} yes<|endoftext|>" for n in range(3)]
    with pytest.raises(DataError, match="there is no file or folder"):
        load_demonstrations(str(tmp_path / "no.jsonl"), 3, tokens, tokenizer, 20)


@pytest.mark.parametrize(("in_head", "place"), [(True, "the head's bias"), (False, "config.reward_bias")])
def test_the_result_says_where_the_shift_is(in_head, place):
    found = evaluate_rewards(SimpleNamespace(shift=-0.5, bias_in_head=in_head, eval_dataset=None))
    assert found["reward_shift"] == -0.5 and found["reward_shift_is_in"].startswith(place)
    assert evaluate_rewards(SimpleNamespace(shift=None, eval_dataset=None)) == {}
